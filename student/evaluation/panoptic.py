"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", arXiv 1801.00868, section 4).

Two deviations, both for open category lists: no split into things and stuff, and the means are
over the categories that the truth has, also if others were found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError
from student.evaluation.segment_map import VOID, SegmentMap

_MATCH = 0.5  # at more than this two segments can have no other partner (section 4.1)
_OFFSET = -VOID  # from segment map's values to rows of the table


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryQuality:
    """Of one category; the qualities are None where the truth has none of it.

    Attributes:
        pq: `sq` times `rq`.
        sq: mean IoU of the matched segments; 0 if there are none.
        rq: matched / (matched + half of the false positives and of the missed).
        matched, false_positives, missed: segments.
    """

    pq: float | None
    sq: float | None
    rq: float | None
    matched: int
    false_positives: int
    missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticQuality:
    """Means over the categories that the truth has; None where it has none."""

    pq: float | None
    sq: float | None
    rq: float | None
    by_category: tuple[CategoryQuality, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What became of the segments of one image, by category.

    Attributes:
        iou_sums: [K] float64, of matched segments.
        matched, false_positives, missed: [K] int64.
    """

    iou_sums: NDArray[np.float64]
    matched: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    missed: NDArray[np.int64]

    def __add__(self, other: Matches) -> Matches:
        return Matches(
            iou_sums=self.iou_sums + other.iou_sums,
            matched=self.matched + other.matched,
            false_positives=self.false_positives + other.false_positives,
            missed=self.missed + other.missed,
        )

    def quality(self) -> float | None:
        """PQ over all segments whatever their category; None if there are none."""
        all_of = float(self.matched.sum() + (self.false_positives + self.missed).sum() / 2)
        return float(self.iou_sums.sum()) / all_of if all_of else None


def no_matches(num_categories: int) -> Matches:
    """Of no image: what a sum begins with."""
    zeros = np.zeros(num_categories, dtype=np.int64)
    return Matches(
        iou_sums=zeros.astype(np.float64), matched=zeros, false_positives=zeros, missed=zeros
    )


def match_segments(
    truth: SegmentMap,
    found: SegmentMap,
    *,
    num_categories: int,
    unjudged: frozenset[int] = frozenset(),
) -> Matches:
    """Pairs of one category with IoU above 0.5; VOID pixels are taken out of what was found.

    A found segment without a partner is no false positive where more than half of it lies on VOID
    and on crowds of its category, or its category is in `unjudged`. Crowds are never matched.

    Raises:
        InputError: the maps differ in size.
    """
    overlap = _overlap(truth, found)  # [N + 2, M + 2]
    void = overlap[VOID + _OFFSET, _OFFSET:]  # [M]
    both = overlap[_OFFSET:, _OFFSET:]  # [N, M]
    true_px, found_px = overlap[_OFFSET:].sum(axis=1), overlap[:, _OFFSET:].sum(axis=0)
    union = true_px[:, None] + (found_px - void)[None] - both
    # Of a found segment's pixels on a true one's VOID there are none: the union is what is judged.
    iou = np.divide(both, union, out=np.zeros(both.shape), where=union > 0)
    same = truth.categories[:, None] == found.categories[None]
    is_pair = (iou > _MATCH) & same & ~truth.is_crowd[:, None]
    crowd = (both * (same & truth.is_crowd[:, None])).sum(axis=0)
    is_excused = (void + crowd) / np.maximum(found_px, 1) > _MATCH
    is_excused |= np.isin(found.categories, list(unjudged)) | (found_px == 0)
    is_false = ~is_pair.any(axis=0) & ~is_excused
    is_missed = ~is_pair.any(axis=1) & ~truth.is_crowd & (true_px > 0)
    pairs_true, pairs_found = np.nonzero(is_pair)
    matched_categories = truth.categories[pairs_true]
    iou_sums = np.zeros(num_categories)
    np.add.at(iou_sums, matched_categories, iou[pairs_true, pairs_found])
    return Matches(
        iou_sums=iou_sums,
        matched=np.bincount(matched_categories, minlength=num_categories),
        false_positives=np.bincount(found.categories[is_false], minlength=num_categories),
        missed=np.bincount(truth.categories[is_missed], minlength=num_categories),
    )


def panoptic_quality(matches: Matches) -> PanopticQuality:
    """Of the matches of all images."""
    rows = tuple(
        _category(*row)
        for row in zip(
            matches.iou_sums.tolist(),
            matches.matched.tolist(),
            matches.false_positives.tolist(),
            matches.missed.tolist(),
            strict=True,
        )
    )
    there = [row for row in rows if row.pq is not None]
    return PanopticQuality(
        pq=_mean([row.pq for row in there]),
        sq=_mean([row.sq for row in there]),
        rq=_mean([row.rq for row in there]),
        by_category=rows,
    )


def _category(iou_sum: float, matched: int, false_positives: int, missed: int) -> CategoryQuality:
    has_truth = matched + missed > 0
    sq = iou_sum / matched if matched else 0.0
    rq = matched / (matched + (false_positives + missed) / 2) if has_truth else 0.0
    return CategoryQuality(
        pq=sq * rq if has_truth else None,
        sq=sq if has_truth else None,
        rq=rq if has_truth else None,
        matched=matched,
        false_positives=false_positives,
        missed=missed,
    )


def _overlap(truth: SegmentMap, found: SegmentMap) -> NDArray[np.int64]:
    """[N + 2, M + 2] pixels of every pair; the first two of both are VOID and NOTHING."""
    if truth.rows.shape != found.rows.shape:
        raise InputError(
            f"panoptic quality: expected segments of an image of {truth.rows.shape}, got "
            f"{found.rows.shape}"
        )
    num_true, num_found = len(truth.categories) + _OFFSET, len(found.categories) + _OFFSET
    pairs = (truth.rows.ravel() + _OFFSET).astype(np.int64) * num_found
    pairs += found.rows.ravel() + _OFFSET
    counts = np.bincount(pairs, minlength=num_true * num_found)
    return counts.reshape(num_true, num_found)


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
