"""Label Studio's run-length format for its brush: a bit stream over RGBA values, row by row.

Header: 32 bits number of values, 5 bits word size - 1, four times 4 bits: widths - 1 of a length.
Then blocks: 1 bit "a run", 2 bits which of the four widths, that many bits length - 1, then one
word for a run or a word for each value. It is rle-pack of thi.ng/umbrella; the fourth value of each
pixel is opacity, and what is not transparent is mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError

_WORD_BITS = 8
_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4
_OPAQUE = 255


def to_brush_rle(mask: NDArray[np.uint8]) -> list[int]:
    """Bytes, as a list of integers, for an [H, W] mask of 0 and 1."""
    values = np.asarray(mask, dtype=np.uint8).ravel()
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 1))
    lengths = np.diff(starts, append=values.size) * _CHANNELS
    bits = [f"{values.size * _CHANNELS:032b}", f"{_WORD_BITS - 1:05b}"]
    bits += [f"{width - 1:04b}" for width in _WIDTHS]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _blocks(length, _OPAQUE if values[start] else 0)
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode(), dtype=np.uint8) - ord("0"))
    whole: list[int] = packed.tolist()
    return whole


def _blocks(length: int, value: int) -> Iterator[str]:
    """A run, in pieces that the widest length can say."""
    while length:
        piece = min(length, 2 ** _WIDTHS[-1])
        which = next(n for n, width in enumerate(_WIDTHS) if piece <= 2**width)
        yield f"1{which:02b}{piece - 1:0{_WIDTHS[which]}b}{value:0{_WORD_BITS}b}"
        length -= piece


def from_brush_rle(brush: object, *, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W] of 0 and 1: the pixels that are not transparent.

    Raises:
        InputError: it is no such list, ends early, or is of another size.
    """
    is_bytes = isinstance(brush, list) and all(type(n) is int and 0 <= n < 256 for n in brush)
    if not is_bytes:
        raise InputError("brush RLE: expected a list of integers from 0 to 255")
    reader = _Bits(np.unpackbits(np.array(brush, dtype=np.uint8)))
    size, word = reader.number(32), reader.number(5) + 1
    widths = [reader.number(4) + 1 for _ in range(4)]
    expected = size_hw[0] * size_hw[1] * _CHANNELS
    if size != expected:
        raise InputError(
            f"brush RLE: expected {expected} values for {size_hw[0]} x {size_hw[1]} pixels, got "
            f"{size}; it belongs to an image of another size"
        )
    values = np.zeros(size, dtype=np.uint32)
    done = 0
    while done < size:
        is_run = reader.number(1)
        end = done + reader.number(widths[reader.number(2)]) + 1
        if end > size:
            raise InputError("brush RLE: it goes on beyond the image's end; the mask is damaged")
        values[done:end] = reader.words(1 if is_run else end - done, word)
        done = end
    opacity = values.reshape(*size_hw, _CHANNELS)[:, :, _CHANNELS - 1]
    return (opacity > 0).astype(np.uint8)


class _Bits:
    """A stream of bits that knows where it is."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits, self._at = bits, 0

    def number(self, width: int) -> int:
        """The next `width` bits, highest first."""
        return int(self.words(1, width)[0])

    def words(self, count: int, width: int) -> NDArray[np.uint32]:
        """[count] numbers of `width` bits each."""
        end = self._at + count * width
        if end > self._bits.size:
            raise InputError("brush RLE: it ends early; the mask is damaged")
        block = self._bits[self._at : end].reshape(count, width).astype(np.uint32)
        self._at = end
        numbers: NDArray[np.uint32] = block @ (1 << np.arange(width - 1, -1, -1, dtype=np.uint32))
        return numbers
