"""A box of a photo before and after a change: two crops, side by side, at one scale.

Legend: H, W the photo's size; h, w that of the crop; p, q that of the drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from teachers.overlay import PALETTE, RED, Colour, ImageRgb

Mask = NDArray[np.uint8]
Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels, the last two outside."""

MASK_COLOUR, CAME_COLOUR, WENT_COLOUR = PALETTE[0], PALETTE[1], RED
_BOX_COLOUR: Colour = (255, 255, 255)
_FILL, _MOVED_FILL, _HATCH_FILL, _HATCH_PERIOD_PX, _HATCH_WIDTH_PX = 0.32, 0.62, 0.6, 12, 4
_MARGIN, _MIN_MARGIN_PX = 0.18, 8
_NARROWEST = 0.7  # a crop's short side in its long one, where the photo is large enough
_MAX_ENLARGEMENT = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One side of a change.

    Attributes:
        counts: COCO RLE in the photo's size; None: no mask.
        box_xyxy: the label's box, absolute pixels.
        is_dropped: drawn hatched in red: there, but not used.
    """

    counts: bytes | None
    box_xyxy: tuple[float, float, float, float]
    is_dropped: bool = False


def draw_change(
    photo: ImageRgb, before: Drawn, after: Drawn, *, long_side: int, show_moved: bool
) -> tuple[ImageRgb, ImageRgb]:
    """Two [p, q, 3] crops of a photo with what is on each side.

    Args:
        photo: [H, W, 3] RGB uint8.
        before, after: what to draw.
        long_side: of a drawing, in pixels.
        show_moved: colour the pixels that only one of the masks has: red before, green after.

    Raises:
        InputError: a mask is damaged or of another size than the photo.
    """
    size_hw = photo.shape[0], photo.shape[1]
    masks = [_decoded(side.counts, size_hw) for side in (before, after)]
    corners = _crop([*masks], [before.box_xyxy, after.box_xyxy], size_hw)
    scale = min(long_side / max(corners[2] - corners[0], corners[3] - corners[1]), _MAX_ENLARGEMENT)
    canvas = _scaled(photo, corners, scale)
    old, new = (None if mask is None else _scaled(mask * 255, corners, scale) for mask in masks)
    sides = ((before, old, new, WENT_COLOUR), (after, new, old, CAME_COLOUR))
    drawn = []
    for side, mine, other, colour in sides:
        picture = canvas.copy()
        if mine is not None:
            _draw_mask(picture, mine, is_dropped=side.is_dropped)
            _outline(picture, mine, RED if side.is_dropped else MASK_COLOUR)
            if show_moved:  # last, so that no outline hides a few pixels
                rest = np.zeros_like(mine) if other is None else other
                moved = np.where((mine > 127) & (rest <= 127), 255, 0).astype(np.uint8)
                _fill(picture, moved, colour, _MOVED_FILL)
        _draw_box(picture, side.box_xyxy, corners, scale)
        drawn.append(picture)
    return drawn[0], drawn[1]


def _decoded(counts: bytes | None, size_hw: tuple[int, int]) -> Mask | None:
    """[H, W] of 0 and 1."""
    if counts is None:
        return None
    rle.check(counts, size_hw=size_hw)  # the decoder writes where damaged counts tell it to
    return rle.decode(counts, size_hw=size_hw)


def _crop(
    masks: list[Mask | None],
    boxes_xyxy: list[tuple[float, float, float, float]],
    size_hw: tuple[int, int],
) -> Corners:
    """Everything that is drawn, with a margin, not too narrow, and inside the photo."""
    found = np.array([*boxes_xyxy, *(_bounds(mask) for mask in masks if mask is not None)])
    x0, y0 = found[:, :2].min(axis=0)
    x1, y1 = found[:, 2:].max(axis=0)
    margin = max(_MARGIN * max(x1 - x0, y1 - y0), _MIN_MARGIN_PX)
    width, height = x1 - x0 + 2 * margin, y1 - y0 + 2 * margin
    width, height = max(width, _NARROWEST * height), max(height, _NARROWEST * width)
    left, right = _interval((x0 + x1) / 2, width, size_hw[1])
    top, bottom = _interval((y0 + y1) / 2, height, size_hw[0])
    return left, top, right, bottom


def _bounds(mask: Mask) -> tuple[float, float, float, float]:
    """Tight box of a mask; one that cannot widen anything for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.inf, np.inf, -np.inf, -np.inf
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _interval(centre: float, length: float, limit: int) -> tuple[int, int]:
    """[start, stop) around a centre, shifted and cut to lie in [0, limit)."""
    length = min(max(length, 1.0), float(limit))
    start = min(max(centre - length / 2, 0.0), limit - length)
    first = int(start)
    return first, max(first + 1, min(limit, int(np.ceil(start + length))))


def _scaled(image: ImageRgb, corners: Corners, scale: float) -> ImageRgb:
    """The crop at another scale: [p, q, 3], or [p, q] of a mask."""
    import cv2

    x0, y0, x1, y1 = corners
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    size_wh = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    smooth = cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_LINEAR
    how = cv2.INTER_AREA if scale < 1 else smooth
    return np.array(cv2.resize(part, size_wh, interpolation=how), dtype=np.uint8)


def _draw_mask(canvas: ImageRgb, mask: Mask, *, is_dropped: bool) -> None:
    if not is_dropped:
        _fill(canvas, mask, MASK_COLOUR, _FILL)
        return
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    is_line = (rows + columns) % _HATCH_PERIOD_PX < _HATCH_WIDTH_PX
    _fill(canvas, np.where(is_line, mask, 0).astype(np.uint8), RED, _HATCH_FILL)


def _fill(canvas: ImageRgb, mask: Mask, colour: Colour, opacity: float) -> None:
    share = mask[..., None] * np.float32(opacity / 255)  # [p, q, 1]
    mixed = canvas + (np.array(colour, dtype=np.float32) - canvas) * share
    canvas[:] = mixed.round().astype(np.uint8)


def _outline(canvas: ImageRgb, mask: Mask, colour: Colour) -> None:
    import cv2

    contours, _ = cv2.findContours(
        (mask > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    # A dark line below the bright one keeps the outline visible on any photo.
    cv2.drawContours(canvas, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, 2, cv2.LINE_AA)


def _draw_box(
    canvas: ImageRgb,
    box_xyxy: tuple[float, float, float, float],
    corners: Corners,
    scale: float,
) -> None:
    import cv2

    x0, y0, x1, y1 = (
        round((value - corners[axis % 2]) * scale) for axis, value in enumerate(box_xyxy)
    )
    for colour, width in (((0, 0, 0), 3), (_BOX_COLOUR, 1)):
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, width, cv2.LINE_AA)
