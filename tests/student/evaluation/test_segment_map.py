"""The truth painted without overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.errors import InputError
from student.evaluation.segment_map import NOTHING, VOID, SegmentMap, paint
from tests.student.evaluation.scenes import random_scene, true_of


def _square(y0: int, x0: int, side: int) -> np.ndarray:
    mask = np.zeros((20, 30), dtype=bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def test_the_smaller_lies_on_the_larger_and_both_on_a_crowd() -> None:
    small, large, crowd = _square(4, 4, 3), _square(2, 2, 8), _square(0, 0, 5)
    truth = true_of([small, crowd, large], [0, 2, 1], is_crowd=[False, True, False])
    painted = paint(truth)
    assert (painted.rows[small] == 0).all()
    assert (painted.rows[large & ~small] == 2).all()
    assert (painted.rows[crowd & ~large] == 1).all()
    assert (painted.rows[~(small | large | crowd)] == NOTHING).all()
    assert (painted.labels()[small] == 0).all()
    assert (painted.labels()[crowd & ~large] == 2).all()
    assert painted.labels()[19, 29] == NOTHING


def test_a_box_without_mask_is_void_where_nothing_else_is() -> None:
    mask = _square(4, 4, 4)
    truth = true_of([None, mask], [0, 0], boxes_xyxy=[[0, 0, 10, 10], [4, 4, 8, 8]])
    labels = paint(truth).labels()
    assert (labels[mask] == 0).all()
    assert (labels[:10, :10][~mask[:10, :10]] == VOID).all()
    assert (labels[10:] == NOTHING).all()


def test_every_pixel_is_of_a_mask_that_covers_it() -> None:
    truth, _ = random_scene(5, num_categories=3)
    painted = paint(truth)
    assert painted.rows.shape == truth.size_hw
    assert set(np.unique(painted.rows)) <= set(range(NOTHING, len(truth)))


def test_refuses_rows_of_no_segment() -> None:
    with pytest.raises(InputError, match="rows below 1, got 1"):
        SegmentMap(
            rows=np.ones((2, 2), np.int32), categories=np.zeros(1, int), is_crowd=np.zeros(1, bool)
        )
