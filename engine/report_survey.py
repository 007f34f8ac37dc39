"""One pass over a commit for its report: counts by category, and which photos to show.

Images are chosen by their id, which is a digest: the same ones each time, and no favourites.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.report_rows import DROPPED, KEPT, ROWS, UNJUDGED, judged_rows
from manifests import schemas
from manifests.dataset import Dataset

# In this order one image is taken of each in turn: what a policy cuts apart is seen best where it
# does both.
_GROUPS = ("mixed", "dropped", "kept", "plain", "empty")
_QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PhotoRef:
    """Where an image is: order of its shard, row in its index."""

    shard_number: int
    row: int
    shard: str
    image_id: str


@dataclass(slots=True, kw_only=True)
class CategoryCount:
    """Sums over the boxes of one category; `num_predicted` masks have a predicted IoU."""

    name: str
    num_boxes: int = 0
    num_masks: int = 0
    num_kept: int = 0
    num_predicted: int = 0
    predicted_iou_sum: float = 0.0

    @property
    def kept_share(self) -> float:
        """Of all boxes, in [0, 1]."""
        return self.num_kept / self.num_boxes if self.num_boxes else 0.0

    @property
    def mean_predicted_iou(self) -> float | None:
        """Of the judged masks, if the teacher predicts one."""
        return self.predicted_iou_sum / self.num_predicted if self.num_predicted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the whole commit has, and the photos to show.

    Attributes:
        categories: most boxes first.
        quarantine: reason -> images.
        photos: of those not quarantined, in the order of the dataset.
        thumbnails: of the quarantined ones.
        num_judged: boxes that have a verdict.
    """

    num_images: int
    num_boxes: int
    num_masks: int
    num_kept: int
    num_judged: int
    categories: tuple[CategoryCount, ...]
    quarantine: dict[str, int]
    photos: tuple[PhotoRef, ...]
    thumbnails: tuple[PhotoRef, ...]


@dataclass(slots=True)
class _Tally:
    """Sums so far; at most `limit` images of each group are remembered."""

    limits: dict[str, int]
    num_images: int = 0
    num_judged: int = 0
    categories: dict[str, CategoryCount] = field(default_factory=dict)
    quarantine: Counter[str] = field(default_factory=Counter)
    groups: dict[str, list[PhotoRef]] = field(default_factory=dict)

    def remember(self, group: str, found: list[PhotoRef]) -> None:
        """Keeps the ones with the smallest ids."""
        pool = [*self.groups.get(group, []), *found]
        self.groups[group] = heapq.nsmallest(
            self.limits[group], pool, key=lambda photo: photo.image_id
        )


def survey(dataset: Dataset, *, max_photos: int, max_thumbnails: int) -> Survey:
    """Reads the small columns of every shard, none of its masks and none of its images."""
    limits = dict.fromkeys(_GROUPS, max_photos) | {_QUARANTINED: max_thumbnails}
    tally = _Tally(limits)
    for number, shard in enumerate(dataset.manifest.shards()):
        rows = ROWS.empty_table()
        if dataset.manifest.get(shard, schemas.BOXES):
            rows = judged_rows(dataset, shard, with_counts=False)
            _count_rows(tally, rows)
        if dataset.manifest.get(shard, schemas.IMAGE_INDEX):
            _count_images(tally, dataset, shard, number, rows)
    categories = sorted(tally.categories.values(), key=lambda c: (-c.num_boxes, c.name))
    return Survey(
        num_images=tally.num_images,
        num_boxes=sum(category.num_boxes for category in categories),
        num_masks=sum(category.num_masks for category in categories),
        num_kept=sum(category.num_kept for category in categories),
        num_judged=tally.num_judged,
        categories=tuple(categories),
        quarantine=dict(tally.quarantine.most_common()),
        photos=_choose(tally, max_photos),
        thumbnails=tuple(sorted(tally.groups.get(_QUARANTINED, []))),
    )


def _count_rows(tally: _Tally, rows: pa.Table) -> None:
    """Adds a shard's boxes to their categories."""
    table = pa.table(
        {
            "category": rows["category"],
            "kept": pc.cast(pc.equal(rows["outcome"], KEPT), pa.int64()),
            "masks": pc.cast(rows["has_mask"], pa.int64()),
            "predicted": rows["predicted_iou"],
        }
    )
    judged = pc.is_in(rows["outcome"], value_set=pa.array([KEPT, DROPPED]))
    tally.num_judged += pc.sum(judged).as_py() or 0
    sums = table.group_by("category").aggregate(
        [([], "count_all"), ("kept", "sum"), ("masks", "sum"),
         ("predicted", "sum"), ("predicted", "count")]
    )  # fmt: skip
    for row in sums.to_pylist():
        count = tally.categories.setdefault(row["category"], CategoryCount(name=row["category"]))
        count.num_boxes += row["count_all"]
        count.num_kept += row["kept_sum"]
        count.num_masks += row["masks_sum"]
        count.num_predicted += row["predicted_count"]
        count.predicted_iou_sum += row["predicted_sum"] or 0.0


def _count_images(tally: _Tally, dataset: Dataset, shard: str, number: int, rows: pa.Table) -> None:
    """Sorts a shard's images into groups by what became of their boxes."""
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=["image_id", "quarantine"])
    tally.num_images += index.num_rows
    quarantine = index["quarantine"].to_pylist()
    tally.quarantine.update(reason for reason in quarantine if reason is not None)
    if dataset.manifest.get(shard, schemas.IMAGES) is None:
        return
    outcomes = {
        outcome: _per_image(rows, pc.equal(rows["outcome"], outcome), index.num_rows)
        for outcome in (KEPT, DROPPED, UNJUDGED)
    }
    num_boxes = _per_image(rows, None, index.num_rows)
    groups: dict[str, list[PhotoRef]] = {}
    for row, image_id in enumerate(index["image_id"].to_pylist()):
        counts = {outcome: int(numbers[row]) for outcome, numbers in outcomes.items()}
        group = _group(counts, int(num_boxes[row])) if quarantine[row] is None else _QUARANTINED
        photo = PhotoRef(shard_number=number, row=row, shard=shard, image_id=image_id)
        groups.setdefault(group, []).append(photo)
    for group, found in groups.items():
        tally.remember(group, found)


def _per_image(rows: pa.Table, mask: pa.ChunkedArray | None, num_images: int) -> NDArray[np.int64]:
    chosen = rows["image_row"] if mask is None else rows["image_row"].filter(mask)
    return np.bincount(chosen.to_numpy(), minlength=num_images)


def _group(counts: dict[str, int], num_boxes: int) -> str:
    if not num_boxes:
        return "empty"
    if counts[KEPT] and counts[DROPPED]:
        return "mixed"
    if counts[KEPT] or counts[UNJUDGED]:
        return "kept"
    return "dropped" if counts[DROPPED] else "plain"


def _choose(tally: _Tally, max_photos: int) -> tuple[PhotoRef, ...]:
    turns = zip_longest(*(tally.groups.get(group, []) for group in _GROUPS))
    chosen = [photo for turn in turns for photo in turn if photo is not None]
    return tuple(sorted(chosen[:max_photos]))
