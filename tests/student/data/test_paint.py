"""Masks on the canvas are those that decoding, cutting and scaling would give."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import rle
from student.data.paint import Painted, paint_masks
from student.data.view import View, whole_view


def _paint(masks: list[np.ndarray], view: View) -> tuple[list[Painted], np.ndarray]:
    counts = pa.array([rle.encode(mask) for mask in masks], pa.large_binary())
    canvases = np.zeros((len(masks), view.side, view.side), np.uint8)
    return paint_masks(counts, view, list(canvases)), canvases


def _blobs(size_hw: tuple[int, int], seed: int, num: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(num):
        mask = np.zeros(size_hw, np.uint8)
        for _ in range(3):
            centre = (int(rng.integers(size_hw[1])), int(rng.integers(size_hw[0])))
            axes = tuple(int(v) for v in rng.integers(2, max(size_hw) // 3, 2))
            cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
        masks.append(mask)
    return masks


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_at_full_size_every_pixel_is_the_same(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    x0 = data.draw(st.integers(0, width - 1))
    y0 = data.draw(st.integers(0, height - 1))
    x1 = data.draw(st.integers(x0 + 1, width))
    y1 = data.draw(st.integers(y0 + 1, height))
    flip = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    masks = [(rng.random((height, width)) < share).astype(np.uint8) for share in (0.0, 0.1, 0.6, 1)]
    view = View(
        image_hw=(height, width),
        window_xyxy=(x0, y0, x1, y1),
        placed_hw=(y1 - y0, x1 - x0),
        side=64,
        is_flipped=flip,
    )
    painted, canvases = _paint(masks, view)
    for mask, one, canvas in zip(masks, painted, canvases, strict=True):
        window = mask[y0:y1, x0:x1]
        window = window[:, ::-1] if flip else window
        expected = np.zeros((64, 64), np.uint8)
        expected[: y1 - y0, : x1 - x0] = window
        np.testing.assert_array_equal(canvas, expected)
        assert one.num_pixels == window.sum()
        if window.any():
            rows, columns = np.flatnonzero(window.any(1)), np.flatnonzero(window.any(0))
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert one.box_xyxy is not None
            assert one.box_xyxy.tolist() == tight


@pytest.mark.parametrize("scale", [0.11, 0.2, 0.25, 0.37, 0.5, 0.63, 0.9, 1.4, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_scaled_masks_are_those_of_decoding_cutting_and_scaling(scale: float, flip: bool) -> None:
    size_hw, window = (231, 173), (20, 31, 150, 203)
    x0, y0, x1, y1 = window
    placed = (round((y1 - y0) * scale), round((x1 - x0) * scale))
    view = View(image_hw=size_hw, window_xyxy=window, placed_hw=placed, side=600, is_flipped=flip)
    for seed in range(3):
        masks = _blobs(size_hw, seed)
        _, canvases = _paint(masks, view)
        for mask, canvas in zip(masks, canvases, strict=True):
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            seen = mask[y0:y1, x0:x1].astype(np.float32)
            expected = cv2.resize(seen, placed[::-1], interpolation=how) >= 0.5
            expected = expected[:, ::-1] if flip else expected
            got = canvas[: placed[0], : placed[1]].astype(bool)
            differing = (got != expected).sum()
            edge = cv2.morphologyEx(
                expected.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
            )
            if scale >= 0.125:  # below, 25 points a pixel may miss what is thinner than it
                assert not (got != expected)[edge == 0].any()
            assert differing <= 0.15 * edge.sum() + 2
            assert not canvas[placed[0] :].any()
            assert not canvas[:, placed[1] :].any()


@pytest.mark.parametrize("shrunk", [1.5, 2.5, 3.0, 3.5, 5.0, 7.0])
def test_masks_do_not_grow(shrunk: float) -> None:
    """On average edges stay where they are, to a few hundredths of a pixel of the canvas."""
    side = 128
    size = round(side * shrunk)
    view = whole_view((size, size), side)
    rng = np.random.default_rng(5)
    masks, radii = [], rng.uniform(0.1, 0.3, 40) * size
    rows, columns = np.mgrid[:size, :size] + 0.5
    for radius in radii:
        y, x = rng.uniform(radius, size - radius, 2)
        masks.append(((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8))
    painted, _ = _paint(masks, view)
    areas = np.array([one.num_pixels for one in painted])
    grown = np.sqrt(areas / np.pi) - np.sqrt([mask.sum() / np.pi for mask in masks]) * side / size
    assert abs(grown.mean()) < 0.03


@pytest.mark.parametrize("flip", [False, True])
def test_full_and_half_masks_reach_the_edges(flip: bool) -> None:
    """Nothing is lost at the border of the window, whatever the scale."""
    for size_hw in [(50, 30), (500, 333), (7, 9)]:
        for placed in [(32, 20), (64, 64)]:
            view = View(
                image_hw=size_hw,
                window_xyxy=(0, 0, size_hw[1], size_hw[0]),
                placed_hw=placed,
                side=64,
                is_flipped=flip,
            )
            half = np.zeros(size_hw, np.uint8)
            half[:, : size_hw[1] // 2] = 1
            painted, canvases = _paint([np.ones(size_hw, np.uint8), half], view)
            assert painted[0].num_pixels == placed[0] * placed[1]
            first = canvases[1][0, placed[1] - 1 if flip else 0]
            assert first == 1
            assert abs(painted[1].num_pixels / (placed[0] * placed[1]) - 0.5) < 0.1


def test_one_pixel_is_there_or_is_not() -> None:
    mask = np.zeros((100, 80), np.uint8)
    mask[41, 17] = 1
    at_full_size, canvases = _paint([mask], whole_view((100, 80), 100))
    assert at_full_size[0].num_pixels == 1
    assert canvases[0][41, 17] == 1
    tiny, canvases = _paint([mask], whole_view((100, 80), 32))
    assert tiny[0].num_pixels == canvases.sum() == 0
    assert tiny[0].box_xyxy is None


def test_masks_outside_the_window_are_not_seen() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[:20, :20] = 1
    view = View(image_hw=(60, 60), window_xyxy=(20, 20, 60, 60), placed_hw=(40, 40), side=40)
    painted, canvases = _paint([mask], view)
    assert painted[0].num_pixels == 0
    assert not canvases.any()


def test_damaged_counts_are_named_and_spoil_no_other() -> None:
    good = np.ones((10, 10), np.uint8)
    counts = pa.array([b"5", rle.encode(good), b"\xff\xfe", b""], pa.large_binary())
    view = whole_view((10, 10), 32)
    canvases = np.zeros((4, 32, 32), np.uint8)
    painted = paint_masks(counts, view, list(canvases))
    assert [bool(one.fault) for one in painted] == [True, False, True, True]
    assert canvases[1].sum() == 32 * 32
    assert not canvases[[0, 2, 3]].any()


def test_no_masks() -> None:
    assert _paint([], whole_view((10, 10), 32))[0] == []
