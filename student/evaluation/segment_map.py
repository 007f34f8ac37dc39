"""Label maps: which segment every pixel of an image belongs to, and the truth painted as one.

Legend: H and W the image's own height and width, N segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from manifests.errors import InputError
from student.evaluation.instances import IntArray, TrueInstances

NOTHING = -1
"""A pixel of no segment: what is found there is wrong."""
VOID = -2
"""A pixel that nobody may be judged by."""

LabelMap = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMap:
    """Segments that do not overlap.

    Attributes:
        rows: [H, W] int32, the segment of every pixel from 0 on, or NOTHING, or VOID.
        categories: [N] int64.
        is_crowd: [N] bool, regions of several objects; never of a prediction.
    """

    rows: LabelMap
    categories: IntArray
    is_crowd: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.categories) != len(self.is_crowd):
            raise InputError(
                f"segment map: expected [H, W] rows and as many crowd flags as categories, got "
                f"{self.rows.shape}, {len(self.is_crowd)} and {len(self.categories)}"
            )
        if self.rows.size and not VOID <= self.rows.min() <= self.rows.max() < len(self.categories):
            raise InputError(
                f"segment map: expected rows below {len(self.categories)}, got {self.rows.max()}"
            )

    def labels(self) -> LabelMap:
        """[H, W] int32: the category of every pixel, NOTHING or VOID."""
        # Index -1 and -2 are the last entries of the table.
        table = np.concatenate([self.categories, [VOID, NOTHING]]).astype(np.int32)
        labels: LabelMap = table[self.rows]
        return labels


def paint(truth: TrueInstances) -> SegmentMap:
    """The truth without overlaps: a smaller mask lies on a larger one, all lie on crowds.

    What has no mask makes its box VOID where nothing else lies, whether it is one or a crowd.
    """
    height, width = truth.size_hw
    rows = np.full((height, width), NOTHING, dtype=np.int32)
    for row in _bottom_to_top(truth):
        x0, y0, x1, y1 = _pixels_of(truth, row)
        region = rle.decode(truth.region(row), size_hw=truth.size_hw)[y0:y1, x0:x1]
        rows[y0:y1, x0:x1][region != 0] = VOID if truth.counts[row] is None else row
    return SegmentMap(rows=rows, categories=truth.categories, is_crowd=truth.is_crowd)


def _bottom_to_top(truth: TrueInstances) -> list[int]:
    def height_of(row: int) -> tuple[bool, bool, int]:
        area_px = rle.area(truth.region(row), size_hw=truth.size_hw)
        return truth.counts[row] is not None, not truth.is_crowd[row], -area_px

    return sorted(range(len(truth)), key=height_of)


def _pixels_of(truth: TrueInstances, row: int) -> tuple[int, int, int, int]:
    """Of the region itself: a mask may reach beyond the box that people drew."""
    box = rle.box_xyxy(truth.region(row), size_hw=truth.size_hw)
    x0, y0, x1, y1 = (int(value) for value in box)
    return x0, y0, x1, y1
