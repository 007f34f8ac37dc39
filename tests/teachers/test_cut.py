"""The cut: what a box does not touch is gone, the rest stays, and the share that went is told."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from teachers.cut import cut_to_boxes


def _tight(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, c, 4] of [n, c, W, H] masks; zeros for an empty one."""
    tight = np.zeros((*masks.shape[:2], 4), np.float32)
    for place in np.ndindex(masks.shape[:2]):
        x, y = np.nonzero(masks[place])
        if len(x):
            tight[place] = x.min(), y.min(), x.max() + 1, y.max() + 1
    return tight


@given(
    st_numpy.arrays(
        np.uint8, st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 12)] * 2),
        elements=st.integers(0, 1),
    ),
    st.data(),
)  # fmt: skip
def test_against_a_plain_loop(masks: NDArray[np.uint8], data: st.DataObject) -> None:
    width, height = masks.shape[2:]
    edges = [
        sorted(data.draw(st.tuples(*[st.floats(0, side, width=32)] * 2)))
        for side in [width, height] * len(masks)
    ]
    corners = np.array(edges, np.float32).reshape(-1, 2, 2)  # [n, (x, y), (first, last)]
    boxes = corners.transpose(0, 2, 1).reshape(-1, 4)
    cut = masks.copy()
    outside = cut_to_boxes(cut, _tight(masks), boxes)
    for n, c, x, y in np.ndindex(masks.shape):
        x0, y0, x1, y1 = boxes[n]
        is_inside = np.floor(x0) <= x < np.ceil(x1) and np.floor(y0) <= y < np.ceil(y1)
        assert cut[n, c, x, y] == (masks[n, c, x, y] if is_inside else 0)
    before, after = masks.sum(axis=(2, 3)), cut.sum(axis=(2, 3))
    np.testing.assert_allclose(outside, (before - after) / np.maximum(before, 1), atol=1e-6)


def test_a_mask_inside_its_box_is_left_alone() -> None:
    masks = np.zeros((1, 1, 9, 9), np.uint8)
    masks[0, 0, 2:5, 3:6] = 1
    before = masks.copy()
    assert cut_to_boxes(masks, _tight(masks), np.array([[2.5, 3.5, 4.5, 5.5]], np.float32)) == 0
    np.testing.assert_array_equal(masks, before)


def test_a_mask_beside_its_box_is_gone() -> None:
    masks = np.zeros((1, 1, 9, 9), np.uint8)
    masks[0, 0, :3, :3] = 1
    assert cut_to_boxes(masks, _tight(masks), np.array([[5, 5, 9, 9]], np.float32)) == 1
    assert not masks.any()
