"""What the loader knows of every image and box, as compact Arrow tables; masks stay in their cells.

600,000 images and 10 million boxes are about 40 MB and 290 MB, mapped from a file that all
processes of a machine share.
"""

from __future__ import annotations

from dataclasses import dataclass
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

IMAGES_SCHEMA = pa.schema(
    [
        # The 128 bits behind the image's id.
        pa.field("image_id", pa.binary(16), nullable=False),
        # Where its bytes are: a row of the data's list of shards, and the place in its tar.
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # 1: the id is the digest of these bytes.
        pa.field("is_original", pa.uint8(), nullable=False),
        # 1: a human drew one of its masks.
        pa.field("has_human", pa.uint8(), nullable=False),
        # A row of the data's list of origins: the sources that the image came from.
        pa.field("origin", pa.int32(), nullable=False),
        # Its rows of the annotations.
        pa.field("first", pa.int64(), nullable=False),
        pa.field("num", pa.int32(), nullable=False),
        # Categories, by number: verified as absent; and those of which something is there that is
        # no target (not labelled exhaustively, crowds, boxes that are left out).
        pa.field("negative", pa.list_(pa.int32()), nullable=False),
        pa.field("not_judged", pa.list_(pa.int32()), nullable=False),
        # 1: other categories than those of `negative` and those that are there are unknown.
        pa.field("is_federated", pa.uint8(), nullable=False),
    ]
)

ANNOTATIONS_SCHEMA = pa.schema(
    [
        pa.field("category", pa.int32(), nullable=False),
        pa.field("box_xyxy", pa.list_(pa.float32(), 4), nullable=False),
        # The row among the chosen masks of its shard (see mask_pack); -1: there is none.
        pa.field("mask_row", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
    ]
)

_INDEX_COLUMNS = [
    "image_id", "height", "width", "offset", "size", "origins", "transforms", "quarantine",
    "not_exhaustive", "negative",
]  # fmt: skip
_BOX_COLUMNS = ["image_row", "category", "box_xyxy", "is_crowd", "is_group_of"]
CROWD, GROUP_OF, QUARANTINED = "is_crowd", "is_group_of", "image_quarantined"

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What decides a shard's rows.

    Attributes:
        masks: as `DataConfig.masks`.
        dropped_boxes: as `DataConfig.dropped_boxes`.
        categories: names; their places are the numbers in the tables.
    """

    masks: str
    dropped_boxes: bool
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """One shard's images that may be used, and all their boxes.

    Attributes:
        images: the columns of IMAGES_SCHEMA that do not depend on boxes or other images.
        has_lists: [I] whether an image came with `negative` or `not_exhaustive` categories.
        not_exhaustive: for each image the categories that its source says so of.
        origins: for each image the names of its sources.
        image_of: [N] the image of each box, rising.
        annotations: ANNOTATIONS_SCHEMA, for each box.
        is_human: [N] whether its mask is a human's.
        fates: [N] "" for a target; else why it is none.
        dropped: [N] why a box has no mask; "" where it has one.
        num_quarantined: images that are left out.
    """

    images: pa.Table
    has_lists: Bools
    not_exhaustive: list[list[int]]
    origins: list[tuple[str, ...]]
    image_of: Ints
    annotations: pa.Table
    is_human: Bools
    fates: NDArray[np.object_]
    dropped: NDArray[np.object_]
    num_quarantined: int


def read_shard(dataset: Dataset, shard: str, options: ReadOptions) -> ShardRows:
    """A shard's rows; reads no mask.

    Raises:
        RefError: the shard has no verdicts or not that layer.
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or contradicts another.
    """
    index = dataset.table(shard, IMAGE_INDEX, columns=_INDEX_COLUMNS)
    usable = _numpy(pc.is_null(index["quarantine"]))
    index = index.filter(pa.array(usable))
    place_of = np.cumsum(usable) - 1  # row of the index -> place among usable images
    boxes = _boxes(dataset, shard)
    choice = _choice(dataset, shard, boxes, options.masks)
    has_mask = choice.wanted & _is_single(boxes)
    mask_rows = np.where(has_mask, np.cumsum(has_mask) - 1, -1)
    weights = np.ones(boxes.num_rows, np.float32)
    is_human = choice.layers == MASKS_HUMAN
    if choice.weights is not None:
        given = np.isfinite(choice.weights) & has_mask & ~is_human
        weights[given] = np.clip(choice.weights[given], 0, 1)
    dropped = np.where(has_mask, "", choice.reasons).astype(object)
    fates = np.full(boxes.num_rows, "", dtype=object)
    if not options.dropped_boxes:
        fates[~has_mask] = dropped[~has_mask]
    fates[_numpy(boxes[GROUP_OF])] = GROUP_OF
    fates[_numpy(boxes[CROWD])] = CROWD
    image_rows = _numpy(boxes["image_row"])
    rows = np.flatnonzero(usable[image_rows])
    rows = rows[np.argsort(image_rows[rows], kind="stable")]
    annotations = _annotations(boxes, options, mask_rows, weights, shard=shard)
    return ShardRows(
        images=_images(index, options),
        has_lists=_has_any(index["negative"]) | _has_any(index["not_exhaustive"]),
        not_exhaustive=_numbers(index["not_exhaustive"], options).to_pylist(),
        origins=_origins(index["origins"]),
        image_of=place_of[image_rows[rows]],
        annotations=annotations.take(pa.array(rows)),
        is_human=(is_human & has_mask)[rows],
        fates=fates[rows],
        dropped=dropped[rows],
        num_quarantined=int((~usable).sum()),
    )


def chosen_rows(dataset: Dataset, shard: str, masks: str) -> tuple[Choice, Ints, int]:
    """The choice of masks, the rows of `boxes` that `mask_row` counts, and how many rows there are.

    Raises: as `read_shard`.
    """
    boxes = _boxes(dataset, shard)
    choice = _choice(dataset, shard, boxes, masks)
    return choice, np.flatnonzero(choice.wanted & _is_single(boxes)), boxes.num_rows


def cut(rows: ShardRows, start: int, stop: int) -> ShardRows:
    """The rows of some of its images."""
    first, last = np.searchsorted(rows.image_of, [start, stop])
    return ShardRows(
        images=rows.images.slice(start, stop - start),
        has_lists=rows.has_lists[start:stop],
        not_exhaustive=rows.not_exhaustive[start:stop],
        origins=rows.origins[start:stop],
        image_of=rows.image_of[first:last] - start,
        annotations=rows.annotations.slice(first, last - first),
        is_human=rows.is_human[first:last],
        fates=rows.fates[first:last],
        dropped=rows.dropped[first:last],
        num_quarantined=rows.num_quarantined,
    )


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


def _images(index: pa.Table, options: ReadOptions) -> pa.Table:
    is_original = ~_has_any(index["transforms"])
    ids = [bytes.fromhex(text) for text in index["image_id"].to_pylist()]
    columns = {name: index[name] for name in ("offset", "size", "height", "width")}
    return pa.table(
        {
            "image_id": pa.array(ids, pa.binary(16)),
            **columns,
            "is_original": pa.array(is_original.astype(np.uint8)),
            "negative": _numbers(index["negative"], options),
        }
    )


def _annotations(
    boxes: pa.Table,
    options: ReadOptions,
    mask_rows: Ints,
    weights: NDArray[np.float32],
    *,
    shard: str,
) -> pa.Table:
    names = pa.array(options.categories, pa.string())
    numbers = pc.index_in(boxes["category"], value_set=names).cast(pa.int32())
    if numbers.null_count:
        name = boxes["category"].filter(pc.is_null(numbers))[0].as_py()
        raise ObjectDamagedError(
            f"boxes of shard {shard[:12]} have the category {name!r}, which their commit does not "
            "list; run 'maskmill fsck'"
        )
    columns = [numbers, boxes["box_xyxy"], mask_rows.astype(np.int32), weights]
    return pa.table(columns, schema=ANNOTATIONS_SCHEMA)


def _has_any(lists: pa.ChunkedArray) -> Bools:
    """[N] whether a list is not empty."""
    lengths: Bools = _numpy(pc.list_value_length(lists)) > 0
    return lengths


def _numbers(lists: pa.ChunkedArray, options: ReadOptions) -> pa.ListArray:
    """Lists of category names to lists of numbers; names that the commit does not list go."""
    names = pa.array(options.categories, pa.string())
    known = [
        [number for number in numbers if number is not None]
        for numbers in (
            pc.index_in(pa.array(row, pa.string()), value_set=names).to_pylist() if row else []
            for row in lists.to_pylist()
        )
    ]
    return pa.array(known, pa.list_(pa.int32()))


def _origins(origins: pa.ChunkedArray) -> list[tuple[str, ...]]:
    return [tuple(sorted({one["source"] for one in row})) for row in origins.to_pylist()]


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:  # Any: the column's own type
    values: NDArray[Any] = np.asarray(column.to_numpy())
    return values
