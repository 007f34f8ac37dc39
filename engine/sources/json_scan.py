"""Finding element borders in a stretch of JSON text with whole-array numpy operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_QUOTE, _BACKSLASH, _COMMA = 0x22, 0x5C, 0x2C
# `[` and `{` differ in one bit only, and so do `]` and `}`.
_CASE_BIT, _OPEN, _CLOSE = 0x20, 0x7B, 0x7D

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """What one stretch of text holds; positions count from its first byte.

    Attributes:
        cuts: commas between elements; perhaps not every one, but all are such commas.
        end: the bracket that closes the container, or None.
    """

    cuts: Positions
    end: int | None


class BorderScanner:
    """Reads the inside of one JSON container, stretch by stretch of any length.

    Only strings and nesting are followed. Whether the text between two borders is JSON is for a
    decoder to say; text that is not can shift later borders, so it must be decoded first.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def scan(self, data: NDArray[np.uint8]) -> Borders:
        """Borders in the next stretch, `[N]` bytes."""
        folded = data | _CASE_BIT
        marks = (folded == _OPEN) | (folded == _CLOSE) | (data == _QUOTE)
        marks[self._escaped_positions(data)] = False
        at = np.flatnonzero(marks)
        is_quote = data[at] == _QUOTE
        # uint8 wraps at 256, which keeps the parity.
        inside = (np.cumsum(is_quote, dtype=np.uint8) + np.uint8(self._in_string)) & 1
        brackets = at[~is_quote & (inside == 0)]
        opens = (data[brackets] | _CASE_BIT) == _OPEN
        depths = np.cumsum(np.where(opens, 1, -1), dtype=np.int64) + self._depth

        below = np.flatnonzero(depths < 0)
        end = int(brackets[below[0]]) if below.size else None
        cuts = _commas_after_closing(data, brackets[~opens & (depths == 0)])
        if end is None and not cuts.size:
            cuts = self._all_commas(data, quotes=at[is_quote], brackets=brackets, depths=depths)
        if end is not None:
            cuts = cuts[cuts < end]
        self._depth = int(depths[-1]) if depths.size else self._depth
        self._in_string = bool(inside[-1]) if inside.size else self._in_string
        return Borders(cuts=cuts, end=end)

    def _escaped_positions(self, data: NDArray[np.uint8]) -> Positions:
        """Positions of the characters that an odd run of backslashes comes before."""
        slashes = np.flatnonzero(data == _BACKSLASH)
        pending, self._escaped = self._escaped, False
        first = np.zeros(1 if pending and not (data[:1] == _BACKSLASH).any() else 0, dtype=np.int64)
        if not slashes.size:
            return first[: data.size]
        breaks = np.flatnonzero(np.diff(slashes) != 1)
        starts = slashes[np.concatenate([[0], breaks + 1])]
        ends = slashes[np.concatenate([breaks, [slashes.size - 1]])]
        lengths = ends - starts + 1
        lengths[0] += pending and starts[0] == 0
        after = ends[lengths % 2 == 1] + 1
        self._escaped = bool(after.size) and int(after[-1]) == data.size
        return np.concatenate([first, after[: after.size - self._escaped]])

    def _all_commas(
        self,
        data: NDArray[np.uint8],
        *,
        quotes: Positions,
        brackets: Positions,
        depths: Positions,
    ) -> Positions:
        """The slow, complete way: for elements without brackets, or with space before a comma."""
        commas = np.flatnonzero(data == _COMMA)
        in_string = (np.searchsorted(quotes, commas) + self._in_string) % 2 == 1
        depth = np.concatenate([[self._depth], depths])[np.searchsorted(brackets, commas)]
        between: Positions = commas[~in_string & (depth == 0)]
        return between


def _commas_after_closing(data: NDArray[np.uint8], closings: Positions) -> Positions:
    """Commas directly behind the bracket that ends an element, which is how writers put them."""
    following = closings + 1
    following = following[following < data.size]
    commas: Positions = following[data[following] == _COMMA]
    return commas
