"""A small picture of one box: the photo around it, and the outlines of masks.

Legend: H, W the photo's size; h, w that of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from teachers.overlay import Colour, ImageRgb

_MARGIN = 0.22
"""Room around a box, as a share of its longer side."""
_LEAST_SIDE_PX = 48
"""A box of few pixels is shown with what is around it: enlarged alone it says nothing."""
_FILL = 0.16
_HALO: Colour = (0, 0, 0)
_BOX: Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A mask to draw: COCO RLE counts in the photo's size, and the colour of its edge."""

    counts: bytes
    colour: Colour


def crop_around(
    box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of a square around a box, moved into the photo and cut where it is larger."""
    x1, y1, x2, y2 = box_xyxy
    side = max(max(x2 - x1, y2 - y1) * (1 + 2 * _MARGIN), _LEAST_SIDE_PX)
    left, right = _span((x1 + x2) / 2, side, size_hw[1])
    top, bottom = _span((y1 + y2) / 2, side, size_hw[0])
    return left, top, right, bottom


def _span(middle: float, length: float, limit: int) -> tuple[int, int]:
    """Start and end of so many pixels around `middle`, within [0, limit]."""
    size = min(max(1, round(length)), limit)
    start = min(max(0, round(middle - size / 2)), limit - size)
    return start, start + size


def draw_crop(
    photo: ImageRgb,
    box_xyxy: tuple[float, float, float, float],
    outlines: Sequence[Outline],
    *,
    long_side: int,
) -> ImageRgb:
    """[h, w, 3]: the photo around a box, the box as a thin line, and the outlines over it.

    One mask is filled lightly; of two, only the edges are drawn, so that both can be told apart.

    Args:
        photo: [H, W, 3] RGB uint8.
        long_side: of the picture, in pixels.

    Raises:
        InputError: a mask is damaged or of another size than the photo.
    """
    import cv2

    x1, y1, x2, y2 = crop_around(box_xyxy, (photo.shape[0], photo.shape[1]))
    scale = long_side / max(x2 - x1, y2 - y1)
    size_wh = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.array(cv2.resize(photo[y1:y2, x1:x2], size_wh, interpolation=how), np.uint8)
    first = round((box_xyxy[0] - x1) * scale), round((box_xyxy[1] - y1) * scale)
    last = round((box_xyxy[2] - x1) * scale), round((box_xyxy[3] - y1) * scale)
    cv2.rectangle(canvas, first, last, _HALO, 2, cv2.LINE_AA)
    cv2.rectangle(canvas, first, last, _BOX, 1, cv2.LINE_AA)
    for outline in outlines:
        mask = _cut(outline, photo, (x1, y1, x2, y2), size_wh)
        if len(outlines) == 1:
            _fill(canvas, mask, outline.colour)
        _draw_edge(canvas, mask, outline.colour)
    return canvas


def _cut(
    outline: Outline, photo: ImageRgb, crop: tuple[int, int, int, int], size_wh: tuple[int, int]
) -> NDArray[np.uint8]:
    """[h, w] 0 or 1: the mask within the crop."""
    import cv2

    size_hw = photo.shape[0], photo.shape[1]
    rle.check(outline.counts, size_hw=size_hw)  # the decoder writes where damaged counts tell it to
    x1, y1, x2, y2 = crop
    mask = np.ascontiguousarray(rle.decode(outline.counts, size_hw=size_hw)[y1:y2, x1:x2] * 255)
    how = cv2.INTER_AREA if size_wh[0] < x2 - x1 else cv2.INTER_LINEAR
    return (cv2.resize(mask, size_wh, interpolation=how) > 127).astype(np.uint8)


def _fill(canvas: ImageRgb, mask: NDArray[np.uint8], colour: Colour) -> None:
    inside = mask.astype(bool)
    under = canvas[inside].astype(np.float32)
    over = under + (np.array(colour, np.float32) - under) * np.float32(_FILL)
    canvas[inside] = over.round().astype(np.uint8)


def _draw_edge(canvas: ImageRgb, mask: NDArray[np.uint8], colour: Colour) -> None:
    """A dark line below the bright one keeps it visible on any photo."""
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, _HALO, 4, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, 2, cv2.LINE_AA)
