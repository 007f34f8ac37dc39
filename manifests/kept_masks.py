"""Masks gathered from the layers and candidates that rows were chosen from, in the rows' order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError
from manifests.schemas import MASKS_SCHEMA, OK

KEPT_MASK_FIELDS = [MASKS_SCHEMA.field(name) for name in ("counts", "area_px", "predicted_iou")]
_COLUMNS = [column.name for column in KEPT_MASK_FIELDS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """For each row of `boxes`: is it wanted, the layer of its mask and which of its; else why not.

    A wanted row without a layer has no mask. `weights` are the verdicts'; None: there are none.
    """

    wanted: NDArray[np.bool_]
    layers: NDArray[np.object_]
    candidates: NDArray[np.int64]
    reasons: NDArray[np.object_]
    weights: NDArray[np.float32] | None = None


def gather_masks(
    dataset: Dataset, shard: str, choice: Choice, rows: NDArray[np.int64], *, num_rows: int
) -> pa.Table:
    """KEPT_MASK_FIELDS of `rows`; nulls where no layer is named. `num_rows` are the boxes'.

    Raises:
        ObjectDamagedError: a chosen mask is not there, or a layer has other rows than the boxes.
    """
    schema = pa.schema(KEPT_MASK_FIELDS)
    pieces, places = [schema.empty_table()], [np.zeros(0, dtype=np.int64)]
    layers, candidates = choice.layers[rows], choice.candidates[rows]
    for layer in sorted({name for name in layers if name is not None}):
        mine = layers == layer
        columns = ["status", *_COLUMNS, *(["candidates"] if candidates[mine].any() else [])]
        table = aligned_table(dataset, shard, layer, num_rows, columns=columns)
        for candidate in np.unique(candidates[mine]).tolist():
            place = np.flatnonzero(mine & (candidates == candidate))
            chosen = table.take(pa.array(rows[place]))
            pieces.append(_candidate(chosen, candidate, f"{layer} of shard {shard[:12]}"))
            places.append(place)
    without = np.flatnonzero(layers == None)  # noqa: E711  elementwise
    pieces.append(pa.table({f.name: pa.nulls(without.size, f.type) for f in schema}))
    order = np.argsort(np.concatenate([*places, without]), kind="stable")
    return pa.concat_tables(pieces).take(pa.array(order))


def _candidate(masks: pa.Table, candidate: int, where: str) -> pa.Table:
    """Candidate 0 is the flat columns, n is `candidates[n - 1]`; every row must have it."""
    if candidate:
        enough = pc.greater_equal(pc.list_value_length(masks["candidates"]), candidate)
        if candidate < 0 or not pc.all(enough).as_py():
            raise ObjectDamagedError(
                f"a verdict names candidate {candidate}, which {where} does not have; "
                "run 'maskmill filter' again"
            )
        structs = pc.list_element(masks["candidates"], candidate - 1)
        chosen = pa.table({name: pc.struct_field(structs, name) for name in _COLUMNS})
    else:
        chosen = masks.select(_COLUMNS)
    if not pc.all(pc.equal(masks["status"], OK)).as_py() or chosen["counts"].null_count:
        raise ObjectDamagedError(
            f"verdicts keep a row that has no mask in {where}; run 'maskmill filter' again"
        )
    return chosen


def aligned_table(
    dataset: Dataset, shard: str, layer: str, num_rows: int, *, columns: list[str] | None
) -> pa.Table:
    """A layer's columns, which must have the rows of `boxes`."""
    table = dataset.table(shard, layer, columns=columns)
    if table.num_rows != num_rows:
        raise ObjectDamagedError(
            f"{layer} of shard {shard[:12]}: expected the {num_rows} rows of boxes, found "
            f"{table.num_rows}; run the step that makes {layer} again"
        )
    return table
