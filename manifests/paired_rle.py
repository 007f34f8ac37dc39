"""Overlaps of many pairs of masks at once: row i of a column of RLE counts with row i of another.

Whole columns are decoded with numpy (manifests.rle_runs), which lets go of the GIL; pycocotools
holds it, mask by mask.

All masks of a batch lie one after the other on one long line of pixels. A boundary is the place on
it where a run ends. Legend: N masks, C characters, R runs of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import rle
from manifests.errors import InputError
from manifests.rle_runs import FAULTS, Bools, Ints, Runs, characters, decode

_BATCH_CHARS = 2**17  # of one column; its arrays of runs then stay in a CPU's own cache


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAreas:
    """[N] pixels that both masks of a pair have, and that at least one has."""

    intersection: Ints
    union: Ints

    @property
    def iou(self) -> NDArray[np.float64]:
        """[N] in [0, 1]; 0 where both are empty."""
        iou: NDArray[np.float64] = self.intersection / np.maximum(self.union, 1)
        return iou


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The runs of a batch's masks on one line.

    Attributes:
        ends: [R] boundary behind each run.
        filled: [R] foreground pixels before that boundary.
        is_foreground: [R] of each run.
        first_run: [N + 1] where each mask's runs begin.
    """

    ends: Ints
    filled: Ints
    is_foreground: Bools
    first_run: Ints


class DamagedPairError(InputError):
    """A mask of a pair is damaged: `row` of the column, `side` "before" or "after", `detail`."""

    def __init__(self, *, row: int, side: str, detail: str) -> None:
        super().__init__(f"row {row}, {side}: {detail}")
        self.row, self.side, self.detail = row, side, detail


def paired_areas(before: pa.ChunkedArray, after: pa.ChunkedArray, *, sizes_hw: Ints) -> PairedAreas:
    """Intersection and union of every pair.

    Args:
        before, after: [N] COCO RLE counts, without nulls.
        sizes_hw: [N, 2] height and width of each pair's image.

    Raises:
        DamagedPairError: a mask is damaged, or belongs to an image of another size; an InputError.
    """
    nothing = np.zeros(0, dtype=np.int64)
    intersections, unions = [nothing], [nothing]
    for rows in _batches(before, after):
        a = _checked_line(before, rows, sizes_hw, side="before")
        b = _checked_line(after, rows, sizes_hw, side="after")
        shared = _sums(np.diff(_filled_at(a, b.ends), prepend=0), b)
        intersections.append(shared)
        unions.append(_areas(a) + _areas(b) - shared)
    return PairedAreas(intersection=np.concatenate(intersections), union=np.concatenate(unions))


def _batches(before: pa.ChunkedArray, after: pa.ChunkedArray) -> Iterator[slice]:
    """Slices of rows with about _BATCH_CHARS characters in the longer column."""
    chars = pc.max_element_wise(pc.binary_length(before), pc.binary_length(after))
    upto = np.cumsum(chars.to_numpy(), dtype=np.int64)
    start = 0
    while start < len(upto):
        done = upto[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(upto, done + _BATCH_CHARS, side="right")))
        yield slice(start, stop)
        start = stop


def _checked_line(column: pa.ChunkedArray, rows: slice, sizes_hw: Ints, *, side: str) -> _Line:
    counts = column.slice(rows.start, rows.stop - rows.start).combine_chunks()
    sizes = sizes_hw[rows]
    offsets, data = characters(counts)
    chars = data[offsets[0] : offsets[-1]]
    runs = decode(chars, offsets - offsets[0], heights=sizes[:, 0], widths=sizes[:, 1])
    if runs.faults.any():
        row = int(np.flatnonzero(runs.faults)[0])
        detail = _detail(counts[row].as_py(), sizes[row].tolist(), FAULTS[runs.faults[row]])
        raise DamagedPairError(row=rows.start + row, side=side, detail=detail)
    return _line(runs)


def _detail(counts: bytes, size_hw: list[int], fault: str) -> str:
    """What the check of a single mask says, with its numbers; it does not know all faults."""
    try:
        rle.check(counts, size_hw=(size_hw[0], size_hw[1]))
    except InputError as error:
        return str(error)
    return f"mask RLE {fault}, {size_hw[0]} x {size_hw[1]}"


def _line(runs: Runs) -> _Line:
    lengths = runs.pairs.reshape(-1)
    is_foreground = (np.arange(len(lengths)) & 1) == 1
    return _Line(
        ends=np.cumsum(lengths),
        filled=np.cumsum(np.where(is_foreground, lengths, 0)),
        is_foreground=is_foreground,
        first_run=2 * runs.first,
    )


def _areas(line: _Line) -> Ints:
    return np.diff(line.filled[line.first_run[1:] - 1], prepend=0)


def _filled_at(line: _Line, places: Ints) -> Ints:
    """Foreground pixels of a line before each of the given places, which are sorted."""
    run = np.searchsorted(line.ends, places)  # the run that the pixel before a place is in
    beyond = np.where(line.is_foreground[run], line.ends[run] - places, 0)
    filled: Ints = line.filled[run] - beyond
    return filled


def _sums(values: Ints, line: _Line) -> Ints:
    """[N] of a value a run, over each mask's foreground runs."""
    return np.add.reduceat(np.where(line.is_foreground, values, 0), line.first_run[:-1])
