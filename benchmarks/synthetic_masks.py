"""Masks without a teacher: noisy blobs as one vertical span a column, encoded and measured exactly.

Legend: N masks, C columns of all masks together. Everything is arithmetic over [N] and [C], so a
million masks take seconds; `tests/manifests/test_synthetic_store.py` holds it against pycocotools
and `teachers.signals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_ROUGHNESS_PX = 1.5
"""Of the outline, a column: zstd halves the counts, as it does those of human and SAM masks."""
_TORN = 0.05
"""Share of masks that are cut in two."""
_LONGEST_NUMBER = 5  # characters of 5 bits: runs of up to 16 million pixels
_NUM_WAVES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """N masks of which every column is one span of pixels.

    Attributes:
        size_hw: [N, 2] height and width of each mask's image.
        left: [N] first column.
        widths: [N] columns, at least 1; they sum to C.
        top, bottom: [C] the span [top, bottom) of each column, never empty.
    """

    size_hw: Ints
    left: Ints
    widths: Ints
    top: Ints
    bottom: Ints

    @property
    def starts(self) -> Ints:
        """[N] position in [C] of each mask's first column."""
        return np.cumsum(self.widths) - self.widths

    @property
    def owner(self) -> Ints:
        """[C] the mask of each column."""
        return np.repeat(np.arange(len(self.widths)), self.widths)

    @property
    def column(self) -> Ints:
        """[C] where each column lies in its image."""
        return np.arange(len(self.top)) - np.repeat(self.starts - self.left, self.widths)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSignals:
    """[N] or [N, 4]; what each is, is said in `teachers.signals`."""

    area_px: Ints
    mask_box_xyxy: Floats
    box_iou: Floats
    outside_fraction: Floats
    fill_ratio: Floats
    num_components: Ints
    border_contact: Floats
    num_holes: Ints


def draw(rng: np.random.Generator, around_xyxy: Floats, size_hw: Ints) -> Blobs:
    """[N] blobs that about fill [N, 4] boxes, cut to their images."""
    height, width = size_hw.T
    x0 = np.clip(np.rint(around_xyxy[:, 0]).astype(np.int64), 0, width - 1)
    y0 = np.clip(np.rint(around_xyxy[:, 1]).astype(np.int64), 0, height - 1)
    x1 = np.clip(np.rint(around_xyxy[:, 2]).astype(np.int64), x0 + 1, width)
    y1 = np.clip(np.rint(around_xyxy[:, 3]).astype(np.int64), y0 + 1, height)
    # A span from a column's end to the next one's start would leave a background run of no pixels.
    y1 = np.where(y0 == 0, np.minimum(y1, np.maximum(height - 1, 1)), y1)
    widths = x1 - x0
    owner = np.repeat(np.arange(len(widths)), widths)  # [C]
    place = np.arange(len(owner)) - np.repeat(np.cumsum(widths) - widths, widths)
    across = 2 * (place + 0.5) / widths[owner] - 1  # [C] in (-1, 1)
    half = (y1 - y0) / 2
    is_torn = rng.random(len(half)) < _TORN
    cut = np.where(is_torn, rng.uniform(-0.8, 0.8, len(half)), np.nan)
    reach = half * np.where(is_torn, 0.45, 1.0)
    # Left of the cut a torn mask lies in the upper half of its box, right of it in the lower.
    shift = np.where(across > cut[owner], 0.5, np.where(is_torn[owner], -0.5, 0.0))
    middle = ((y0 + y1) / 2)[owner] + shift * half[owner]
    upper, lower = _profile(rng, across, owner, reach), _profile(rng, across, owner, reach)
    top = np.clip(np.rint(middle - upper), y0[owner], y1[owner] - 1).astype(np.int64)
    bottom = np.clip(np.rint(middle + lower), top + 1, y1[owner]).astype(np.int64)
    return Blobs(size_hw=size_hw, left=x0, widths=widths, top=top, bottom=bottom)


def _profile(rng: np.random.Generator, across: Floats, owner: Ints, half: Floats) -> Floats:
    """[C] how far the outline lies from the middle: a superellipse with waves and roughness."""
    exponent = rng.uniform(1.7, 4.0, len(half))
    height = 1 - np.abs(across) ** exponent[owner]
    reach = half[owner] * height ** (1 / exponent)[owner]
    for number in range(1, _NUM_WAVES + 1):
        strength, phase = rng.uniform(0, 0.12, len(half)), rng.uniform(0, 2 * np.pi, len(half))
        reach *= 1 + strength[owner] * np.sin(number * np.pi * across + phase[owner])
    return reach + rng.normal(0, _ROUGHNESS_PX, len(across))


def encode(blobs: Blobs, is_drawn: NDArray[np.bool_]) -> pa.BinaryArray:
    """Compressed COCO counts; the M rows with `is_drawn` take the blobs in turn, others are null.

    Args:
        blobs: as many as rows are drawn.
        is_drawn: [M].
    """
    values, lengths = _numbers(blobs)
    chars, chars_each = _characters(values)
    first = np.cumsum(lengths) - lengths
    num_bytes = np.zeros(len(is_drawn) + 1, dtype=np.int32)
    num_bytes[1:][is_drawn] = np.add.reduceat(chars_each, first) if len(first) else 0
    offsets = np.cumsum(num_bytes, dtype=np.int32)
    valid = pa.py_buffer(np.packbits(is_drawn, bitorder="little"))
    return pa.Array.from_buffers(
        pa.binary(), len(is_drawn), [valid, pa.py_buffer(offsets), pa.py_buffer(chars)]
    )


def _numbers(blobs: Blobs) -> tuple[Ints, Ints]:
    """The numbers that counts are made of, mask after mask, and [N] how many each mask has."""
    height, width = blobs.size_hw.T
    starts, owner = blobs.starts, blobs.owner
    gap = np.empty_like(blobs.top)  # [C] background between the span before and this one
    gap[1:] = height[owner[1:]] - blobs.bottom[:-1] + blobs.top[1:]
    gap[starts] = blobs.left * height + blobs.top[starts]
    last = starts + blobs.widths - 1
    rest = height - blobs.bottom[last] + (width - blobs.left - blobs.widths) * height  # [N]
    lengths = 2 * blobs.widths + (rest > 0)
    first = np.cumsum(lengths) - lengths  # [N] positions in `runs`
    at = np.arange(len(owner)) - starts[owner]
    runs = np.empty(int(lengths.sum()), dtype=np.int64)
    runs[first[owner] + 2 * at] = gap
    runs[first[owner] + 2 * at + 1] = blobs.bottom - blobs.top
    runs[(first + 2 * blobs.widths)[rest > 0]] = rest[rest > 0]
    # From its fourth number on, a mask has differences to the last number but one.
    values = runs.copy()
    values[2:] -= runs[:-2]
    for n in range(3):
        exists = lengths > n
        values[(first + n)[exists]] = runs[(first + n)[exists]]
    return values, lengths


def _characters(values: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """All numbers in characters of 5 bits, lowest first, and how many characters each takes."""
    chars_each = np.ones(len(values), dtype=np.int64)
    for n in range(1, _LONGEST_NUMBER):
        bound = 16 * 32 ** (n - 1)
        chars_each += (values < -bound) | (values >= bound)
    first = np.cumsum(chars_each) - chars_each
    out = np.empty(int(chars_each.sum()), dtype=np.uint8)
    for n in range(_LONGEST_NUMBER):
        has = np.flatnonzero(chars_each > n)
        more = (chars_each[has] > n + 1) * 0x20
        out[first[has] + n] = ((values[has] >> 5 * n) & 0x1F) + more + 48
    return out, chars_each


def measure(blobs: Blobs, box_xyxy: Floats) -> BlobSignals:
    """Signals against [N, 4] prompt boxes, equal to those of `teachers.signals.measure_mask`."""
    if not len(blobs.widths):
        empty, ints = np.zeros(0), np.zeros(0, dtype=np.int64)
        return BlobSignals(
            area_px=ints, mask_box_xyxy=np.zeros((0, 4)), box_iou=empty, outside_fraction=empty,
            fill_ratio=empty, num_components=ints, border_contact=empty,
            num_holes=ints,
        )  # fmt: skip
    starts, span = blobs.starts, blobs.bottom - blobs.top
    area = np.add.reduceat(span, starts)
    tight = np.stack(
        [
            blobs.left, np.minimum.reduceat(blobs.top, starts),
            blobs.left + blobs.widths, np.maximum.reduceat(blobs.bottom, starts),
        ], axis=1,
    ).astype(np.float64)  # fmt: skip
    inside = _pixels_inside(blobs, box_xyxy)
    box_area = (box_xyxy[:, 2] - box_xyxy[:, 0]) * (box_xyxy[:, 3] - box_xyxy[:, 1])
    return BlobSignals(
        area_px=area,
        mask_box_xyxy=tight,
        box_iou=_box_iou(tight, box_xyxy),
        outside_fraction=(area - inside) / area,
        fill_ratio=np.minimum(inside / box_area, 1.0),
        num_components=_num_components(blobs),
        border_contact=_border_contact(blobs, tight),
        # What is above or below a column's one span is not enclosed.
        num_holes=np.zeros_like(area),
    )


def _pixels_inside(blobs: Blobs, box_xyxy: Floats) -> Ints:
    """[N] pixels whose centre, at +0.5, lies in the box."""
    x0, y0, x1, y1 = np.ceil(box_xyxy - 0.5).astype(np.int64).T
    owner, column = blobs.owner, blobs.column
    rows = np.minimum(blobs.bottom, y1[owner]) - np.maximum(blobs.top, y0[owner])
    is_beside = (column < x0[owner]) | (column >= x1[owner])
    rows = np.where(is_beside, 0, np.maximum(rows, 0))
    return np.add.reduceat(rows, blobs.starts)


def _box_iou(a: Floats, b: Floats) -> Floats:
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.maximum(sides, 0.0).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - overlap
    iou: Floats = overlap / union
    return iou


def _num_components(blobs: Blobs) -> Ints:
    """[N] 8-connected parts: one more than there are neighbours whose spans do not touch."""
    is_torn = np.zeros(len(blobs.top), dtype=np.int64)
    is_torn[1:] = (blobs.top[1:] > blobs.bottom[:-1]) | (blobs.top[:-1] > blobs.bottom[1:])
    is_torn[blobs.starts] = 1
    return np.add.reduceat(is_torn, blobs.starts)


def _border_contact(blobs: Blobs, tight: Floats) -> Floats:
    height, width = blobs.size_hw.T
    owner, column, span = blobs.owner, blobs.column, blobs.bottom - blobs.top
    touches = (blobs.top == 0) * 1 + (blobs.bottom == height[owner]) * 1
    touches += np.where(column == 0, span, 0) + np.where(column == width[owner] - 1, span, 0)
    outline = 2 * (tight[:, 2] - tight[:, 0] + tight[:, 3] - tight[:, 1])
    return np.add.reduceat(touches, blobs.starts) / outline
