"""Drawing: kept masks are coloured, dropped ones hatched in red, the photo itself not touched."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests import rle
from manifests.errors import InputError
from teachers.overlay import PALETTE, RED, Mark, colour_of, draw_marks, encode_jpeg

SIZE_HW = (60, 100)


def photo() -> np.ndarray:
    """A grey photo."""
    return np.full((*SIZE_HW, 3), 128, dtype=np.uint8)


def mark(**more: Any) -> Mark:
    """A kept blue mask that fills its box in the middle of the photo."""
    mask = np.zeros(SIZE_HW, dtype=np.uint8)
    mask[10:50, 20:80] = 1
    fields: dict[str, Any] = {
        "label": "1",
        "box_xyxy": (20.0, 10.0, 80.0, 50.0),
        "counts": rle.encode(mask),
        "style": "kept",
        "colour": PALETTE[0],
    }
    return Mark(**fields | more)


@pytest.mark.parametrize(
    ("long_side", "size_hw"), [(50, (30, 50)), (100, (60, 100)), (900, (180, 300))]
)
def test_is_scaled_to_the_long_side_but_enlarged_threefold_at_most(
    long_side: int, size_hw: tuple[int, int]
) -> None:
    drawn = draw_marks(photo(), [mark()], long_side=long_side)
    assert drawn.shape == (*size_hw, 3)
    assert drawn.dtype == np.uint8


def test_without_marks_nothing_is_drawn_and_the_photo_is_never_changed() -> None:
    original = photo()
    assert (draw_marks(original, [], long_side=100) == 128).all()
    draw_marks(original, [mark()], long_side=100)
    assert (original == 128).all()


def test_kept_mask_is_coloured_inside_and_nowhere_else() -> None:
    drawn = draw_marks(photo(), [mark()], long_side=100)
    red, green, blue = drawn[40, 70].astype(int)
    assert blue > 150 > green > red
    assert (drawn[54:] == 128).all()
    assert (drawn[:, 85:] == 128).all()


def test_dropped_mask_is_hatched() -> None:
    drawn = draw_marks(photo(), [mark(style="dropped", colour=RED)], long_side=300)
    inside = drawn[90:140, 90:220].astype(int)
    redness = inside[..., 0] - inside[..., 2]
    assert (redness > 60).any()
    assert (redness < 20).any()


def test_box_without_a_mask_is_an_outline() -> None:
    drawn = draw_marks(photo(), [mark(counts=None, style="plain")], long_side=100)
    assert (drawn[30, 40] == 128).all()
    assert (drawn[30, 20] != 128).any()


@pytest.mark.parametrize(
    "box_xyxy", [(0.0, 0.0, 100.0, 60.0), (97.0, 57.0, 100.0, 60.0), (-9.0, -9.0, 900.0, 900.0)]
)
def test_boxes_at_and_beyond_the_border(box_xyxy: tuple[float, float, float, float]) -> None:
    marks = [mark(box_xyxy=box_xyxy, counts=None, label=str(n), style=style)
             for n, style in enumerate(("kept", "dropped", "plain"))]  # fmt: skip
    assert draw_marks(photo(), marks, long_side=100).shape == (*SIZE_HW, 3)


def test_empty_mask_draws_a_box_alone() -> None:
    empty = rle.encode(np.zeros(SIZE_HW, dtype=np.uint8))
    with_empty = draw_marks(photo(), [mark(counts=empty)], long_side=100)
    assert (with_empty == draw_marks(photo(), [mark(counts=None)], long_side=100)).all()


def test_refuses_a_mask_of_another_size() -> None:
    other = rle.encode(np.ones((10, 10), dtype=np.uint8))
    with pytest.raises(InputError, match="covers 100 pixels, expected 60 x 100"):
        draw_marks(photo(), [mark(counts=other)], long_side=100)


def test_dropped_is_always_red_and_nothing_else_is() -> None:
    assert {colour_of(number, "dropped") for number in range(20)} == {RED}
    assert RED not in {colour_of(number, "kept") for number in range(20)}


def test_jpeg_round_trip() -> None:
    with Image.open(io.BytesIO(encode_jpeg(photo(), quality=85))) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image, dtype=int) - 128).max() <= 2
