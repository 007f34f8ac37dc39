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
from manifests.errors import InputError, ObjectDamagedError
from manifests.paired_rle import paired_areas

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


def mask_events(aligned: AlignedPair, layer: str) -> tuple[pa.Table, PairedMasks | None]:
    """MASK_EVENTS of one layer and pair of shards; and the rows, where both have the layer.

    Raises:
        ObjectMissingError: a cell that must be read is not there.
        ObjectDamagedError: it, or one of its masks, is damaged; names layer and shard.
    """
    before, after = (_having(side, layer) for side in (aligned.before, aligned.after))
    paired = None
    if before and after and aligned.rows.before.size:
        old, new = (side.read_aligned(layer, _COLUMNS) for side in (before, after))
        paired = _paired(aligned, layer, old, new)
        found = [_events_of_pairs(aligned, layer, paired)]
        gone = aligned.rows.only_before[_has_mask(old["status"])[aligned.rows.only_before]]
        come = aligned.rows.only_after[_has_mask(new["status"])[aligned.rows.only_after]]
    else:
        rows = aligned.rows
        found = []
        gone = _rows_with_masks(before, layer, np.concatenate([rows.before, rows.only_before]))
        come = _rows_with_masks(after, layer, np.concatenate([rows.after, rows.only_after]))
    found.append(_one_sided(layer, REMOVED, aligned.categories_before(gone)))
    found.append(_one_sided(layer, ADDED, aligned.categories_after(come)))
    return pa.concat_tables(found), paired


def _having(side: Side | None, layer: str) -> Side | None:
    return side if side and side.cell(layer) else None


def _has_mask(status: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.equal(status, schemas.OK))


def _rows_with_masks(side: Side | None, layer: str, rows: Ints) -> Ints:
    if side is None:
        return rows[:0]
    has_mask = _has_mask(side.read_aligned(layer, ["status"])["status"])
    return rows[has_mask[rows]]


def _one_sided(layer: str, kind: str, categories: pa.Array) -> pa.Table:
    return filled(
        MASK_EVENTS, len(categories), teacher=layer.removeprefix(_PREFIX), category=categories,
        kind=kind,
    )  # fmt: skip


def _events_of_pairs(aligned: AlignedPair, layer: str, paired: PairedMasks) -> pa.Table:
    return filled(
        MASK_EVENTS, len(paired.kind), teacher=layer.removeprefix(_PREFIX),
        category=aligned.categories_after(paired.after), kind=pa.array(paired.kind, pa.string()),
        iou=pa.array(paired.iou), moved_px=pa.array(paired.moved_px),
        union_px=pa.array(paired.union_px),
    )  # fmt: skip


def _paired(aligned: AlignedPair, layer: str, old: pa.Table, new: pa.Table) -> PairedMasks:
    rows = aligned.rows
    if not rows.is_by_position:
        old, new = old.take(pa.array(rows.before)), new.take(pa.array(rows.after))
    had, has = _has_mask(old["status"]), _has_mask(new["status"])
    # Equal bytes are equal masks; a null is no mask.
    is_equal = np.asarray(pc.fill_null(pc.equal(old["counts"], new["counts"]), False))
    both = np.flatnonzero(had & has & ~is_equal)
    one = np.flatnonzero(had != has)
    intersection, union = _overlaps(aligned, layer, old.take(both), new.take(both))
    kinds: NDArray[np.object_] = np.full(both.size + one.size, CHANGED, dtype=object)
    kinds[both.size :] = np.where(has[one], ADDED, REMOVED)
    chosen = np.concatenate([both, one])
    order = np.argsort(chosen, kind="stable")
    nothing = np.zeros(one.size, dtype=np.int64)
    only = np.where(has[one], _numbers(new["area_px"])[one], _numbers(old["area_px"])[one])
    return PairedMasks(
        before=rows.before[chosen[order]],
        after=rows.after[chosen[order]],
        kind=kinds[order],
        intersection_px=np.concatenate([intersection, nothing])[order],
        union_px=np.concatenate([union, only])[order],
        image_px=np.prod(_sizes_hw(new), axis=1)[chosen[order]],
    )


def _overlaps(aligned: AlignedPair, layer: str, old: pa.Table, new: pa.Table) -> tuple[Ints, Ints]:
    """[K] intersections and unions of masks that are there on both sides."""
    after = aligned.after
    where = f"{layer} of shard {after.shard[:12] if after else ''}"
    for table in (old, new):
        if table["counts"].null_count:
            raise ObjectDamagedError(
                f"cannot compare {where}: a row is '{schemas.OK}' but has no mask; run 'maskmill "
                f"label {layer.removeprefix(_PREFIX)}' again"
            )
    if not np.array_equal(_sizes_hw(old), _sizes_hw(new)):
        raise ObjectDamagedError(
            f"cannot compare {where}: masks of one image have two sizes; run 'maskmill fsck'"
        )
    try:
        found = paired_areas(old["counts"], new["counts"], sizes_hw=_sizes_hw(new))
    except InputError as error:
        raise ObjectDamagedError(f"cannot compare {where}: {error}; run 'maskmill fsck'") from error
    return found.intersection, found.union


def _sizes_hw(masks: pa.Table) -> Ints:
    """[N, 2]"""
    return np.stack([_numbers(masks["height"]), _numbers(masks["width"])], axis=1)


def _numbers(column: pa.ChunkedArray) -> Ints:
    numbers: Ints = pc.fill_null(column, 0).to_numpy().astype(np.int64)
    return numbers
