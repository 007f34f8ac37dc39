"""Semantic and foreground quality of known label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.errors import InputError
from student.evaluation.segment_map import NOTHING, VOID
from student.evaluation.semantic import (
    ConfusionMatrix,
    SemanticQuality,
    foreground_pixels,
    foreground_quality,
)

_CATEGORIES = 3


def _labels(*rows: list[int]) -> NDArray[np.int32]:
    return np.array(rows, dtype=np.int32)


def _quality(
    *pairs: tuple[NDArray[np.int32], NDArray[np.int32]], unjudged: frozenset[int] = frozenset()
) -> SemanticQuality:
    matrix = ConfusionMatrix(_CATEGORIES)
    for truth, found in pairs:
        matrix.add(truth, found, unjudged=unjudged)
    return matrix.quality()


def test_known_numbers() -> None:
    truth = _labels([0, 0, 1, 1, -1, -2])
    found = _labels([0, 1, 1, 1, 0, 2])
    quality = _quality((truth, found))
    # 0: one of {0, 1, 4}; 1: two of {1, 2, 3}; the last pixel is judged by nobody.
    assert quality.by_category == (pytest.approx(1 / 3), pytest.approx(2 / 3), None)
    assert quality.mean_iou == pytest.approx(0.5)
    assert quality.nothing_iou == 0
    assert quality.pixel_accuracy == pytest.approx(3 / 5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_many_images_equal_one_large_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(VOID, _CATEGORIES, size=(6, 7, 5)).astype(np.int32)
    found = generator.integers(NOTHING, _CATEGORIES, size=(6, 7, 5)).astype(np.int32)
    quality = _quality(*zip(truth, found, strict=True))
    assert quality == _quality((truth.reshape(-1, 5), found.reshape(-1, 5)))
    judged = truth != VOID
    for category in range(_CATEGORIES):
        true, mine = (truth == category) & judged, (found == category) & judged
        expected = (true & mine).sum() / (true | mine).sum() if true.any() else None
        assert quality.by_category[category] == pytest.approx(expected)


def test_perfect_is_one_and_nothing_is_zero() -> None:
    truth = np.random.default_rng(1).integers(VOID, _CATEGORIES, size=(9, 9)).astype(np.int32)
    best = _quality((truth, np.where(truth == VOID, 0, truth).astype(np.int32)))
    assert best.mean_iou == best.pixel_accuracy == best.nothing_iou == 1
    assert _quality((truth, np.full_like(truth, NOTHING))).mean_iou == 0


def test_categories_without_truth_do_not_count() -> None:
    quality = _quality((_labels([0, 0, -1]), _labels([0, 0, 2])))
    assert quality.mean_iou == 1
    assert quality.by_category == (1, None, None)


def test_what_is_not_judged_is_no_error_where_nobody_labelled() -> None:
    truth, found = _labels([0, 0, -1, -1]), _labels([0, 1, 1, 1])
    strict, kind = _quality((truth, found)), _quality((truth, found), unjudged=frozenset({1}))
    assert strict.pixel_accuracy == pytest.approx(1 / 4)
    assert kind.pixel_accuracy == pytest.approx(1 / 2)
    assert kind.by_category[0] == pytest.approx(1 / 2)  # a labelled pixel is judged


def test_foreground_is_whatever_has_a_category() -> None:
    truth = _labels([0, 1, -1, -1, -2])
    one = foreground_pixels(truth, _labels([1, -1, 0, -1, 0]))
    assert (one.both, one.either) == (1, 3)
    empty = foreground_pixels(_labels([-1, -1]), _labels([-1, -1]))
    quality = foreground_quality([one, empty])
    assert quality.iou == pytest.approx(1 / 3)
    assert quality.mean_iou == pytest.approx((1 / 3 + 1) / 2)
    assert foreground_quality([foreground_pixels(truth, truth)]).iou == 1
    assert foreground_quality([foreground_pixels(truth, np.full_like(truth, NOTHING))]).iou == 0
    assert foreground_quality([]).iou is None
    kind = foreground_pixels(truth, _labels([1, -1, 0, -1, 0]), unjudged=frozenset({0}))
    assert (kind.both, kind.either) == (1, 2)


def test_refuses_another_size() -> None:
    with pytest.raises(InputError, match=r"a map of \(1, 2\), got \(2, 1\)"):
        ConfusionMatrix(1).add(_labels([0, 0]), _labels([0], [0]))
    with pytest.raises(InputError, match="expected categories"):
        ConfusionMatrix(0)
