"""Photos on the canvas."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.decode import read_upright
from manifests.errors import ObjectDamagedError
from student.evaluation.forward import placed_bytes, placed_photo


def _jpeg(size_hw: tuple[int, int]) -> bytes:
    coarse = np.random.default_rng(3).integers(0, 256, (9, 11, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size_hw[::-1]).save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.mark.parametrize("size_hw", [(301, 417), (640, 480), (50, 80)])
def test_stored_bytes_lie_as_predict_lays_the_photo(size_hw: tuple[int, int]) -> None:
    """So what `evaluate` says of a student is true of what `predict` writes."""
    data = _jpeg(size_hw)
    stored = placed_bytes(data, size_hw=size_hw, side=96)
    photo = placed_photo(read_upright(data).rgb, 96)
    assert np.array_equal(stored.pixels, photo.pixels)
    assert stored.frame == photo.frame


def test_bytes_of_another_picture_are_damage() -> None:
    with pytest.raises(ObjectDamagedError, match="80 x 50 pixels, expected 50 x 80"):
        placed_bytes(_jpeg((50, 80)), size_hw=(80, 50), side=64)
