"""What became of every box of a shard, joined by position over whatever layers there are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table

KEPT = "kept"
DROPPED = "dropped"
UNJUDGED = "unjudged"
BARE = "box"

_MASK_FIELDS = [
    pa.field("predicted_iou", pa.float32()),
    pa.field("stability", pa.float32()),
    pa.field("box_iou", pa.float32()),
]
_COUNTS = pa.field("counts", pa.binary())
_LAYER_FIELDS = [pa.field("status", pa.string()), pa.field("why", pa.string())]
_PREFIX = schemas.masks_layer("")

ROWS = pa.schema(
    [
        pa.field("image_row", pa.int32()),
        pa.field("category", pa.string()),
        pa.field("box_xyxy", pa.list_(pa.float32(), 4)),
        pa.field("is_crowd", pa.bool_()),
        # Whose mask was judged, or is shown for want of verdicts; null: nobody's.
        pa.field("teacher", pa.string()),
        # KEPT, DROPPED; without verdicts UNJUDGED, BARE, or the status of a mask that is not there.
        pa.field("outcome", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("has_mask", pa.bool_()),
        *_MASK_FIELDS,
        _COUNTS,
    ]
)


def judged_rows(dataset: Dataset, shard: str, *, with_counts: bool) -> pa.Table:
    """ROWS of a shard, in the order of `boxes`; `counts` are null unless asked for.

    Raises:
        RefError: the shard has no boxes.
        ObjectDamagedError: a layer has other rows than the boxes.
    """
    columns = ["image_row", "category", "box_xyxy", "is_crowd"]
    boxes = dataset.table(shard, schemas.BOXES, columns=columns)
    layers = _layers(dataset, shard)
    statuses = {
        layer: aligned_table(dataset, shard, layer, boxes.num_rows, columns=["status"])["status"]
        for layer in layers
    }
    verdicts = None
    if dataset.manifest.get(shard, schemas.VERDICTS):
        verdicts = aligned_table(dataset, shard, schemas.VERDICTS, boxes.num_rows, columns=None)
    names = (
        _shown_layers(statuses, boxes.num_rows) if verdicts is None else _judged_layers(verdicts)
    )
    candidates = np.zeros(boxes.num_rows, dtype=np.int64)
    if verdicts is not None:
        candidates = verdicts["candidate"].to_numpy().astype(np.int64)
    masks = _gather(dataset, shard, names, candidates, with_counts=with_counts)
    return _rows(boxes, verdicts, names, masks)


def _rows(
    boxes: pa.Table, verdicts: pa.Table | None, names: NDArray[np.object_], masks: pa.Table
) -> pa.Table:
    teachers = [None if name is None else name.removeprefix(_PREFIX) for name in names]
    if verdicts is None:
        is_ok = pc.equal(masks["status"], schemas.OK)
        outcome = pc.coalesce(pc.if_else(is_ok, UNJUDGED, masks["status"]), BARE)
        reason = masks["why"]
    else:
        outcome = pc.if_else(verdicts["keep"], KEPT, DROPPED)
        reason = verdicts["reason"]
    columns = {
        **{name: boxes[name] for name in boxes.column_names},
        "teacher": pa.array(teachers, pa.string()),
        "outcome": outcome,
        "reason": reason,
        "has_mask": pc.fill_null(pc.equal(masks["status"], schemas.OK), False),
        **{field.name: masks[field.name] for field in (*_MASK_FIELDS, _COUNTS)},
    }
    return pa.table({name: columns[name] for name in ROWS.names}).cast(ROWS)


def _layers(dataset: Dataset, shard: str) -> list[str]:
    """The shard's masks layers, the humans' first."""
    found = [
        layer
        for layer in dataset.manifest.layers()
        if layer.startswith(_PREFIX) and dataset.manifest.get(shard, layer)
    ]
    return sorted(found, key=lambda layer: (layer != schemas.MASKS_HUMAN, layer))


def _judged_layers(verdicts: pa.Table) -> NDArray[np.object_]:
    """[N] layer names; a verdict names a layer, with or without its `masks/`."""
    names = [
        None if name is None else schemas.masks_layer(name.removeprefix(_PREFIX))
        for name in verdicts["teacher"].to_pylist()
    ]
    return np.array(names, dtype=object)


def _shown_layers(statuses: Mapping[str, pa.ChunkedArray], num_rows: int) -> NDArray[np.object_]:
    """[N] the first layer that has a mask; else the last, whose reason for having none is shown."""
    names: NDArray[np.object_] = np.full(num_rows, None, dtype=object)
    if statuses:
        names[:] = list(statuses)[-1]
    for layer in reversed(list(statuses)):
        names[np.asarray(pc.equal(statuses[layer], schemas.OK))] = layer
    return names


def _gather(
    dataset: Dataset,
    shard: str,
    names: NDArray[np.object_],
    candidates: NDArray[np.int64],
    *,
    with_counts: bool,
) -> pa.Table:
    """Status, reason and signals of each row's own layer and candidate; nulls without a layer."""
    fields = [*_LAYER_FIELDS, *_MASK_FIELDS, _COUNTS]
    pieces, places = [pa.schema(fields).empty_table()], [np.zeros(0, dtype=np.int64)]
    is_there = np.zeros(len(names), dtype=bool)
    for layer in sorted({name for name in names if name is not None}):
        if dataset.manifest.get(shard, layer) is None:
            continue
        for candidate in np.unique(candidates[names == layer]).tolist():
            place = np.flatnonzero((names == layer) & (candidates == candidate))
            wanted = ["status", "reason", *(field.name for field in _MASK_FIELDS)]
            wanted += ["counts"] if with_counts else []
            wanted += ["candidates"] if candidate else []
            table = aligned_table(dataset, shard, layer, len(names), columns=wanted)
            pieces.append(_piece(table.take(pa.array(place)), candidate, fields))
            places.append(place)
            is_there[place] = True
    without = np.flatnonzero(~is_there)
    pieces.append(pa.table({field.name: pa.nulls(without.size, field.type) for field in fields}))
    order = np.argsort(np.concatenate([*places, without]), kind="stable")
    return pa.concat_tables(pieces).take(pa.array(order))


def _piece(table: pa.Table, candidate: int, fields: list[pa.Field]) -> pa.Table:
    """Candidate 0 is the flat columns, n is `candidates[n - 1]`."""
    columns = {"status": table["status"], "why": table["reason"]}
    structs = pc.list_element(table["candidates"], candidate - 1) if candidate else None
    for field in fields[len(_LAYER_FIELDS) :]:
        if structs is not None:
            columns[field.name] = pc.struct_field(structs, field.name)
        elif field.name in table.column_names:
            columns[field.name] = table[field.name]
        else:
            columns[field.name] = pa.nulls(table.num_rows, field.type)
    return pa.table(columns, schema=pa.schema(fields))
