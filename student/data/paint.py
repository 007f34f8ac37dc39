"""Run-length masks painted onto the canvas directly, without decoding them at the image's size.

A mask's runs go down its columns. How many of the sampling points lie before the end of a run
follows from two small tables (points before each column and before each row), so the runs of the
image become runs of the points in one step, and only the columns that the mask touches are filled.
These are then scaled to the canvas, linearly; a pixel counts as inside from one half on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import rle_runs
from student.data.view import View

Ints = NDArray[np.int64]
Mask = NDArray[np.uint8]
_FULL = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """One mask on the canvas.

    Attributes:
        num_pixels: that are seen; 0: none.
        box_xyxy: [4] float32, tight around them, pixels of the canvas.
        fault: what is the matter with a damaged mask; "": nothing.
    """

    num_pixels: int = 0
    box_xyxy: NDArray[np.float32] | None = None
    fault: str = ""


def paint_masks(counts: pa.Array, view: View, canvases: Sequence[Mask]) -> list[Painted]:
    """Paints N masks of one image.

    Args:
        counts: [N] large_binary, COCO's compressed counts in the image's size.
        view: what of the image is seen.
        canvases: N of [side, side] zeros, which are written.
    """
    height, width = view.image_hw
    num = len(counts)
    offsets, characters = rle_runs.characters(counts)
    runs = rle_runs.decode(
        characters[offsets[0] : offsets[-1]],
        offsets - offsets[0],
        heights=np.full(num, height),
        widths=np.full(num, width),
    )
    grid = _Grid(view)
    sums = np.concatenate([[0], np.cumsum(runs.pairs.reshape(-1))])
    before = np.repeat(sums[2 * runs.first[:-1]], 2 * np.diff(runs.first))  # of other masks
    points = grid.points_before(sums[1:] - before)  # [2 * K] before each run's end
    painted = []
    for row in range(num):
        if fault := int(runs.faults[row]):
            painted.append(Painted(fault=rle_runs.FAULTS[fault]))
            continue
        ends = points[2 * runs.first[row] : 2 * runs.first[row + 1]]
        painted.append(grid.paint(ends, canvases[row]))
    return painted


class _Grid:
    """Points of the image, at most one a pixel, numbered down columns and columns left to right.

    Where there are enough, a pixel of the canvas has three or five along each axis, whose mean is
    its coverage. The number is odd: of two, one is inside at most places of an edge, and half
    counts as inside, so that every mask would grow. Else every pixel of the window is a point, and
    blurred where a pixel of the canvas has more than the two that linear scaling looks at.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        height, width = view.image_hw
        (window_h, window_w), (placed_h, placed_w) = view.window_hw, view.placed_hw
        finest = max(view.scale_xy)
        self._averaged = next((points for points in (5, 3) if points * finest <= 1), 1)
        is_whole = self._averaged == 1
        self._is_blurred = is_whole and 2 * finest < 1
        self._num_rows = window_h if is_whole else self._averaged * placed_h
        self._num_columns = window_w if is_whole else self._averaged * placed_w
        x0, y0, _, _ = view.window_xyxy
        self._rows = _points_before(height, y0, window_h, self._num_rows)
        self._columns = _points_before(width, x0, window_w, self._num_columns)

    def points_before(self, pixels: Ints) -> Ints:
        """How many points lie on the first `pixels` pixels of the image, counted down columns."""
        column, row = np.divmod(pixels, self._view.image_hw[0])
        before = self._columns[column]
        is_sampled = self._columns[np.minimum(column + 1, len(self._columns) - 1)] - before
        points: Ints = before * self._num_rows + is_sampled * self._rows[row]
        return points

    def paint(self, ends: Ints, canvas: Mask) -> Painted:
        """Paints a mask whose runs, alternating from background on, end before these points."""
        shown = np.flatnonzero(ends[1::2] > ends[0::2])
        if not len(shown):
            return Painted()
        # A column of background on either side, where there is one, keeps edges where they are.
        step = self._averaged
        first = max(0, (int(ends[2 * shown[0]]) // self._num_rows // step - 1) * step)
        last = -(-int(ends[2 * shown[-1] + 1]) // (self._num_rows * step)) * step + step
        last = min(self._num_columns, last)
        start, stop = first * self._num_rows, last * self._num_rows
        inside = np.concatenate([[start], np.clip(ends, start, stop), [stop]])
        lengths = inside[1:] - inside[:-1]
        values = np.zeros(len(lengths), np.uint8)
        values[1::2] = _FULL
        columns = np.repeat(values, lengths).reshape(-1, self._num_rows)
        if step > 1:
            size = self._num_rows // step, len(columns) // step
            columns = cast(Mask, cv2.resize(columns, size, interpolation=cv2.INTER_AREA))
        elif self._is_blurred:
            columns = cast(Mask, cv2.blur(columns, (3, 3), borderType=cv2.BORDER_REPLICATE))
        return self._put(columns, first // step, canvas)

    def _put(self, columns: Mask, first: int, canvas: Mask) -> Painted:
        """Scales [w, h] columns of points, the first of which is `first`, onto the canvas."""
        height, width = self._view.placed_hw
        across = self._num_columns / self._averaged / width
        down = columns.shape[1] / height
        left = max(0, int(first / across))
        right = min(width, int((first + len(columns)) / across) + 1)
        # From a pixel (x, y) of the patch to a place in `columns`, whose x runs down the image.
        x_at_0, x_step = left, 1
        if self._view.is_flipped:
            x_at_0, x_step = right - 1, -1
        affine = np.array(
            [
                [0, down, 0.5 * down - 0.5],
                [x_step * across, 0, (x_at_0 + 0.5) * across - 0.5 - first],
            ]
        )
        patch = cv2.warpAffine(
            columns, affine, (right - left, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        patch = cv2.threshold(patch, _FULL / 2 - 1, 1, cv2.THRESH_BINARY)[1]
        if self._view.is_flipped:
            left, right = width - right, width - left
        canvas[:height, left:right] = patch
        if not (num_pixels := cv2.countNonZero(patch)):
            return Painted()
        x, y, box_w, box_h = cv2.boundingRect(patch)
        box = np.array([left + x, y, left + x + box_w, y + box_h], np.float32)
        return Painted(num_pixels=num_pixels, box_xyxy=box)


def _points_before(length: int, first: int, seen: int, num_points: int) -> Ints:
    """[length + 1] how many of the points, evenly spread over `seen` pixels from `first` on, lie
    before each of the `length` pixels, and before their end."""
    places = first + ((np.arange(num_points) + 0.5) * (seen / num_points)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(np.bincount(places, minlength=length))])
