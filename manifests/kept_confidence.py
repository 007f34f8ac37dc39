"""The confidence of the masks that rows were chosen from, where the layer has it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.kept_masks import Choice, aligned_table
from manifests.schemas import CONFIDENCE, CONFIDENCE_SCHEMA, masks_layer, output_name

_PREFIX = masks_layer("")


def gather_confidence(
    dataset: Dataset, shard: str, choice: Choice, rows: NDArray[np.int64], *, num_rows: int
) -> pa.Array:
    """float32 for each of `rows`; null for human masks, and where nothing is known of the mask.

    Confidence that was computed before the masks were drawn anew is not theirs. `num_rows` are the
    boxes'.

    Raises:
        ObjectDamagedError: the layer has other rows than the boxes.
    """
    values = np.full(len(rows), np.nan, np.float32)
    cell = dataset.manifest.get(shard, CONFIDENCE)
    if cell is not None and len(rows):
        table = aligned_table(dataset, shard, CONFIDENCE, num_rows, columns=None)
        layers, candidates = choice.layers[rows], choice.candidates[rows]
        for layer, candidate in _outputs(layers, candidates):
            name = output_name(layer.removeprefix(_PREFIX), candidate)
            masks = dataset.manifest.get(shard, layer)
            is_of_them = masks and (not cell.inputs or masks.object_id in cell.inputs)
            if is_of_them and name in table.column_names[len(CONFIDENCE_SCHEMA) :]:
                mine = (layers == layer) & (candidates == candidate)
                values[mine] = table[name].to_numpy()[rows[mine]]
    return pa.array(values, pa.float32(), mask=np.isnan(values))


def _outputs(layers: NDArray[np.object_], candidates: NDArray[np.int64]) -> set[tuple[str, int]]:
    """The different (layer, candidate) that rows have; rows without a layer have none."""
    pairs = zip(layers.tolist(), candidates.tolist(), strict=True)
    return {(layer, candidate) for layer, candidate in pairs if layer is not None}
