"""Exact reading of a piece of JSON text: value by value, NaN allowed, faults with their place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.sources.files import open_bytes
from manifests.errors import SourceSyntaxError

BOM = b"\xef\xbb\xbf"
_SPACES = re.compile(r"[ \t\n\r]*")
# Python refuses to read longer integers (sys.get_int_max_str_digits), and not as a JSON error.
_MAX_INT_DIGITS = 4000
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text of whole elements, without the commas around them, and its byte offset in the file."""

    offset: int
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonValue:
    """One value, as text and as Python object."""

    text: bytes
    value: object


class JsonTextError(Exception):
    """Text that is not JSON, at a byte offset; `located` makes the user's error of it.

    `at_end` says that nothing is wrong but that the text stops.
    """

    def __init__(self, detail: str, *, offset: int, at_end: bool = False) -> None:
        super().__init__(detail)
        self.detail, self.offset, self.at_end = detail, offset, at_end


def json_values(piece: Piece) -> Iterator[JsonValue]:
    """The comma-separated values of a piece.

    Raises:
        JsonTextError: the piece is not JSON, not UTF-8, or nested too deeply.
    """
    text = _decoded(piece)
    at = _past_spaces(text, 0)
    while True:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            stops = error.pos >= len(text) or error.msg.startswith("Unterminated string")
            detail = error.msg.lower().replace("expecting value", "expected a value")
            detail = detail.replace("expecting", "expected")
            raise _fault(piece, text, error.pos, detail, at_end=stops) from error
        except RecursionError as error:
            raise _fault(piece, text, at, "nested too deeply") from error
        yield JsonValue(text=text[at:end].encode(), value=value)
        at = _past_spaces(text, end)
        if at == len(text):
            return
        if text[at] != ",":
            raise _fault(piece, text, at, f"expected ',' or the end, got {text[at]!r}")
        at = _past_spaces(text, at + 1)


def located(path: str, fault: JsonTextError) -> SourceSyntaxError:
    """The fault with line and column (in characters), found by reading the file up to it again.

    Counting lines while reading would cost every good file time for the sake of a broken one.
    """
    line, column, left = 1, 1, fault.offset
    with open_bytes(path) as file:
        while left and (chunk := file.read(min(left, _READ_BYTES))):
            if left == fault.offset and chunk.startswith(BOM):
                column = 0
            left -= len(chunk)
            line += chunk.count(b"\n")
            start = chunk.rfind(b"\n") + 1
            tail = np.frombuffer(chunk, np.uint8, offset=start) if start < len(chunk) else _NONE
            # UTF-8: every byte but 10xxxxxx begins a character.
            column = (1 if start else column) + int(np.count_nonzero((tail & 0xC0) != 0x80))
    return SourceSyntaxError(path=path, line=line, column=column, detail=fault.detail)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)
_NONE = np.empty(0, dtype=np.uint8)


def _past_spaces(text: str, at: int) -> int:
    match = _SPACES.match(text, at)
    return match.end() if match else at


def _decoded(piece: Piece) -> str:
    try:
        return piece.text.decode()
    except UnicodeDecodeError as error:
        raise JsonTextError(
            f"byte 0x{piece.text[error.start]:02x} is not UTF-8",
            offset=piece.offset + error.start,
            at_end=error.reason == "unexpected end of data",
        ) from error


def _fault(piece: Piece, text: str, at: int, detail: str, *, at_end: bool = False) -> JsonTextError:
    return JsonTextError(detail, offset=piece.offset + len(text[:at].encode()), at_end=at_end)
