"""Which boxes of one shard are which boxes of another.

Rows of a shard whose `boxes` cell is the same are aligned by position, without reading it; others
by annotation id, and what is then left over by a source's own id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.dataset import Dataset
from manifests.diff_shards import ShardPair
from manifests.diff_side import Side

Ints = NDArray[np.int64]
_NO_ROWS: Ints = np.zeros(0, dtype=np.int64)
_SOURCE_KEY = ["image_id", "source", "source_annotation_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Rows of the annotation layers on both sides.

    Attributes:
        before, after: [P] rows of the same box.
        moved: [P] is it at another place?
        only_before, only_after: rows without a partner.
        is_by_position: `before` and `after` are both 0, 1, 2 ... of one and the same shard.
    """

    before: Ints
    after: Ints
    moved: NDArray[np.bool_]
    only_before: Ints
    only_after: Ints
    is_by_position: bool = False


class AlignedPair:
    """A ShardPair whose boxes have been found on both sides."""

    def __init__(self, a: Dataset, b: Dataset, pair: ShardPair, *, by_category: bool) -> None:
        """Raises ObjectMissingError or ObjectDamagedError if boxes cannot be read that must be."""
        self.pair, self.by_category = pair, by_category
        self.before = None if pair.before is None else Side(a, pair.before)
        self.after = None if pair.after is None else Side(b, pair.after)
        self.has_same_boxes = pair.is_same_shard and self.is_same(schemas.BOXES)
        self.rows = self._align()

    def is_same(self, layer: str) -> bool:
        """Whether both sides have one and the same object, or neither has one."""
        before, after = (side and side.cell(layer) for side in (self.before, self.after))
        return (before and before.object_id) == (after and after.object_id)

    def can_differ(self, layer: str) -> bool:
        """Whether a layer can differ in any row."""
        have = [side for side in (self.before, self.after) if side and side.cell(layer)]
        if not have:
            return False
        return not (self.rows.is_by_position and self.is_same(layer))

    def categories_before(self, rows: Ints) -> pa.Array:
        """Category names of rows of the old side; nulls if nobody wants to know them."""
        return self._categories(self.before, rows)

    def categories_after(self, rows: Ints) -> pa.Array:
        """Category names of rows of the new side; nulls if nobody wants to know them."""
        return self._categories(self.after, rows)

    def _categories(self, side: Side | None, rows: Ints) -> pa.Array:
        if side is None or not rows.size or not self.by_category:
            return pa.nulls(rows.size, pa.string())
        return side.categories(rows)

    def _align(self) -> Alignment:
        pair, before, after = self.pair, self.before, self.after
        if self.has_same_boxes and before:
            rows = np.arange(before.num_boxes)
            still = np.zeros(len(rows), dtype=bool)
            return Alignment(
                before=rows, after=rows, moved=still, only_before=_NO_ROWS, only_after=_NO_ROWS,
                is_by_position=True,
            )  # fmt: skip
        rows_before = _rows_of_images(before, pair.images_before)
        rows_after = _rows_of_images(after, pair.images_after)
        if before is None or after is None or not rows_before.size or not rows_after.size:
            return Alignment(
                before=_NO_ROWS, after=_NO_ROWS, moved=np.zeros(0, dtype=bool),
                only_before=rows_before, only_after=rows_after,
            )  # fmt: skip
        return _by_id(before, rows_before, after, rows_after)


def _rows_of_images(side: Side | None, images: Ints | None) -> Ints:
    """Boxes of some images; None: of all."""
    if side is None or not side.num_boxes:
        return _NO_ROWS
    if images is None:
        return np.arange(side.num_boxes)
    image_rows = side.read(schemas.BOXES, ["image_row"])["image_row"].to_numpy()
    return np.flatnonzero(np.isin(image_rows, images))


def _by_id(before: Side, rows_before: Ints, after: Side, rows_after: Ints) -> Alignment:
    ids_before = before.read(schemas.BOXES, ["annotation_id"])["annotation_id"].take(rows_before)
    ids_after = after.read(schemas.BOXES, ["annotation_id"])["annotation_id"].take(rows_after)
    found = pc.index_in(ids_after, value_set=ids_before).fill_null(-1).to_numpy()
    both = np.flatnonzero(found >= 0)
    same = Alignment(
        before=rows_before[found[both]],
        after=rows_after[both],
        moved=np.zeros(both.size, dtype=bool),
        only_before=np.delete(rows_before, found[both]),
        only_after=np.delete(rows_after, both),
    )
    if not same.only_before.size or not same.only_after.size:
        return same
    return _with_moved(same, before, after)


def _with_moved(rows: Alignment, before: Side, after: Side) -> Alignment:
    """Pairs what is left over by the source's own id, where it has one and it is there once."""
    keys_before = _source_keys(before, rows.only_before)
    keys_after = _source_keys(after, rows.only_after)
    keys = sorted(keys_before.keys() & keys_after.keys())
    moved_before = np.array([keys_before[key] for key in keys], dtype=np.int64)
    moved_after = np.array([keys_after[key] for key in keys], dtype=np.int64)
    return Alignment(
        before=np.concatenate([rows.before, moved_before]),
        after=np.concatenate([rows.after, moved_after]),
        moved=np.concatenate([rows.moved, np.ones(len(keys), dtype=bool)]),
        only_before=np.setdiff1d(rows.only_before, moved_before),
        only_after=np.setdiff1d(rows.only_after, moved_after),
    )


def _source_keys(side: Side, rows: Ints) -> dict[tuple[str, str, str], int]:
    """(image, source, source id) -> row; at most as many as a shard has boxes."""
    table = side.read(schemas.BOXES, _SOURCE_KEY).take(pa.array(rows))
    keys = list(zip(*(table[name].to_pylist() for name in _SOURCE_KEY), strict=True))
    seen = Counter(keys)
    return {
        key: row
        for key, row in zip(keys, rows.tolist(), strict=True)
        if key[-1] is not None and seen[key] == 1
    }
