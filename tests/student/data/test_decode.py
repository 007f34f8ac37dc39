"""Stored bytes to pixels of the canvas."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from manifests.errors import ObjectDamagedError
from student.data.decode import DEVIATION, MEAN, decode_view, normalised, scaled
from student.data.view import View, whole_view


def _photo(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth colours, as photos have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)


def _bytes(rgb: np.ndarray, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    options = {"quality": 95} if kind == "JPEG" else {}
    Image.fromarray(rgb).convert(mode).save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize("side", [32, 64, 128, 256, 512])
@pytest.mark.parametrize("flip", [False, True])
def test_reduced_decoding_shows_the_same_picture(side: int, flip: bool) -> None:
    data = _bytes(_photo((403, 301)))
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    view = View(
        image_hw=(403, 301),
        window_xyxy=(37, 51, 301, 390),
        placed_hw=(side, side * 264 // 339),
        side=side,
        is_flipped=flip,
    )
    got = decode_view(data, view)
    assert got.shape == (*view.placed_hw, 3)
    expected = scaled(rgb[51:390, 37:301], view.placed_hw).astype(float)
    expected = expected[:, ::-1] if flip else expected
    off = np.abs(got - expected).mean()
    for axis in (0, 1):  # a shift by half a pixel would be seen
        half = (expected + np.roll(expected, 1, axis)) / 2
        assert off < 0.6 * np.abs(half - expected).mean()
    assert off < 4  # of 255


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("WEBP", "RGB"), ("JPEG", "L")]
)
def test_whatever_is_stored_becomes_rgb(kind: str, mode: str) -> None:
    data = _bytes(_photo((60, 80)), kind, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    got = decode_view(data, whole_view((60, 80), 80))
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_channels_are_red_green_blue_at_every_reduction() -> None:
    red = np.zeros((512, 512, 3), np.uint8)
    red[..., 0] = 255
    for side in (512, 256, 128, 64, 32):
        got = decode_view(_bytes(red), whole_view((512, 512), side))
        assert got[..., 0].min() > 240
        assert got[..., 1:].max() < 15


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size_hw", [(403, 301), (97, 131), (9, 1030), (1201, 3)])
def test_odd_sizes_at_every_reduction(kind: str, size_hw: tuple[int, int]) -> None:
    data = _bytes(_photo(size_hw), kind)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for side in (32, 64, 96, 160, 512):
        view = whole_view(size_hw, side)
        got = decode_view(data, view)
        assert got.shape == (*view.placed_hw, 3)
        if min(view.placed_hw) > 8:
            assert np.abs(got - scaled(whole, view.placed_hw).astype(float)).mean() < 6


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_cut_bytes_are_damaged(share: float) -> None:
    data = _bytes(_photo((60, 80)))
    with pytest.raises(ObjectDamagedError, match="cannot be decoded"):
        decode_view(data[: int(share * len(data))], whole_view((60, 80), 64))


def test_another_picture_is_damage() -> None:
    with pytest.raises(ObjectDamagedError, match="80 x 60 pixels, expected 60 x 80"):
        decode_view(_bytes(_photo((60, 80))), whole_view((80, 60), 80))


def test_normalised_pixels_and_padding() -> None:
    rgb = _photo((20, 30))
    canvas = np.zeros((3, 40, 40), np.float32)
    normalised(rgb, canvas)
    expected = (rgb.astype(np.float32) - MEAN) / DEVIATION
    np.testing.assert_allclose(canvas[:, :20, :30], expected.transpose(2, 0, 1), atol=1e-5)
    assert not canvas[:, 20:].any()
    assert not canvas[:, :, 30:].any()
