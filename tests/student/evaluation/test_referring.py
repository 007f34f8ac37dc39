"""Masks that phrases refer to."""

from __future__ import annotations

import numpy as np
import pytest

from manifests import rle
from student.evaluation.referring import PhraseResult, phrase_result, referring_quality


def _row(*pixels: int) -> bytes:
    mask = np.zeros((2, 5), dtype=np.uint8)
    mask[0, list(pixels)] = 1
    return rle.encode(mask)


def test_known_numbers() -> None:
    results = [
        phrase_result(_row(0, 1), _row(0, 1), size_hw=(2, 5)),
        phrase_result(_row(0, 1), _row(1, 2), size_hw=(2, 5)),
        phrase_result(_row(0, 1), _row(3), size_hw=(2, 5)),
        phrase_result(_row(0, 1), _row(), size_hw=(2, 5)),
    ]
    assert [one.iou for one in results] == [1, pytest.approx(1 / 3), 0, 0]
    quality = referring_quality(results)
    assert quality.mean_iou == pytest.approx((1 + 1 / 3) / 4)
    assert quality.overall_iou == pytest.approx((2 + 1) / (2 + 3 + 3 + 2))
    assert quality.precision_50 == pytest.approx(1 / 4)
    assert quality.num_phrases == 4


def test_half_is_not_precise_and_two_empty_masks_are_no_fit() -> None:
    assert referring_quality([PhraseResult(both=1, either=2)]).precision_50 == 0
    assert PhraseResult(both=0, either=0).iou == 0


def test_no_phrases_have_no_quality() -> None:
    quality = referring_quality([])
    assert quality.mean_iou is quality.overall_iou is quality.precision_50 is None
