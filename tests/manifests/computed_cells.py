"""Cells of `agreement` and `confidence` made by hand, as `agree` and `calibrate` make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.manifest import Cell
from manifests.statistics import cell_statistics

Values = Mapping[str, Sequence[float | None]]
"""Column -> one value a row."""


def shares(values: Values) -> dict[str, pa.Array]:
    """As float32 columns."""
    return {name: pa.array(column, pa.float32()) for name, column in values.items()}


def confidence_table(outputs: Values) -> pa.Table:
    """The best output of each row is the one that is named."""
    best: list[tuple[float, str] | None] = []
    for row in zip(*outputs.values(), strict=True):
        known = [
            (value, name) for name, value in zip(outputs, row, strict=True) if value is not None
        ]
        best.append(max(known) if known else None)
    named = [schemas.output_of(one[1]) if one else None for one in best]
    layers = [schemas.masks_layer(one[0]) if one else None for one in named]
    columns = {
        "confidence": pa.array([one[0] if one else None for one in best], pa.float32()),
        "teacher": pa.array(layers, pa.string()),
        "candidate": pa.array([one[1] if one else 0 for one in named], pa.int16()),
    }
    return pa.table(columns | shares(outputs))


def computed_cell(
    dataset: Dataset, shard: str, layer: str, table: pa.Table, *more_inputs: str
) -> Cell:
    """Made of the shard's boxes, masks by teachers and agreement, and of what else is given."""
    made_of = [
        cell.object_id
        for cell in dataset.manifest.of_shard(shard)
        if cell.layer == schemas.BOXES
        or (cell.layer.startswith("masks/") and cell.layer != schemas.MASKS_HUMAN)
        or (cell.layer == schemas.AGREEMENT and layer == schemas.CONFIDENCE)
    ]
    return write_cell(
        dataset.store, table, shard=shard, layer=layer, inputs=(*made_of, *more_inputs),
        statistics=cell_statistics(layer, table),
    )  # fmt: skip
