"""Boxes against real rotated pictures and brute force."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from manifests import boxes

_COORDINATE = st.integers(-50, 50).map(float)


def _box_arrays(count: st.SearchStrategy[int] | int = 3) -> st.SearchStrategy[np.ndarray]:
    shape = st.just((count, 4)) if isinstance(count, int) else count.map(lambda n: (n, 4))
    return shape.flatmap(lambda s: hnp.arrays(np.float32, s, elements=_COORDINATE))


def _painted(mask: np.ndarray) -> list[float]:
    """Tight half-open box of the bright pixels."""
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_moves_boxes_as_pillow_moves_pixels(orientation: int) -> None:
    height, width, box = 7, 11, [2, 1, 6, 3]
    pixels = np.zeros((height, width), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    moved = boxes.rotate_with_exif(
        np.array([box, [0, 0, width, height]], np.float32),
        orientation=orientation,
        raw_size_hw=(height, width),
    )
    assert moved[0].tolist() == _painted(upright)
    assert moved[1].tolist() == [0, 0, upright.shape[1], upright.shape[0]]
    assert moved.dtype == np.float32


@pytest.mark.parametrize("orientation", [0, 9, -1, 274])
def test_unknown_orientation(orientation: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 8, got {orientation}"):
        boxes.rotate_with_exif(
            np.zeros((1, 4), np.float32), orientation=orientation, raw_size_hw=(2, 3)
        )


@given(_box_arrays(st.integers(0, 5)))
def test_converters_round_trip(box_xyxy: np.ndarray) -> None:
    assert np.array_equal(boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(box_xyxy)), box_xyxy)
    assert np.array_equal(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(box_xyxy)), box_xyxy)


def test_converters_by_hand() -> None:
    one = np.array([[1, 2, 4, 8]], np.float32)
    assert boxes.xyxy_to_xywh(one).tolist() == [[1, 2, 3, 6]]
    assert boxes.xyxy_to_cxcywh(one).tolist() == [[2.5, 5, 3, 6]]
    assert boxes.xywh_to_xyxy(np.array([1, 2, 3, 6])).tolist() == [[1, 2, 4, 8]]
    for convert in (boxes.xyxy_to_xywh, boxes.xywh_to_xyxy, boxes.cxcywh_to_xyxy):
        empty = convert(np.zeros((0, 4), np.float32))
        assert (empty.shape, empty.dtype) == ((0, 4), np.float32)


def test_large_coordinates_keep_their_pixels() -> None:
    """The sum is made in float64: 16,777,217 does not exist in float32."""
    box = boxes.xywh_to_xyxy(np.array([[20_000.125, 0, 0.25, 1]]))
    assert box[0, 2] == np.float32(20_000.375)


@given(_box_arrays(st.integers(0, 5)), st.integers(1, 40), st.integers(1, 40))
def test_clip_stays_inside_and_changes_nothing_inside(
    box_xyxy: np.ndarray, height: int, width: int
) -> None:
    clipped = boxes.clip(box_xyxy, size_hw=(height, width))
    assert clipped.dtype == np.float32
    assert (clipped >= 0).all()
    assert (clipped[:, [0, 2]] <= width).all()
    assert (clipped[:, [1, 3]] <= height).all()
    assert np.array_equal(boxes.clip(clipped, size_hw=(height, width)), clipped)


def test_clip_outside_has_no_area() -> None:
    outside = np.array([[30, 0, 40, 5], [-9, -9, -1, -1], [5, 5, 2, 2]], np.float32)
    assert boxes.area(boxes.clip(outside, size_hw=(10, 20))).tolist() == [0, 0, 0]


def _paint(box: np.ndarray) -> np.ndarray:
    canvas = np.zeros((110, 110), bool)
    x0, y0, x1, y1 = (int(value) + 52 for value in box)
    canvas[y0:y1, x0:x1] = True
    return canvas


@given(_box_arrays(3), _box_arrays(3))
def test_paired_iou_counts_pixels(a: np.ndarray, b: np.ndarray) -> None:
    found = boxes.paired_iou(a, b)
    for row in range(3):
        one, two = _paint(a[row]), _paint(b[row])
        union = (one | two).sum()
        expected = (one & two).sum() / union if union else 0.0
        assert found[row] == pytest.approx(expected, abs=1e-6)
        assert boxes.area(a)[row] == one.sum()
    assert np.array_equal(found, boxes.paired_iou(b, a))


def test_no_boxes() -> None:
    none = np.zeros((0, 4), np.float32)
    assert boxes.paired_iou(none, none).shape == (0,)
    assert boxes.area(none).shape == (0,)
    assert boxes.rotate_with_exif(none, orientation=6, raw_size_hw=(2, 3)).shape == (0, 4)
