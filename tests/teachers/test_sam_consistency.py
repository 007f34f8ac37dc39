"""Agreement of a SAM's answers, against a slow loop over pairs of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from teachers.sam_consistency import best_iou, mean_iou_of_others


def _masks(seed: int, *shape: int) -> NDArray[np.bool_]:
    random = np.random.default_rng(seed)
    masks: NDArray[np.bool_] = random.random(shape) < random.random((*shape[:2], 1, 1))
    masks[0, 0] = False
    return masks


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    either = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / either) if either else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_best_of_others(seed: int) -> None:
    first, second = _masks(seed, 4, 3, 8, 9), _masks(seed + 9, 4, 2, 8, 9)
    found = best_iou(torch.from_numpy(first), torch.from_numpy(second))
    expected = [[max(_iou(a, b) for b in second[n]) for a in first[n]] for n in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("c", [2, 3, 5])
def test_mean_of_the_others(c: int) -> None:
    masks = _masks(c, 4, c, 8, 9)
    found = mean_iou_of_others(torch.from_numpy(masks))
    expected = [
        [np.mean([_iou(masks[n, i], masks[n, j]) for j in range(c) if j != i]) for i in range(c)]
        for n in range(4)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_equal_masks_agree_and_empty_ones_do_not() -> None:
    masks = torch.ones((1, 3, 256, 256), dtype=torch.bool)
    assert mean_iou_of_others(masks).tolist() == best_iou(masks, masks).tolist() == [[1, 1, 1]]
    assert mean_iou_of_others(~masks).tolist() == best_iou(masks, ~masks).tolist() == [[0, 0, 0]]
