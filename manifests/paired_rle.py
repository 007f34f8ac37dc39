"""Overlaps of many pairs of masks at once: row i of a column of RLE counts with row i of another.

Whole columns are decoded with numpy, not mask by mask: foreign bytes must be checked run by run
anyhow (maskApi reads past the end of damaged ones), and numpy lets go of the GIL, which pycocotools
holds.

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

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BATCH_CHARS = 2**18  # of one column; its arrays of runs then stay in a CPU's own cache
_MAX_PIXELS = 2**32 - 1  # of an image; maskApi's runs have 32 bits
_MAX_NUMBER_CHARS = 7


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


class _DamagedError(Exception):
    """Some mask of the batch is damaged."""


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
    try:
        return _line(counts, sizes)
    except _DamagedError as error:
        row, detail = _first_damaged(counts.to_pylist(), sizes.tolist())
        raise DamagedPairError(row=rows.start + row, side=side, detail=detail) from error


def _first_damaged(counts: list[bytes], sizes_hw: list[list[int]]) -> tuple[int, str]:
    """The row of the first damaged mask of a batch that has one, and what is the matter with it."""
    for row, (one, (height, width)) in enumerate(zip(counts, sizes_hw, strict=True)):
        try:
            rle.check(one, size_hw=(height, width))
        except InputError as error:
            return row, str(error)
        if height * width > _MAX_PIXELS:
            return row, f"an image of {height} x {width} pixels is not possible"
    return 0, "a mask of this row or one of the next is damaged"


def _line(counts: pa.BinaryArray, sizes_hw: Ints) -> _Line:
    """Decodes a batch; `manifests.rle.runs_from_counts` says what the format is."""
    chars, first_char = _characters(counts)
    ends = _number_ends(chars, first_char)
    first_run = np.searchsorted(ends, first_char)
    position = np.arange(len(ends)) - np.repeat(first_run[:-1], np.diff(first_run))  # [R] in mask
    is_odd = (position & 1) == 1
    runs = _numbers(chars, ends)
    _undo_differences(runs, np.flatnonzero(is_odd), first_run)
    _undo_differences(runs, np.flatnonzero(~is_odd & (position > 0)), first_run)
    boundaries = _boundaries(runs, first_run, sizes_hw)
    return _Line(
        ends=boundaries,
        filled=np.cumsum(np.where(is_odd, runs, 0)),
        is_foreground=is_odd,
        first_run=first_run,
    )


def _characters(counts: pa.BinaryArray) -> tuple[NDArray[np.uint8], Ints]:
    """[C] values of 6 bits, and [N + 1] where each mask's begin."""
    _, offsets, data = counts.cast(pa.large_binary()).buffers()
    first = np.frombuffer(offsets, np.int64)[counts.offset : counts.offset + len(counts) + 1]
    start, stop = int(first[0]), int(first[-1])
    text = np.frombuffer(data or b"", np.uint8)[start:stop]
    chars = text - np.uint8(48)  # what is below "0" wraps round to large values
    if len(chars) and chars.max() > 63:
        raise _DamagedError
    return chars, first - start


def _number_ends(chars: NDArray[np.uint8], first_char: Ints) -> Ints:
    """[R] the last character of each number; no number may reach into the next mask."""
    is_end = chars < 32
    last_chars = first_char[1:][np.diff(first_char) > 0] - 1
    if not is_end[last_chars].all():
        raise _DamagedError
    return np.flatnonzero(is_end)


def _numbers(chars: NDArray[np.uint8], ends: Ints) -> Ints:
    """[R] two's complement of 5 bits a character, lowest first."""
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max(initial=0))
    if longest > _MAX_NUMBER_CHARS:
        raise _DamagedError
    # The last character is the highest and carries the sign.
    values = (chars[ends] & 31).astype(np.int64)
    values -= (values & 16) << 1
    for back in range(1, longest):
        longer = np.flatnonzero(lengths > back)
        values[longer] = (values[longer] << 5) | (chars[ends[longer] - back] & 31)
    return values


def _undo_differences(runs: Ints, places: Ints, first_run: Ints) -> None:
    """Running sums over every second run of each mask, in place."""
    sums = np.cumsum(runs[places])
    starts = np.searchsorted(places, first_run)  # [N + 1]
    before = np.concatenate([[0], sums])[starts[:-1]]
    runs[places] = sums - np.repeat(before, np.diff(starts))


def _boundaries(runs: Ints, first_run: Ints, sizes_hw: Ints) -> Ints:
    """[R] running sums of the runs; every mask must cover exactly its image."""
    num_pixels = sizes_hw[:, 0] * sizes_hw[:, 1]
    limits = num_pixels.min(initial=1), num_pixels.max(initial=1)
    if sizes_hw.min(initial=1) < 1 or limits[0] < 1 or limits[1] > _MAX_PIXELS:
        raise _DamagedError
    if (
        (np.diff(first_run) == 0).any()
        or runs.min(initial=0) < 0
        or runs.max(initial=0) > limits[1]
    ):
        raise _DamagedError
    boundaries: Ints = np.cumsum(runs)
    if not np.array_equal(boundaries[first_run[1:] - 1], np.cumsum(num_pixels)):
        raise _DamagedError
    return boundaries


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
