"""Panoptic quality: by hand, against a slow count over pairs of masks, and its corner cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.errors import InputError
from student.evaluation.panoptic import Matches, match_segments, no_matches, panoptic_quality
from student.evaluation.segment_map import NOTHING, VOID, SegmentMap, paint
from tests.student.evaluation.scenes import random_scene

_CATEGORIES = 3


def _map(
    rows: NDArray[np.int_] | list[list[int]],
    categories: list[int],
    crowds: list[bool] | None = None,
) -> SegmentMap:
    return SegmentMap(
        rows=np.array(rows, dtype=np.int32),
        categories=np.array(categories, dtype=np.int64),
        is_crowd=np.array(crowds or [False] * len(categories), dtype=bool),
    )


def _match(truth: SegmentMap, found: SegmentMap, **more: frozenset[int]) -> Matches:
    return match_segments(truth, found, num_categories=_CATEGORIES, **more)


def _slow(
    truth: SegmentMap, found: SegmentMap
) -> tuple[list[float], list[int], list[int], list[int]]:
    """Every pair of masks, as the paper says it."""
    sums, hits = [0.0] * _CATEGORIES, [0] * _CATEGORIES
    false, missed = [0] * _CATEGORIES, [0] * _CATEGORIES
    void = truth.rows == VOID
    matched_found = set()
    for t, category in enumerate(truth.categories.tolist()):
        true = truth.rows == t
        if truth.is_crowd[t] or not true.any():
            continue
        is_matched = False
        for f, other in enumerate(found.categories.tolist()):
            mine = (found.rows == f) & ~void
            either = (true | mine).sum()
            if other == category and either and (true & mine).sum() / either > 0.5:
                sums[category] += (true & mine).sum() / either
                hits[category] += 1
                is_matched = True
                matched_found.add(f)
        missed[category] += not is_matched
    for f, category in enumerate(found.categories.tolist()):
        mine = found.rows == f
        if f in matched_found or not mine.any():
            continue
        excused = void.copy()
        for t in np.flatnonzero(truth.is_crowd & (truth.categories == category)):
            excused |= truth.rows == t
        false[category] += (mine & excused).sum() / mine.sum() <= 0.5
    return sums, hits, false, missed


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_every_pair_of_masks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(-2, 5, size=(4, 5))
    rows = np.kron(coarse, np.ones((3, 3), int))
    truth = _map(
        rows, generator.integers(0, _CATEGORIES, 5).tolist(), (generator.random(5) < 0.2).tolist()
    )
    moved = np.roll(rows, generator.integers(-1, 2, 2), (0, 1))
    moved[generator.random(rows.shape) < 0.1] = NOTHING
    moved[moved == VOID] = generator.integers(-1, 5)
    change = generator.random(5) < 0.2
    categories = np.where(change, generator.integers(0, _CATEGORIES, 5), truth.categories)
    found = _map(moved, categories.tolist())
    ours = _match(truth, found)
    sums, hits, false, missed = _slow(truth, found)
    assert ours.iou_sums == pytest.approx(sums)
    assert ours.matched.tolist() == hits
    assert ours.false_positives.tolist() == false
    assert ours.missed.tolist() == missed


def test_known_numbers() -> None:
    # Category 0: IoU 3/4 and one missed; category 1: one false.
    truth = _map([[0, 0, 0, 0, 1, 1, -1, -1]], [0, 0])
    found = _map([[0, 0, 0, -1, -1, -1, 1, 1]], [0, 1])
    quality = panoptic_quality(_match(truth, found))
    first, second, _ = quality.by_category
    assert (first.matched, first.missed, first.false_positives) == (1, 1, 0)
    assert first.sq == 0.75
    assert first.rq == pytest.approx(1 / 1.5)
    assert first.pq == pytest.approx(0.75 / 1.5)
    assert second.pq is None
    assert second.false_positives == 1
    assert (quality.pq, quality.sq, quality.rq) == (first.pq, first.sq, first.rq)
    assert _match(truth, found).quality() == pytest.approx(0.75 / (1 + 0.5 + 0.5))


def test_half_is_no_match() -> None:
    truth, found = _map([[0, 0, -1, -1]], [0]), _map([[0, -1, -1, -1]], [0])
    assert _match(truth, found).matched.sum() == 0


def test_the_category_must_agree() -> None:
    truth, found = _map([[0, 0]], [0]), _map([[0, 0]], [1])
    ours = _match(truth, found)
    assert ours.missed.tolist() == [1, 0, 0]
    assert ours.false_positives.tolist() == [0, 1, 0]


def test_void_neither_helps_nor_hurts() -> None:
    truth = _map([[0, 0, -2, -2, -2, -1]], [0])
    assert _match(truth, _map([[0, 0, 0, 0, 0, -1]], [0])).iou_sums[0] == 1
    beside = _map([[0, 0, 1, 1, 1, 1]], [0, 1])
    assert _match(truth, beside).false_positives.sum() == 0  # three of four pixels are void


def test_a_crowd_excuses_its_own_category_alone() -> None:
    truth = _map([[0, 0, 0, 0]], [1], [True])
    ours = _match(truth, _map([[0, 0, 1, 1]], [1, 2]))
    assert ours.false_positives.tolist() == [0, 0, 1]
    assert ours.missed.sum() == ours.matched.sum() == 0


def test_what_is_not_judged_is_no_false_positive() -> None:
    truth = _map([[-1, -1]], [])
    found = _map([[0, 0]], [1])
    assert _match(truth, found).false_positives.sum() == 1
    assert _match(truth, found, unjudged=frozenset({1})).false_positives.sum() == 0


def test_perfect_is_one_and_nothing_is_zero() -> None:
    best, worst = no_matches(_CATEGORIES), no_matches(_CATEGORIES)
    for seed in range(8):
        truth = paint(random_scene(seed, num_categories=_CATEGORIES, with_crowds=False)[0])
        best += _match(truth, truth)
        worst += _match(truth, _map(np.full(truth.rows.shape, NOTHING), []))
    quality = panoptic_quality(best)
    assert quality.pq == quality.sq == quality.rq == 1
    quality = panoptic_quality(worst)
    assert quality.pq == quality.sq == quality.rq == 0


def test_no_image_has_no_quality() -> None:
    assert panoptic_quality(no_matches(2)).pq is None
    assert no_matches(2).quality() is None


def test_refuses_another_size() -> None:
    with pytest.raises(InputError, match=r"\(1, 2\), got \(2, 1\)"):
        _match(_map([[-1, -1]], []), _map([[-1], [-1]], []))
