"""Boxes and masks drawn over a photo: kept ones in colour, dropped ones hatched in red.

Legend: H, W the photo's size; h, w that of the drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from manifests.errors import InputError

ImageRgb = NDArray[np.uint8]
Colour = tuple[int, int, int]
"""RGB, 0-255."""
Style = Literal["kept", "dropped", "plain"]
"""`plain`: nobody has judged it; a thin box, and the mask, if any, without emphasis."""

RED: Colour = (255, 59, 78)
# Far apart from each other and from RED, bright enough for dark photos.
PALETTE: tuple[Colour, ...] = (
    (64, 156, 255), (52, 211, 120), (255, 205, 60), (178, 128, 255), (32, 214, 220),
    (188, 230, 60), (255, 160, 235), (120, 130, 255),
)  # fmt: skip

_MAX_ENLARGEMENT = 3.0
_FILL = {"kept": 0.42, "dropped": 0.10, "plain": 0.25}
_HATCH_FILL, _HATCH_PERIOD_PX, _HATCH_WIDTH_PX = 0.62, 12, 4
_DASH_PX = 9
_TAG_SCALE, _TAG_PAD_PX = 0.45, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One box of a photo and, if there is one, its mask.

    Attributes:
        label: short text for the tag at the box's corner.
        box_xyxy: absolute pixels of the photo.
        counts: COCO RLE in the photo's size, or None.
        style: how it is drawn.
        colour: of everything but a dropped one, which is RED.
    """

    label: str
    box_xyxy: tuple[float, float, float, float]
    counts: bytes | None
    style: Style
    colour: Colour


def colour_of(number: int, style: Style) -> Colour:
    """The colour of the `number`-th mark of a photo."""
    return RED if style == "dropped" else PALETTE[number % len(PALETTE)]


def draw_marks(photo: ImageRgb, marks: Sequence[Mark], *, long_side: int) -> ImageRgb:
    """[h, w, 3]: the photo with its marks, large masks first, at a long side of `long_side`.

    A small photo is enlarged, threefold at most, so that outlines stay crisp.

    Args:
        photo: [H, W, 3] RGB uint8.
        marks: what to draw.
        long_side: in pixels, at least 1.

    Raises:
        InputError: a mask is damaged or of another size than the photo.
    """
    import cv2

    height, width = photo.shape[:2]
    scale = min(long_side / max(height, width), _MAX_ENLARGEMENT)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.array(cv2.resize(photo, size_wh, interpolation=how), dtype=np.uint8)
    masks = [_scaled_mask(mark, (height, width), size_wh) for mark in marks]
    sizes = [0 if mask is None else int(np.count_nonzero(mask)) for mask in masks]
    for number in sorted(range(len(marks)), key=lambda n: -sizes[n]):
        mask = masks[number]
        if mask is not None and sizes[number]:
            _draw_mask(canvas, mask, marks[number])
    for mark in marks:
        _draw_box(canvas, _scaled_box(mark, scale, size_wh), mark)
    _draw_tags(canvas, [(_scaled_box(mark, scale, size_wh), mark) for mark in marks])
    return canvas


def encode_jpeg(image: ImageRgb, *, quality: int) -> bytes:
    """JPEG bytes of an [H, W, 3] RGB image."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_done:
        raise InputError(f"an image of shape {image.shape} cannot be written as JPEG")
    return bytes(data)


def _scaled_mask(
    mark: Mark, size_hw: tuple[int, int], size_wh: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """[h, w] 0-255, soft at the edge."""
    import cv2

    if mark.counts is None:
        return None
    rle.check(mark.counts, size_hw=size_hw)  # the decoder writes where damaged counts tell it to
    mask = np.ascontiguousarray(rle.decode(mark.counts, size_hw=size_hw) * 255)
    how = cv2.INTER_AREA if size_wh[0] < size_hw[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(mask, size_wh, interpolation=how), dtype=np.uint8)


def _draw_mask(canvas: ImageRgb, mask: NDArray[np.uint8], mark: Mark) -> None:
    """Fill (or hatch) within the mask's own rectangle, then the outline."""
    import cv2

    x, y, width, height = cv2.boundingRect(mask)
    place = np.s_[y : y + height, x : x + width]
    opacity = np.full((height, width), _FILL[mark.style], dtype=np.float32)
    if mark.style == "dropped":
        rows, columns = np.ogrid[y : y + height, x : x + width]
        opacity[(rows + columns) % _HATCH_PERIOD_PX < _HATCH_WIDTH_PX] = _HATCH_FILL
    opacity *= mask[place] / np.float32(255)
    colour = np.array(mark.colour, dtype=np.float32)
    under = canvas[place].astype(np.float32)
    canvas[place] = (under + (colour - under) * opacity[..., None]).round().astype(np.uint8)
    contours, _ = cv2.findContours(
        (mask > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    # A dark line below the bright one keeps the outline visible on any photo.
    if mark.style != "plain":
        cv2.drawContours(canvas, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, mark.colour, 2, cv2.LINE_AA)


def _scaled_box(
    mark: Mark, scale: float, size_wh: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top-left and bottom-right pixel inside the canvas."""
    x1, y1, x2, y2 = (round(value * scale) for value in mark.box_xyxy)
    right, bottom = size_wh[0] - 1, size_wh[1] - 1
    first = min(max(x1, 0), right), min(max(y1, 0), bottom)
    return first, (min(max(x2, 0), right), min(max(y2, 0), bottom))


def _draw_box(
    canvas: ImageRgb, corners: tuple[tuple[int, int], tuple[int, int]], mark: Mark
) -> None:
    import cv2

    (x1, y1), (x2, y2) = corners
    if mark.style != "dropped":
        cv2.rectangle(canvas, (x1, y1), (x2, y2), mark.colour, 1, cv2.LINE_AA)
        return
    for start, end in (((x1, y1), (x2, y1)), ((x1, y2), (x2, y2)),
                       ((x1, y1), (x1, y2)), ((x2, y1), (x2, y2))):  # fmt: skip
        _draw_dashes(canvas, start, end, mark.colour)


def _draw_dashes(
    canvas: ImageRgb, start: tuple[int, int], end: tuple[int, int], colour: Colour
) -> None:
    """A horizontal or vertical dashed line."""
    import cv2

    (x1, y1), (x2, y2) = start, end
    length = max(x2 - x1, y2 - y1, 1)
    step_x, step_y = (x2 - x1) / length, (y2 - y1) / length
    for at in range(0, length, 2 * _DASH_PX):
        stop = min(at + _DASH_PX, length)
        first = round(x1 + step_x * at), round(y1 + step_y * at)
        last = round(x1 + step_x * stop), round(y1 + step_y * stop)
        cv2.line(canvas, first, last, colour, 2, cv2.LINE_AA)


def _draw_tags(canvas: ImageRgb, placed: Sequence[tuple[Any, Mark]]) -> None:  # Any: corners
    """Each mark's label at its box's corner, moved aside while it would cover another."""
    import cv2

    font, taken = cv2.FONT_HERSHEY_SIMPLEX, np.zeros(canvas.shape[:2], dtype=bool)
    for ((x, y), (right, bottom)), mark in placed:
        (width, height), _ = cv2.getTextSize(mark.label, font, _TAG_SCALE, 1)
        width, height = width + 2 * _TAG_PAD_PX, height + 2 * _TAG_PAD_PX
        if bottom - y < 2 * height or right - x < 2 * width:  # it would hide what it names
            y = y - height if y >= height else bottom + 1
        y = max(0, min(y, canvas.shape[0] - height))
        x = left = max(0, min(x, canvas.shape[1] - width))
        while x + width <= canvas.shape[1] and taken[y : y + height, x : x + width].any():
            x += 4
        x = x if x + width <= canvas.shape[1] else left
        taken[y : y + height, x : x + width] = True
        cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), mark.colour, -1)
        text = (255, 255, 255) if mark.style == "dropped" else (16, 16, 16)
        at = x + _TAG_PAD_PX, y + height - _TAG_PAD_PX - 1
        cv2.putText(canvas, mark.label, at, font, _TAG_SCALE, text, 1, cv2.LINE_AA)
