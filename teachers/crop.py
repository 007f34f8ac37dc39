"""The part of an image around a box: what the teachers that look at one object at a time see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teachers.protocol import ImageRgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Whole pixels [x0, x1) x [y0, y1) of an image."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(
        cls, box_xyxy: NDArray[np.float32], *, margin: float, size_hw: tuple[int, int]
    ) -> Crop:
        """The box widened by `margin` of its own size on each side, cut to the image."""
        x0, y0, x1, y1 = (float(value) for value in box_xyxy)
        dx, dy = (x1 - x0) * margin, (y1 - y0) * margin
        return cls(
            x0=max(0, int(np.floor(x0 - dx))),
            y0=max(0, int(np.floor(y0 - dy))),
            x1=min(size_hw[1], int(np.ceil(x1 + dx))),
            y1=min(size_hw[0], int(np.ceil(y1 + dy))),
        )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels, at least 1 for a box inside the image."""
        return self.y1 - self.y0, self.x1 - self.x0

    def of(self, image: ImageRgb) -> ImageRgb:
        """A view of these pixels."""
        return image[self.y0 : self.y1, self.x0 : self.x1]

    def inside_box(
        self, box_xyxy: NDArray[np.float32], *, grid_hw: tuple[int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the centres of a grid over this crop lie, in the box's own coordinates.

        Returns:
            [grid height] v and [grid width] u; the box is -1 to 1 in both.
        """
        x0, y0, x1, y1 = (float(value) for value in box_xyxy)
        y = (np.arange(grid_hw[0]) + 0.5) / grid_hw[0] * self.size_hw[0] + self.y0
        x = (np.arange(grid_hw[1]) + 0.5) / grid_hw[1] * self.size_hw[1] + self.x0
        return (2 * y - y0 - y1) / (y1 - y0), (2 * x - x0 - x1) / (x1 - x0)
