"""Which part of an image goes where on the canvas: geometry alone, decided before any decoding.

Large-scale jitter as in Ghiasi et al., "Simple Copy-Paste", CVPR 2021, section 3: the image is
scaled by a factor from a wide range, and what is larger than the canvas is cropped at random. Here
the factor is of the canvas, not of the image: at 1 the longer side fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from student.config import DataConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A window of an image, scaled onto the top left of a square canvas.

    Attributes:
        image_hw: of the whole image.
        window_xyxy: whole pixels of the image, half-open.
        placed_hw: pixels of the canvas that the window becomes.
        side: of the canvas.
        is_flipped: left and right change places, within `placed_hw`.
    """

    image_hw: tuple[int, int]
    window_xyxy: tuple[int, int, int, int]
    placed_hw: tuple[int, int]
    side: int
    is_flipped: bool = False

    @property
    def window_hw(self) -> tuple[int, int]:
        """Pixels of the image that are seen."""
        x0, y0, x1, y1 = self.window_xyxy
        return y1 - y0, x1 - x0

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the canvas for one of the image."""
        (window_h, window_w), (height, width) = self.window_hw, self.placed_hw
        return width / window_w, height / window_h

    def place(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 4] boxes of the image on the canvas, cut to what is seen; sides may become 0."""
        x0, y0, _, _ = self.window_xyxy
        height, width = self.placed_hw
        scale = np.array([*self.scale_xy, *self.scale_xy])
        placed = (boxes_xyxy.astype(np.float64) - (x0, y0, x0, y0)) * scale
        placed = np.clip(placed, 0, (width, height, width, height))
        if self.is_flipped:
            placed[:, [0, 2]] = width - placed[:, [2, 0]]
        found: NDArray[np.float32] = placed.astype(np.float32)
        return found

    def holds(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
        """[N] whether a box is seen whole."""
        x0, y0, x1, y1 = self.window_xyxy
        boxes = boxes_xyxy
        whole: NDArray[np.bool_] = (
            (boxes[:, 0] >= x0) & (boxes[:, 1] >= y0) & (boxes[:, 2] <= x1) & (boxes[:, 3] <= y1)
        )
        return whole


def whole_view(image_hw: tuple[int, int], side: int) -> View:
    """The view for evaluation: the whole image, its longer side as long as the canvas."""
    return _view(image_hw, scale=1.0, side=side, places=(0.0, 0.0), is_flipped=False)


def random_view(image_hw: tuple[int, int], config: DataConfig, rng: np.random.Generator) -> View:
    """A view for training: jitter, crop, flip. Always draws four numbers."""
    size, x, y, flip = rng.random(4).tolist()
    return _view(
        image_hw,
        scale=config.scale_min + size * (config.scale_max - config.scale_min),
        side=config.image_side,
        places=(x, y),
        is_flipped=flip < config.flip,
    )


def _view(
    image_hw: tuple[int, int],
    *,
    scale: float,
    side: int,
    places: tuple[float, float],
    is_flipped: bool,
) -> View:
    factor = scale * side / max(image_hw)  # canvas pixels for one of the image
    spans = [
        _span(length, factor=factor, side=side, place=place)
        for length, place in zip(reversed(image_hw), places, strict=True)
    ]
    (x0, x1, width), (y0, y1, height) = spans
    return View(
        image_hw=image_hw,
        window_xyxy=(x0, y0, x1, y1),
        placed_hw=(height, width),
        side=side,
        is_flipped=is_flipped,
    )


def _span(length: int, *, factor: float, side: int, place: float) -> tuple[int, int, int]:
    """(first pixel, last pixel + 1, pixels on the canvas) along one axis."""
    if length * factor <= side:
        return 0, length, min(side, max(1, round(length * factor)))
    seen = min(length, max(1, round(side / factor)))
    first = int(place * (length - seen + 1))
    return first, first + seen, side
