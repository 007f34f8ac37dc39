"""What the loader knows of every image and box, as compact Arrow tables; masks stay in their cells.

600,000 images and 10 million boxes are about 40 MB and 290 MB, mapped from a file that all
processes of a machine share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
