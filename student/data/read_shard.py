"""A shard's images and boxes from its cells; who drew their masks is looked up, no mask is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError
from manifests.kept import KeptOptions, choose
from manifests.kept_masks import Choice
from manifests.schemas import BOXES, BOXES_SCHEMA, IMAGE_INDEX, MASKS_HUMAN, VERDICTS
from student.data.rows import (
    ANNOTATIONS_SCHEMA,
    CROWD,
    GROUP_OF,
    Bools,
    Ints,
    ReadOptions,
    ShardRows,
)

_INDEX_COLUMNS = [
    "image_id", "height", "width", "offset", "size", "origins", "transforms", "quarantine",
    "not_exhaustive", "negative",
]  # fmt: skip
_BOX_COLUMNS = ["image_row", "category", "box_xyxy", CROWD, GROUP_OF]


def read_shard(dataset: Dataset, shard: str, options: ReadOptions) -> ShardRows:
    """A shard's rows.

    Raises:
        RefError: the shard has no verdicts or not that layer.
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or contradicts another.
    """
    index = dataset.table(shard, IMAGE_INDEX, columns=_INDEX_COLUMNS)
    is_usable = _numpy(pc.is_null(index["quarantine"]))
    boxes = _boxes(dataset, shard)
    choice = _choice(dataset, shard, boxes, options.masks)
    has_mask = choice.wanted & _is_single(boxes)
    is_human = has_mask & (choice.layers == MASKS_HUMAN)
    dropped = np.where(has_mask, "", choice.reasons).astype(object)
    image_rows = _image_rows(boxes, len(is_usable), shard)
    rows = np.flatnonzero(is_usable[image_rows])
    rows = rows[np.argsort(image_rows[rows], kind="stable")]
    annotations = _annotations(boxes, options.categories, choice, has_mask, shard=shard)
    index = index.filter(pa.array(is_usable))
    return ShardRows(
        images=_images(index, options.categories),
        has_lists=_has_any(index["negative"]) | _has_any(index["not_exhaustive"]),
        not_exhaustive=_numbers(index["not_exhaustive"], options.categories).to_pylist(),
        origins=_origins(index["origins"]),
        image_of=(np.cumsum(is_usable) - 1)[image_rows[rows]],
        annotations=annotations.take(pa.array(rows)),
        is_human=is_human[rows],
        fates=_fates(boxes, dropped, options)[rows],
        dropped=dropped[rows],
        num_quarantined=int((~is_usable).sum()),
    )


def chosen_rows(dataset: Dataset, shard: str, masks: str) -> tuple[Choice, Ints, int]:
    """The choice of masks, the rows of `boxes` that `mask_row` counts, and how many rows there are.

    Raises: as `read_shard`.
    """
    boxes = _boxes(dataset, shard)
    choice = _choice(dataset, shard, boxes, masks)
    return choice, np.flatnonzero(choice.wanted & _is_single(boxes)), boxes.num_rows


def _boxes(dataset: Dataset, shard: str) -> pa.Table:
    cell = dataset.manifest.get(shard, BOXES)
    if cell is None or not cell.num_rows:
        return BOXES_SCHEMA.empty_table().select(_BOX_COLUMNS)
    return dataset.table(shard, BOXES, columns=_BOX_COLUMNS)


def _choice(dataset: Dataset, shard: str, boxes: pa.Table, masks: str) -> Choice:
    if not boxes.num_rows:  # such a shard needs no verdicts
        nothing = np.zeros(0, dtype=object)
        is_wanted, candidates = np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)
        return Choice(wanted=is_wanted, layers=nothing, candidates=candidates, reasons=nothing)
    layer = None if masks == VERDICTS else masks
    return choose(dataset, shard, boxes, KeptOptions(layer=layer, boxes_only_crowds=False))


def _is_single(boxes: pa.Table) -> Bools:
    """[N] whether a box is one object: crowds and group-of boxes are no targets."""
    single: Bools = ~_numpy(boxes[CROWD]) & ~_numpy(boxes[GROUP_OF])
    return single


def _fates(
    boxes: pa.Table, dropped: NDArray[np.object_], options: ReadOptions
) -> NDArray[np.object_]:
    """[N] "" for targets; else why a box is none."""
    fates = np.full(boxes.num_rows, "", dtype=object)
    if not options.dropped_boxes:
        fates[:] = dropped
    fates[_numpy(boxes[GROUP_OF])] = GROUP_OF
    fates[_numpy(boxes[CROWD])] = CROWD
    return fates


def _image_rows(boxes: pa.Table, num_images: int, shard: str) -> Ints:
    rows = _numpy(boxes["image_row"]).astype(np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < num_images:
        raise ObjectDamagedError(
            f"boxes of shard {shard[:12]} name images that are not in it; run 'maskmill fsck'"
        )
    return rows


def _images(index: pa.Table, categories: tuple[str, ...]) -> pa.Table:
    ids = [bytes.fromhex(text) for text in index["image_id"].to_pylist()]
    is_original = ~_has_any(index["transforms"])
    return pa.table(
        {
            "image_id": pa.array(ids, pa.binary(16)),
            **{name: index[name] for name in ("offset", "size", "height", "width")},
            "is_original": pa.array(is_original.astype(np.uint8)),
            "negative": _numbers(index["negative"], categories),
        }
    )


def _annotations(
    boxes: pa.Table, categories: tuple[str, ...], choice: Choice, has_mask: Bools, *, shard: str
) -> pa.Table:
    numbers = pc.index_in(boxes["category"], value_set=pa.array(categories, pa.string()))
    if numbers.null_count:
        name = boxes["category"].filter(pc.is_null(numbers))[0].as_py()
        raise ObjectDamagedError(
            f"boxes of shard {shard[:12]} have the category {name!r}, which their commit does not "
            "list; run 'maskmill fsck'"
        )
    mask_rows = np.where(has_mask, np.cumsum(has_mask) - 1, -1).astype(np.int32)
    columns = [numbers.cast(pa.int32()), boxes["box_xyxy"], mask_rows, _weights(choice, has_mask)]
    return pa.table(columns, schema=ANNOTATIONS_SCHEMA)


def _weights(choice: Choice, has_mask: Bools) -> NDArray[np.float32]:
    """[N] what the verdicts say; 1 for a human's mask, and where they say nothing."""
    weights = np.ones(len(has_mask), np.float32)
    if choice.weights is not None:
        is_given = np.isfinite(choice.weights) & has_mask & (choice.layers != MASKS_HUMAN)
        weights[is_given] = np.clip(choice.weights[is_given], 0, 1)
    return weights


def _has_any(lists: pa.ChunkedArray) -> Bools:
    """[N] whether a list is not empty."""
    lengths: Bools = _numpy(pc.list_value_length(lists)) > 0
    return lengths


def _numbers(lists: pa.ChunkedArray, categories: tuple[str, ...]) -> pa.ListArray:
    """Lists of category names to lists of numbers; names that the commit does not list go."""
    names = pa.array(categories, pa.string())
    found = pc.index_in(pc.list_flatten(lists), value_set=names).combine_chunks()
    is_known = np.asarray(pc.is_valid(found))
    ends = np.cumsum(_numpy(pc.list_value_length(lists)))
    num_known = np.concatenate([[0], np.cumsum(is_known)])
    offsets = num_known[np.concatenate([[0], ends])].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pc.drop_null(found).cast(pa.int32()))


def _origins(origins: pa.ChunkedArray) -> list[tuple[str, ...]]:
    return [tuple(sorted({one["source"] for one in row})) for row in origins.to_pylist()]


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:  # Any: the column's own type
    values: NDArray[Any] = np.asarray(column.to_numpy())
    return values
