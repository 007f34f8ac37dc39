"""What became of one teacher's masks between two shards.

The teacher's own choice is compared. A row in which nothing but other `candidates` differ counts as
unchanged: nobody is shown these unless a verdict chooses one, and then the verdict has changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.diff_rows import AlignedPair
from manifests.diff_side import Ints, Side
from manifests.diff_sums import MASK_EVENTS, filled
from manifests.paired_rle import DamagedPairError, PairedAreas, paired_areas

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
_PREFIX = schemas.masks_layer("")
_COLUMNS = ["status", "counts", "area_px", "height", "width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMasks:
    """Boxes of both sides whose mask is not what it was.

    Attributes:
        before, after: [M] rows on the two sides.
        kind: [M] ADDED, REMOVED or CHANGED.
        intersection_px, union_px: [M] of old and new mask; one that is missing has no pixels.
        image_px: [M] height * width of the image.
    """

    before: Ints
    after: Ints
    kind: NDArray[np.object_]
    intersection_px: Ints
    union_px: Ints
    image_px: Ints

    @property
    def moved_px(self) -> Ints:
        """[M] pixels that only one of the two masks has."""
        return self.union_px - self.intersection_px

    @property
    def iou(self) -> NDArray[np.float64]:
        """[M] in [0, 1]."""
        iou: NDArray[np.float64] = self.intersection_px / np.maximum(self.union_px, 1)
        return iou


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masks:
    """Some rows of a masks cell, their places in it, and the side they are on."""

    side: Side
    rows: Ints
    table: pa.Table

    def take(self, places: Ints) -> _Masks:
        """Some of these rows."""
        table = self.table.take(pa.array(places))
        return _Masks(side=self.side, rows=self.rows[places], table=table)

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """[N]"""
        return np.asarray(pc.equal(self.table["status"], schemas.OK))

    @property
    def sizes_hw(self) -> Ints:
        """[N, 2] of the images."""
        return np.stack([_numbers(self.table["height"]), _numbers(self.table["width"])], axis=1)


def mask_events(aligned: AlignedPair, layer: str) -> tuple[pa.Table, PairedMasks | None]:
    """MASK_EVENTS of one layer and pair of shards; and the rows, where both have the layer.

    Raises:
        ObjectMissingError: a cell that must be read is not there.
        ObjectDamagedError: it, or one of its masks, is damaged; names layer and shard.
    """
    rows = aligned.rows
    before, after = (_having(side, layer) for side in (aligned.before, aligned.after))
    if not (before and after and rows.before.size):
        gone = _rows_with_masks(before, layer, np.concatenate([rows.before, rows.only_before]))
        come = _rows_with_masks(after, layer, np.concatenate([rows.after, rows.only_after]))
        return _one_sided(aligned, layer, gone, come), None
    old, new = _all_masks(before, layer), _all_masks(after, layer)
    gone = rows.only_before[old.has_mask[rows.only_before]]
    come = rows.only_after[new.has_mask[rows.only_after]]
    if not rows.is_by_position:
        old, new = old.take(rows.before), new.take(rows.after)
    paired = _paired(layer, old, new)
    found = [_events_of_pairs(aligned, layer, paired), _one_sided(aligned, layer, gone, come)]
    return pa.concat_tables(found), paired


def _having(side: Side | None, layer: str) -> Side | None:
    return side if side and side.cell(layer) else None


def _all_masks(side: Side, layer: str) -> _Masks:
    table = side.read_aligned(layer, _COLUMNS)
    return _Masks(side=side, rows=np.arange(table.num_rows), table=table)


def _rows_with_masks(side: Side | None, layer: str, rows: Ints) -> Ints:
    if side is None:
        return rows[:0]
    status = side.read_aligned(layer, ["status"])["status"]
    has_mask: NDArray[np.bool_] = np.asarray(pc.equal(status, schemas.OK))
    return rows[has_mask[rows]]


def _one_sided(aligned: AlignedPair, layer: str, gone: Ints, come: Ints) -> pa.Table:
    teacher = layer.removeprefix(_PREFIX)
    was, now = aligned.categories_before(gone), aligned.categories_after(come)
    return pa.concat_tables(
        [
            filled(MASK_EVENTS, len(was), teacher=teacher, category=was, kind=REMOVED),
            filled(MASK_EVENTS, len(now), teacher=teacher, category=now, kind=ADDED),
        ]
    )


def _events_of_pairs(aligned: AlignedPair, layer: str, paired: PairedMasks) -> pa.Table:
    return filled(
        MASK_EVENTS, len(paired.kind), teacher=layer.removeprefix(_PREFIX),
        category=aligned.categories_after(paired.after), kind=pa.array(paired.kind, pa.string()),
        iou=pa.array(paired.iou), moved_px=pa.array(paired.moved_px),
        union_px=pa.array(paired.union_px),
    )  # fmt: skip


def _paired(layer: str, old: _Masks, new: _Masks) -> PairedMasks:
    """The pairs that differ, of rows that are the same boxes."""
    had, has = old.has_mask, new.has_mask
    # Equal bytes are equal masks; a null is no mask.
    is_equal = np.asarray(pc.fill_null(pc.equal(old.table["counts"], new.table["counts"]), False))
    both, one = np.flatnonzero(had & has & ~is_equal), np.flatnonzero(had != has)
    areas = _overlaps(layer, old.take(both), new.take(both))
    kinds: NDArray[np.object_] = np.full(both.size + one.size, CHANGED, dtype=object)
    kinds[both.size :] = np.where(has[one], ADDED, REMOVED)
    only = np.where(has, _numbers(new.table["area_px"]), _numbers(old.table["area_px"]))[one]
    chosen = np.concatenate([both, one])
    order = np.argsort(chosen, kind="stable")
    return PairedMasks(
        before=old.rows[chosen[order]],
        after=new.rows[chosen[order]],
        kind=kinds[order],
        intersection_px=np.concatenate([areas.intersection, np.zeros_like(only)])[order],
        union_px=np.concatenate([areas.union, only])[order],
        image_px=np.prod(new.sizes_hw[chosen[order]], axis=1),
    )


def _overlaps(layer: str, old: _Masks, new: _Masks) -> PairedAreas:
    """Of masks that are there on both sides."""
    for masks in (old, new):
        if masks.table["counts"].null_count:
            raise masks.side.damaged(layer, f"a row is '{schemas.OK}' but has no mask")
    if not np.array_equal(old.sizes_hw, new.sizes_hw):
        raise old.side.damaged(layer, "its images have other sizes in the other commit")
    counts = old.table["counts"], new.table["counts"]
    try:
        return paired_areas(*counts, sizes_hw=new.sizes_hw)
    except DamagedPairError as error:
        masks = old if error.side == "before" else new
        raise masks.side.damaged(layer, f"row {masks.rows[error.row]}: {error.detail}") from error


def _numbers(column: pa.ChunkedArray) -> Ints:
    numbers: Ints = pc.fill_null(column, 0).to_numpy().astype(np.int64)
    return numbers
