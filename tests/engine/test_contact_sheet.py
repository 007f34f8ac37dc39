"""Tiles show the box with some room around it, and the masks where they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contact_sheet import Outline, crop_around, draw_crop
from manifests import rle
from manifests.errors import InputError

GREEN, BLUE = (0, 255, 0), (0, 0, 255)
SIZES = st.tuples(st.integers(1, 500), st.integers(1, 500))
SHARES = st.tuples(*[st.floats(0, 1)] * 4)


def mask_of(box_xyxy: tuple[int, int, int, int], size_hw: tuple[int, int]) -> bytes:
    mask = np.zeros(size_hw, np.uint8)
    mask[box_xyxy[1] : box_xyxy[3], box_xyxy[0] : box_xyxy[2]] = 1
    return rle.encode(mask)


@given(SIZES, SHARES)
def test_a_crop_holds_its_box_and_stays_in_the_photo(
    size_hw: tuple[int, int], shares: tuple[float, ...]
) -> None:
    height, width = size_hw
    x1, x2 = sorted((shares[0] * width, shares[2] * width))
    y1, y2 = sorted((shares[1] * height, shares[3] * height))
    left, top, right, bottom = crop_around((x1, y1, x2, y2), size_hw)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left <= x1 + 1
    assert right >= x2 - 1
    assert top <= y1 + 1
    assert bottom >= y2 - 1


def test_the_crop_is_a_square_with_room_around_the_box() -> None:
    left, top, right, bottom = crop_around((400, 450, 600, 550), (1000, 1000))
    assert right - left == bottom - top == 288
    assert (left, top) == (356, 356)


def test_a_tiny_box_is_shown_with_what_is_around_it() -> None:
    left, top, right, bottom = crop_around((50, 50, 52, 52), (200, 200))
    assert (right - left, bottom - top) == (48, 48)


def test_the_longer_side_is_as_asked() -> None:
    photo = np.zeros((100, 400, 3), np.uint8)
    assert draw_crop(photo, (0, 0, 400, 100), [], long_side=200).shape == (50, 200, 3)
    assert draw_crop(photo, (10, 10, 20, 20), [], long_side=200).shape == (200, 200, 3)


def test_one_mask_is_filled_lightly_and_two_are_only_outlined() -> None:
    photo = np.full((200, 200, 3), 100, np.uint8)
    green = Outline(counts=mask_of((60, 60, 140, 140), (200, 200)), colour=GREEN)
    blue = Outline(counts=mask_of((70, 70, 130, 130), (200, 200)), colour=BLUE)
    one = draw_crop(photo, (60, 60, 140, 140), [green], long_side=200)
    two = draw_crop(photo, (60, 60, 140, 140), [green, blue], long_side=200)
    assert one[100, 100].tolist() == [84, 125, 84]
    assert two[100, 100].tolist() == [100, 100, 100]
    for picture, colour in ((one, GREEN), (two, GREEN), (two, BLUE)):
        assert (picture == colour).all(axis=-1).any()
    assert not (one == BLUE).all(axis=-1).any()


def test_a_mask_of_another_size_is_refused() -> None:
    photo = np.zeros((50, 50, 3), np.uint8)
    other = Outline(counts=mask_of((1, 1, 5, 5), (20, 20)), colour=GREEN)
    with pytest.raises(InputError):
        draw_crop(photo, (1, 1, 5, 5), [other], long_side=100)
