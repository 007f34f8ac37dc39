"""Streaming, typed reading of the arrays in one huge JSON object, such as a COCO file.

Not a library, because none of the streaming ones gives all three of typed decoding at hundreds of
MB/s, the NaN and Infinity that `json.dump` writes, and the line and column of a syntax error.

The text is cut at commas between array elements (`json_scan`), and every piece of whole elements
is decoded by msgspec in one call. A piece that does not decode is read element by element, then
with Python's json, so one odd element costs itself and not the file. Memory is a few chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from engine.sources.files import open_bytes
from engine.sources.json_scan import BorderScanner
from engine.sources.json_text import JsonTextError, JsonValue, Piece, json_values, located
from engine.sources.json_window import Window
from engine.sources.protocol import BATCH_ROWS
from manifests.errors import InputError

CHUNK_BYTES = 4 << 20
# Short arrays are common at the start of a file: a first look need not scan the whole chunk.
_FIRST_LOOK_BYTES = 64 << 10
_NAMED_KEYS = 20
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayKey:
    """One array wanted from the top-level object.

    Attributes:
        name: its key.
        element: what msgspec decodes each element to.
        coerce: makes an `element` of a JSON value that does not decode to one.
    """

    name: str
    element: type[Any]  # Any: every key has an element type of its own
    coerce: Callable[[object], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementBatch:
    """Some consecutive elements of the array `key`, of its ArrayKey's type."""

    key: str
    elements: list[Any]  # Any: every key has an element type of its own


def read_arrays(
    path: str,
    keys: Sequence[ArrayKey],
    *,
    chunk_bytes: int = CHUNK_BYTES,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[ElementBatch]:
    """The elements of every wanted array, in file order; other keys are checked and skipped.

    Raises:
        SourceSyntaxError: the file is empty, cut off, not JSON, not an object, or a wanted key
            holds no array; with line and column, columns counted in characters.
        InputError: the file cannot be read, or lacks a wanted key.
    """
    decoders = {key.name: _ArrayDecoder(key) for key in keys}
    found: list[str] = []
    with open_bytes(path) as file:
        window = Window(path, file, chunk_bytes=chunk_bytes)
        try:
            for name in _top_level_keys(window):
                found = [*found[:_NAMED_KEYS], name] if name not in found else found
                for piece in _value_pieces(window, name, batch_rows, wanted=name in decoders):
                    yield ElementBatch(key=name, elements=decoders[name].decode(piece))
        except JsonTextError as fault:
            raise located(path, fault) from fault
    _check_complete(path, expected=list(decoders), found=found)


def _top_level_keys(window: Window) -> Iterator[str]:
    """Stops the window in front of the value of each key."""
    window.open_object()
    if window.peek() == b"}":
        window.take(b"}")
    else:
        more = True
        while more:
            yield window.take_key()
            more = window.take(b",}") == b","
    window.close()


def _value_pieces(window: Window, key: str, batch_rows: int, *, wanted: bool) -> Iterator[Piece]:
    """The pieces of a wanted array; nothing for another value, which is checked and passed."""
    opener = window.peek()
    if wanted and opener != b"[":
        raise window.fault(f"'{key}' is {window.kind()}, expected an array of objects")
    if opener not in (b"[", b"{"):
        window.take_scalar()
        return
    for piece in _pieces(window, key, batch_rows):
        if wanted:
            yield piece
        else:
            _check_skipped(piece, opener)


def _pieces(window: Window, key: str, batch_rows: int) -> Iterator[Piece]:
    """The container at the window, cut into pieces of about `batch_rows` elements at most."""
    opener = window.take(b"[{")
    scanner, scanned, look_bytes, is_first = BorderScanner(), window.at, _FIRST_LOOK_BYTES, True
    while True:
        base = window.base
        count = min(look_bytes, len(window.buffer) - scanned)
        borders = scanner.scan(np.frombuffer(window.buffer, np.uint8, count, scanned))
        cuts = borders.cuts[batch_rows - 1 :: batch_rows]
        if borders.end is None:
            cuts = np.union1d(cuts, borders.cuts[-1:])
        for cut in cuts + scanned:
            yield window.take_piece(int(cut))
            is_first = False
        if borders.end is not None:
            yield from _last_piece(window, borders.end + scanned, opener, may_be_empty=is_first)
            return
        scanned, look_bytes = scanned + count, look_bytes * 2
        if scanned == len(window.buffer):
            if not window.grow():
                raise _unfinished(window, key, opener)
            scanned -= window.base - base


def _last_piece(window: Window, end: int, opener: bytes, *, may_be_empty: bool) -> Iterator[Piece]:
    closer = b"]" if opener == b"[" else b"}"
    if may_be_empty and window.is_blank(end):
        window.at = end + 1
    else:
        yield window.take_piece(end)
    if window.buffer[end : end + 1] != closer:
        raise window.fault(f"expected '{closer.decode()}' here", at=end)


def _unfinished(window: Window, key: str, opener: bytes) -> JsonTextError:
    """Why a container has no end: a fault in its last element, or the end of the file."""
    rest = window.rest()
    try:
        for _ in json_values(rest if opener == b"[" else _in_brackets(rest, b"{", b"")):
            pass
    except JsonTextError as fault:
        if not fault.at_end:
            return fault
    if window.held_bytes and window.next_chunk():
        return window.fault(f"an element of '{key}' is too long to be one; look for a lost quote")
    return window.fault(f"the file ends inside '{key}'", at=None)


def _check_skipped(piece: Piece, opener: bytes) -> None:
    """Refuses a skipped piece that is not JSON: what follows it could not be trusted."""
    members = opener == b"{"
    whole = _in_brackets(piece, *((b"{", b"}") if members else (b"[", b"]")))
    try:
        (_SKIPPED_MEMBERS if members else _SKIPPED_ELEMENTS).decode(whole.text)
    except _NOT_DECODABLE:
        for _ in json_values(whole):
            pass


def _in_brackets(piece: Piece, opener: bytes, closer: bytes) -> Piece:
    return Piece(offset=piece.offset - len(opener), text=opener + piece.text + closer)


def _check_complete(path: str, *, expected: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise InputError(
            f"{path} has no key '{missing[0]}': expected the keys {', '.join(expected)}, "
            f"found {', '.join(found) or 'none'}; check that it is a file of boxes"
        )


class _ArrayDecoder:
    """Elements of one array: as fast as they let themselves be read."""

    def __init__(self, key: ArrayKey) -> None:
        self._many = msgspec.json.Decoder(list[key.element])  # type: ignore[name-defined]
        self._one = msgspec.json.Decoder(key.element)
        self._coerce = key.coerce

    def decode(self, piece: Piece) -> list[Any]:
        """Raises JsonTextError where the piece is not JSON."""
        try:
            elements: list[Any] = self._many.decode(_in_brackets(piece, b"[", b"]").text)
        except _NOT_DECODABLE:
            return [self._decode_one(value) for value in json_values(piece)]
        return elements

    def _decode_one(self, value: JsonValue) -> Any:  # Any: the element type
        try:
            return self._one.decode(value.text)
        except _NOT_DECODABLE:
            return self._coerce(value.value)


_SKIPPED_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_SKIPPED_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
