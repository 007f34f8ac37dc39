"""Outlines as faster-coco-eval finds them, only sooner; AP itself is tested in test_ap."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval.core.mask import rleToBoundary

from manifests import rle
from student.evaluation.boundary import outline
from tests.student.evaluation.scenes import blob


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 9), (40, 60), (300, 200)])
def test_outlines_equal_the_evaluators(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    generator = np.random.default_rng(height)
    masks = [blob(size_hw, generator) | blob(size_hw, generator) for _ in range(6 * (width > 9))]
    masks += [np.ones(size_hw, bool), np.zeros(size_hw, bool), generator.random(size_hw) < 0.7]
    for mask in masks:
        counts = rle.encode(mask)
        theirs = rleToBoundary({"size": [height, width], "counts": counts})
        assert outline(counts, height, width)["counts"] == theirs["counts"]


def test_a_thick_mask_has_a_hollow_outline() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    found = rle.decode(outline(rle.encode(mask), 100, 100)["counts"], size_hw=(100, 100))
    hollow = mask.copy()
    hollow[23:77, 23:77] = False  # 2% of the diagonal is 3 pixels
    assert (found == hollow).all()
