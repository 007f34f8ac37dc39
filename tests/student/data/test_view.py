"""Views: where an image, its boxes and its masks go together."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from student.config import DataConfig
from student.data.view import View, random_view, whole_view


@settings(deadline=None, max_examples=200)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    scales=st.tuples(st.floats(0.05, 4), st.floats(0.05, 4)),
    seed=st.integers(0, 99),
)
def test_views_lie_in_the_image_and_on_the_canvas(
    height: int, width: int, scales: tuple[float, float], seed: int
) -> None:
    config = DataConfig(image_side=256, scale_min=min(scales), scale_max=max(scales))
    view = random_view((height, width), config, np.random.default_rng(seed))
    x0, y0, x1, y1 = view.window_xyxy
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert 1 <= view.placed_hw[0] <= 256
    assert 1 <= view.placed_hw[1] <= 256
    # Where something is cut off the canvas is full.
    assert (x1 - x0 == width) or view.placed_hw[1] == 256
    assert (y1 - y0 == height) or view.placed_hw[0] == 256
    scale_x, scale_y = view.scale_xy
    longest = max(height, width)
    # What one scale for both axes would give, to a pixel of the image or of the canvas.
    for scale, (window, placed) in {
        scale_x: (x1 - x0, view.placed_hw[1]),
        scale_y: (y1 - y0, view.placed_hw[0]),
    }.items():
        least = (placed - 1) / window if placed > 1 else 0
        assert scale <= max(scales) * 256 / longest * 1.01 + 1 / window + scale / window
        assert scale >= least
    boxes = np.array([[x0, y0, x1, y1], [0, 0, width, height]], np.float32)
    whole = [0, 0, view.placed_hw[1], view.placed_hw[0]]
    np.testing.assert_allclose(view.place(boxes), [whole, whole], atol=1e-3)
    assert view.holds(boxes[:1]).all()


def test_boxes_move_with_the_pixels() -> None:
    """A bright rectangle is where its box says, in every view."""
    from student.data.decode import scaled

    image = np.zeros((90, 120, 3), np.uint8)
    image[30:50, 60:90] = 255
    box = np.array([[60, 30, 90, 50]], np.float32)
    config = DataConfig(image_side=128, scale_min=0.5, scale_max=3)
    num_seen = 0
    for seed in range(60):
        view = random_view((90, 120), config, np.random.default_rng(seed))
        x0, y0, x1, y1 = view.window_xyxy
        placed = scaled(image[y0:y1, x0:x1], view.placed_hw)
        placed = placed[:, ::-1] if view.is_flipped else placed
        rows, columns = (np.flatnonzero((placed[..., 0] >= 128).any(axis)) for axis in (1, 0))
        left, top, right, bottom = view.place(box)[0]
        if not len(rows):
            assert (right - left) * (bottom - top) < 12
            continue
        num_seen += 1
        shown = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose([left, top, right, bottom], shown, atol=1.01)
    assert num_seen > 30


def test_jitter_covers_its_range_and_is_repeatable() -> None:
    config = DataConfig(image_side=256, scale_min=0.5, scale_max=2.0, flip=0.3)
    views = [random_view((400, 300), config, np.random.default_rng(seed)) for seed in range(400)]
    again = [random_view((400, 300), config, np.random.default_rng(seed)) for seed in range(400)]
    assert views == again
    scales = np.array([view.scale_xy[1] * 400 / 256 for view in views])
    assert scales.min() < 0.55
    assert scales.max() > 1.9
    assert abs(scales.mean() - 1.25) < 0.1
    assert abs(np.mean([view.is_flipped for view in views]) - 0.3) < 0.08
    tops = [view.window_xyxy[1] for view in views if view.scale_xy[1] * 400 / 256 > 1.8]
    assert min(tops) < 20
    assert max(tops) > 140


def test_no_flip_and_always_flip() -> None:
    for flip in (0.0, 1.0):
        config = DataConfig(flip=flip)
        views = [random_view((9, 9), config, np.random.default_rng(seed)) for seed in range(50)]
        assert {view.is_flipped for view in views} == {bool(flip)}


def test_the_whole_view_keeps_everything() -> None:
    assert whole_view((600, 800), 256) == View(
        image_hw=(600, 800), window_xyxy=(0, 0, 800, 600), placed_hw=(192, 256), side=256
    )
    assert whole_view((10, 4000), 256).placed_hw == (1, 256)
