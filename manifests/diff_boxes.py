"""What became of images and boxes between two shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.diff_result import ImageChanges
from manifests.diff_rows import AlignedPair
from manifests.diff_side import Ints, Side
from manifests.diff_sums import BOX_EVENTS, filled
from manifests.statistics import rows_by_category


def image_changes(aligned: AlignedPair) -> ImageChanges:
    """Counts of one pair of shards.

    Raises:
        ObjectMissingError, ObjectDamagedError: an `image_index` that changed cannot be read.
    """
    pair, before, after = aligned.pair, aligned.before, aligned.after
    if after is None:
        return ImageChanges(removed=_num_images(before, pair.images_before))
    if before is None:
        return ImageChanges(added=_num_images(after, pair.images_after))
    if aligned.is_same(schemas.IMAGE_INDEX):
        return ImageChanges()
    was, now = (
        _is_quarantined(before, pair.images_before),
        _is_quarantined(after, pair.images_after),
    )
    return ImageChanges(
        quarantined=pc.sum(pc.and_(now, pc.invert(was))).as_py() or 0,
        released=pc.sum(pc.and_(was, pc.invert(now))).as_py() or 0,
    )


def _num_images(side: Side | None, images: Ints | None) -> int:
    if images is not None:
        return len(images)
    cells = [side.cell(layer) for layer in (schemas.IMAGE_INDEX, schemas.IMAGES)] if side else []
    return next((cell.num_rows for cell in cells if cell), 0)


def _is_quarantined(side: Side, images: Ints | None) -> pa.ChunkedArray:
    reasons = side.read(schemas.IMAGE_INDEX, ["quarantine"])["quarantine"]
    return pc.is_valid(reasons if images is None else reasons.take(pa.array(images)))


def box_events(aligned: AlignedPair) -> pa.Table:
    """BOX_EVENTS of one pair of shards.

    A shard that one side lacks is counted from its manifest entry alone, if that has the counts.

    Raises:
        ObjectMissingError, ObjectDamagedError: `boxes` that changed cannot be read.
    """
    if aligned.has_same_boxes:
        return BOX_EVENTS.empty_table()
    pair = aligned.pair
    if pair.after is None and pair.images_before is None:
        return _whole_shard(aligned, aligned.before, "removed")
    if pair.before is None and pair.images_after is None:
        return _whole_shard(aligned, aligned.after, "added")
    return pa.concat_tables([_one_sided(aligned), _two_sided(aligned)])


def _whole_shard(aligned: AlignedPair, side: Side | None, kind: str) -> pa.Table:
    cell = side.cell(schemas.BOXES) if side else None
    if cell is None:
        return BOX_EVENTS.empty_table()
    if not aligned.by_category:
        return filled(BOX_EVENTS, 1, kind=kind, count=cell.num_rows)
    counts = rows_by_category(cell)
    if sum(counts.values()) != cell.num_rows:  # somebody else wrote the manifest
        return _one_sided(aligned)
    categories = pa.array(counts, pa.string())
    numbers = pa.array(counts.values(), pa.int64())
    return filled(BOX_EVENTS, len(counts), category=categories, kind=kind, count=numbers)


def _one_sided(aligned: AlignedPair) -> pa.Table:
    rows = aligned.rows
    gone = aligned.categories_before(rows.only_before)
    new = aligned.categories_after(rows.only_after)
    return pa.concat_tables(
        [
            filled(BOX_EVENTS, len(gone), category=gone, kind="removed"),
            filled(BOX_EVENTS, len(new), category=new, kind="added"),
        ]
    )


def _two_sided(aligned: AlignedPair) -> pa.Table:
    """Boxes on both sides that moved, and those that came from another category."""
    rows = aligned.rows
    moved = aligned.categories_after(rows.after[rows.moved])
    moves = filled(BOX_EVENTS, len(moved), category=moved, kind="moved")
    if aligned.before is None or aligned.after is None or not rows.before.size:
        return moves
    was, now = aligned.before.categories(rows.before), aligned.after.categories(rows.after)
    is_other = pc.not_equal(was, now)
    was, now = was.filter(is_other), now.filter(is_other)
    names = {"category": now, "category_before": was} if aligned.by_category else {}
    came = filled(BOX_EVENTS, len(now), kind="recategorised", **names)
    return pa.concat_tables([moves, came])
