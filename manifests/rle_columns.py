"""Areas and boxes of whole columns of COCO RLE masks, with what is the matter with damaged ones.

What `rle.area` and `rle.box_xyxy` say of one mask, in numpy over a few hundred together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.rle_runs import Ints, Runs, characters, decode, starts_of, sum_by_mask

_CHUNK_CHARS = 1 << 16  # the arrays of one round stay in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class RleMeasures:
    """One row a mask; area and box are 0 where there is a fault.

    Attributes:
        faults: [N] places in FAULTS; 0: the mask is valid.
        area_px: [N] foreground pixels.
        box_xyxy: [N, 4] tight boxes of the foreground; zeros for an empty mask.
    """

    faults: NDArray[np.int8]
    area_px: Ints
    box_xyxy: NDArray[np.float32]


def measure(counts: pa.BinaryArray, *, heights: Ints, widths: Ints) -> RleMeasures:
    """Validity, area and box of every mask of a column without nulls.

    Args:
        counts: [N] compressed COCO counts.
        heights: [N] of the masks' images.
        widths: [N] of the masks' images.
    """
    num_masks = len(counts)
    found = RleMeasures(
        faults=np.zeros(num_masks, np.int8),
        area_px=np.zeros(num_masks, np.int64),
        box_xyxy=np.zeros((num_masks, 4), np.float32),
    )
    offsets, data = characters(counts)
    start = 0
    while start < num_masks:
        stop = int(np.searchsorted(offsets, offsets[start] + _CHUNK_CHARS, side="right")) - 1
        stop = min(max(stop, start + 1), num_masks)
        here = slice(start, stop)
        chars = data[offsets[start] : offsets[stop]]
        places = offsets[start : stop + 1] - offsets[start]
        runs = decode(chars, places, heights=heights[here], widths=widths[here])
        found.faults[here] = runs.faults
        found.area_px[here] = sum_by_mask(runs.pairs[:, 1], runs.first)
        _find_boxes(runs, heights[here], into=found.box_xyxy[here])
        start = stop
    return found


def _find_boxes(runs: Runs, heights: Ints, *, into: NDArray[np.float32]) -> None:
    """Tight boxes: a run goes down its columns, and one that is in two fills the height."""
    pairs, rows = runs.pairs, runs.rows
    sums = starts_of(pairs[:, 0] + pairs[:, 1])
    is_run = pairs[:, 1] > 0
    rows, lengths = rows[is_run], pairs[is_run, 1]
    if not len(rows):
        return
    stops = sums[1:][is_run] - sums[runs.first[rows]]
    height = heights[rows].astype(np.int64)
    left, top = _column_and_row(stops - lengths, height)
    right, bottom = _column_and_row(stops - 1, height)
    is_tall = left != right
    top[is_tall] = 0
    bottom[is_tall] = height[is_tall] - 1
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    lasts = np.append(starts[1:], len(rows)) - 1
    box = (
        left[starts], np.minimum.reduceat(top, starts),
        right[lasts] + 1, np.maximum.reduceat(bottom, starts) + 1,
    )  # fmt: skip
    into[rows[starts]] = np.stack(box, axis=1)


def _column_and_row(places: Ints, heights: Ints) -> tuple[Ints, Ints]:
    """Of pixels in column-major order. Far below 2^52 a quotient of floats is the integers'."""
    columns = (places / heights).astype(np.int64)
    return columns, places - columns * heights
