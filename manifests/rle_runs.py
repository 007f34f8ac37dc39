"""Whole columns of COCO RLE masks as runs, and what is the matter with those that are damaged.

What `rle.runs_from_counts` and `rle.check` say of one mask, in numpy over a few hundred together,
so that ten million take minutes. Nothing in here can crash on foreign bytes, as maskApi does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FAULTS = (
    "",
    "has a character outside COCO's alphabet",
    "ends in the middle of a number",
    "has a number that no image needs",
    "is of an image of an impossible size",
    "has a negative run",
    "does not cover its image's pixels",
)
_SOUND, _ALPHABET, _CUT, _LONG, _IMPOSSIBLE, _NEGATIVE, _COVERAGE = range(len(FAULTS))
_MAX_NUMBER_CHARS = 7  # as in rle.runs_from_counts
_MAX_PIXELS = 2**32 - 1  # of an image: maskApi's runs have 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs of N masks, in pairs of a background and a foreground run, K pairs together.

    A mask with an odd number of runs has an empty foreground run more, so that each mask is some
    whole rows of `pairs`. Those of a mask with a fault are 0.

    Attributes:
        faults: [N] places in FAULTS; 0: the mask is valid.
        pairs: [K, 2] lengths in pixels.
        first: [N + 1] where each mask's pairs begin.
        rows: [K] the mask of each pair.
    """

    faults: NDArray[np.int8]
    pairs: Ints
    first: Ints
    rows: Ints


def characters(counts: pa.BinaryArray) -> tuple[Ints, NDArray[np.uint8]]:
    """[N + 1] where each mask's characters begin, and the characters of all; without nulls."""
    kind = np.int64 if pa.types.is_large_binary(counts.type) else np.int32
    _, offsets, data = counts.buffers()
    if offsets is None or data is None or not len(counts):
        return np.zeros(len(counts) + 1, np.int64), np.zeros(0, np.uint8)
    all_offsets = np.frombuffer(offsets, dtype=kind)
    mine = all_offsets[counts.offset : counts.offset + len(counts) + 1]
    return mine.astype(np.int64), np.frombuffer(data, dtype=np.uint8)


def decode(chars: NDArray[np.uint8], offsets: Ints, *, heights: Ints, widths: Ints) -> Runs:
    """The runs of some masks.

    Args:
        chars: [C] characters of all masks, one behind the other.
        offsets: [N + 1] where each mask's begin, from 0.
        heights, widths: [N] of the masks' images.
    """
    return _Decoder(offsets, heights, widths).decode(chars)


def starts_of(values: NDArray[Any]) -> Ints:  # Any: numbers or booleans
    """[n + 1] where each begins if they are laid out one behind the other."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def sum_by_mask(values: NDArray[Any], first: Ints) -> Ints:  # Any: numbers or booleans
    """[N] sums of what belongs to each mask, 0 for one without anything."""
    sums = starts_of(values)
    of_masks: Ints = sums[first[1:]] - sums[first[:-1]]
    return of_masks


class _Decoder:
    """Legend: N masks, C characters, M numbers of them, K pairs of numbers."""

    def __init__(self, offsets: Ints, heights: Ints, widths: Ints) -> None:
        self._offsets = offsets  # [N + 1]
        self._heights = heights.astype(np.int64)
        self._num_pixels = self._heights * widths.astype(np.int64)
        self._faults = np.zeros(len(offsets) - 1, np.int8)

    def decode(self, chars: NDArray[np.uint8]) -> Runs:
        """See `decode`."""
        is_impossible = (self._heights < 1) | (self._num_pixels < 1)
        self._blame(is_impossible | (self._num_pixels > _MAX_PIXELS), _IMPOSSIBLE)
        bits = chars - np.uint8(48)  # those below "0" wrap round to large ones
        ends, sizes = self._numbers(bits)
        written = _values(bits, ends)
        first = starts_of((sizes + 1) // 2)
        rows = np.repeat(np.arange(len(sizes)), np.diff(first))
        pairs = _paired(written, sizes, first)
        self._clear_faulty(pairs, rows)
        _undo_differences(pairs, sizes, first, rows)
        self._check_runs(pairs, first, rows)
        return Runs(faults=self._faults, pairs=pairs, first=first, rows=rows)

    def _numbers(self, bits: NDArray[np.uint8]) -> tuple[Ints, Ints]:
        """[M] where each number ends, and [N] how many each mask has."""
        offsets, not_empty = self._offsets, np.flatnonzero(np.diff(self._offsets))
        is_bad = bits >= 64
        if is_bad.any():
            self._blame(sum_by_mask(is_bad, offsets) > 0, _ALPHABET)
        is_last = (bits & 0x20) == 0
        ends_of_masks = offsets[not_empty + 1] - 1
        is_cut = np.zeros(len(self._faults), bool)
        is_cut[not_empty] = ~is_last[ends_of_masks]
        self._blame(is_cut, _CUT)
        is_last[ends_of_masks] = True  # no number may reach into the next mask
        ends = np.flatnonzero(is_last)
        first = np.searchsorted(ends, offsets)
        is_long = np.diff(ends, prepend=-1) > _MAX_NUMBER_CHARS
        if is_long.any():
            self._blame(sum_by_mask(is_long, first) > 0, _LONG)
        return ends, np.diff(first)

    def _check_runs(self, pairs: Ints, first: Ints, rows: Ints) -> None:
        """The runs of a mask with a fault become 0."""
        if pairs.min(initial=0) < 0:
            self._blame(sum_by_mask(np.any(pairs < 0, axis=1), first) > 0, _NEGATIVE)
        # The longest run first: a sum of absurd runs could wrap round to the right one.
        if pairs.max(initial=0) > self._num_pixels.min(initial=_MAX_PIXELS):
            is_too_long = np.any(pairs > self._num_pixels[rows, None], axis=1)
            self._blame(sum_by_mask(is_too_long, first) > 0, _COVERAGE)
        self._clear_faulty(pairs, rows)
        covered = sum_by_mask(pairs[:, 0] + pairs[:, 1], first)
        self._blame(covered != self._num_pixels, _COVERAGE)
        self._clear_faulty(pairs, rows)

    def _clear_faulty(self, pairs: Ints, rows: Ints) -> None:
        is_faulty = self._faults != _SOUND
        if is_faulty.any():
            pairs[is_faulty[rows]] = 0

    def _blame(self, is_faulty: Bools, fault: int) -> None:
        """The first fault of a mask is the one that is told."""
        self._faults[is_faulty & (self._faults == _SOUND)] = fault


def _values(bits: NDArray[np.uint8], ends: Ints) -> Ints:
    """[M] numbers as they are written: 5 bits a character, lowest first, two's complement."""
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    values = (bits[starts] & 0x1F).astype(np.int64)
    longer = np.flatnonzero(lengths > 1)
    for place in range(1, _MAX_NUMBER_CHARS):
        values[longer] |= (bits[starts[longer] + place] & 0x1F).astype(np.int64) << 5 * place
        longer = longer[lengths[longer] > place + 1]
    is_negative = np.flatnonzero(bits[ends] & 0x10)
    values[is_negative] -= np.int64(1) << 5 * np.minimum(lengths[is_negative], _MAX_NUMBER_CHARS)
    return values


def _paired(values: Ints, sizes: Ints, first: Ints) -> Ints:
    """[K, 2] the numbers of every mask, from an even place on."""
    pairs = np.zeros(2 * int(first[-1]), np.int64)
    shifts = 2 * first[:-1] - starts_of(sizes)[:-1]
    pairs[np.arange(len(values)) + np.repeat(shifts, sizes)] = values
    return pairs.reshape(-1, 2)


def _undo_differences(pairs: Ints, sizes: Ints, first: Ints, rows: Ints) -> None:
    """From a mask's fourth number on, each is written as the difference to the last but one:
    foreground runs are one running sum, and background runs but the very first another."""
    starts = first[:-1][sizes > 0]
    first_runs = pairs[starts, 0]
    pairs[starts, 0] = 0
    for side in (0, 1):
        sums = starts_of(pairs[:, side])
        np.subtract(sums[1:], sums[first[:-1]][rows], out=pairs[:, side])
    pairs[starts, 0] = first_runs
    pairs[first[1:][sizes % 2 == 1] - 1, 1] = 0  # the run that makes an odd number of them even
