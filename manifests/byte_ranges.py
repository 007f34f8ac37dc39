"""A file of which only some ranges are fetched: its end, and the pieces that are wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

_FOOTER_GUESS = 64 * 2**10
_MAGIC = b"PAR1"
# Two ranges closer than this are cheaper as one request.
_GAP_BYTES = 256 * 2**10

ReadRange = Callable[[int, int], bytes]
"""(start, number of bytes) -> those bytes."""


def parquet_tail(read_range: ReadRange, num_bytes: int) -> tuple[int, bytes, bytes]:
    """Where the last bytes begin, these bytes, and the footer that they hold."""
    start = max(0, num_bytes - _FOOTER_GUESS)
    tail = read_range(start, num_bytes - start)
    if tail[-4:] != _MAGIC or len(tail) < 12:
        raise pa.ArrowInvalid("it does not end as Parquet does")
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > num_bytes:
        raise pa.ArrowInvalid("its footer is longer than the file")
    if needed > len(tail):
        start = num_bytes - needed
        tail = read_range(start, needed)
    return start, tail, tail[-needed:]


def coalesced(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same bytes and small gaps between them, in fewer spans."""
    begin = end = -1
    for start, stop in sorted(spans):
        if begin < 0:
            begin, end = start, stop
        elif start - end <= _GAP_BYTES:
            end = max(end, stop)
        else:
            yield begin, end
            begin, end = start, stop
    if begin >= 0:
        yield begin, end


class SparseFile(io.RawIOBase):
    """A file of which only some pieces are known: start -> bytes."""

    def __init__(self, pieces: dict[int, bytes], num_bytes: int) -> None:
        self._pieces, self._num_bytes, self._at = pieces, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1, /) -> memoryview:
        """The bytes at the position. Raises OSError where nothing is known."""
        stop = self._num_bytes if size < 0 else min(self._at + size, self._num_bytes)
        found = self.between(self._at, stop)
        self._at = stop
        return found

    def between(self, start: int, stop: int) -> memoryview:
        """The bytes [start, stop). Raises OSError where nothing is known."""
        for begin, piece in self._pieces.items():
            if begin <= start and stop <= begin + len(piece):
                return memoryview(piece)[start - begin : stop - begin]
        raise OSError(f"nothing is known of bytes {start} to {stop}")
