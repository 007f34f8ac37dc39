"""The stretch of a JSON file that is in memory, and the few tokens read one at a time."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import BinaryIO

from engine.sources.files import transport_errors
from engine.sources.json_text import BOM, JsonTextError, Piece, json_values
from manifests.errors import InputError

MAX_ELEMENT_BYTES = 64 << 20
"""A longer element is an error: it would mean a lost quote, and must not fill the memory."""

_SPACE = b" \t\n\r"
_PEEK_BYTES = 64
_KINDS = {b"{": "an object", b"[": "an array", b'"': "a string", b"": "the end of the file"}
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LITERAL = re.compile(rb"[^\s,\]}]+")


class Window:
    """`buffer` starts at the file's byte `base` and has been read up to `at`."""

    def __init__(self, path: str, file: BinaryIO, *, chunk_bytes: int) -> None:
        self.path, self.buffer, self.at, self.base = path, b"", 0, 0
        self._file, self._chunk_bytes = file, chunk_bytes

    @property
    def held_bytes(self) -> int:
        """What is in memory and not read yet."""
        return len(self.buffer) - self.at

    def grow(self) -> bool:
        """Drops what was read and appends the next chunk.

        Returns:
            False at the end of the file, or when an element has become too long to go on.
        """
        if self.held_bytes > MAX_ELEMENT_BYTES:
            return False
        chunk = self.next_chunk()
        if chunk:
            self.base += self.at
            self.buffer, self.at = self.buffer[self.at :] + chunk, 0
        return bool(chunk)

    def next_chunk(self) -> bytes:
        """The file's next bytes, which are not kept."""
        try:
            return self._file.read(self._chunk_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.fault(f"the compressed data are damaged ({error})", at=None) from error
        except transport_errors() as error:
            raise InputError(
                f"reading {self.path} stopped at byte {self.base + len(self.buffer)}: "
                f"expected more data, got '{error}'; check access and run again"
            ) from error

    def peek(self) -> bytes:
        """The next byte that is not white space; empty at the end of the file."""
        while True:
            ahead = self.buffer[self.at : self.at + _PEEK_BYTES]
            rest = ahead.lstrip(_SPACE)
            self.at += len(ahead) - len(rest)
            if rest:
                return rest[:1]
            if self.at == len(self.buffer) and not self.grow():
                return b""

    def kind(self) -> str:
        """What comes next, for a message."""
        byte = self.peek()
        return _KINDS.get(byte, f"'{byte.decode('ascii', 'backslashreplace')}'")

    def take(self, allowed: bytes) -> bytes:
        """The next byte that is not white space, which must be one of `allowed`."""
        byte = self.peek()
        if not byte or byte not in allowed:
            choice = " or ".join(f"'{char}'" for char in allowed.decode())
            raise self.fault(f"expected {choice}, got {self.kind()}")
        self.at += 1
        return byte

    def open_object(self) -> None:
        """Passes over the byte order mark and the bracket of the top-level object."""
        while len(self.buffer) < len(BOM) and self.grow():
            pass
        if self.buffer.startswith(BOM):
            self.at = len(BOM)
        if not self.peek():
            raise self.fault("the file is empty, expected a JSON object")
        if self.peek() != b"{":
            raise self.fault(f"expected a JSON object in UTF-8, got {self.kind()}")
        self.at += 1

    def take_key(self) -> str:
        """The next key of an object, and the colon behind it."""
        if self.peek() != b'"':
            raise self.fault(f"expected a key in double quotes, got {self.kind()}")
        key = str(self.take_scalar())
        self.take(b":")
        return key

    def take_scalar(self) -> object:
        """The next string, number or literal."""
        is_string = self.peek() == b'"'
        pattern = _STRING if is_string else _LITERAL
        while True:
            match = pattern.match(self.buffer, self.at)
            # A literal that touches the end of the buffer may go on behind it.
            finished = match is not None and (is_string or match.end() < len(self.buffer))
            if finished or not self.grow():
                break
        if match is None:
            raise self.fault("expected a value", at=None if is_string else self.at)
        piece = Piece(offset=self.base + self.at, text=match.group())
        self.at = match.end()
        (scalar,) = json_values(piece)
        return scalar.value

    def take_piece(self, end: int) -> Piece:
        """What lies before `end`; the comma or bracket at `end` is passed over."""
        piece = Piece(offset=self.base + self.at, text=self.buffer[self.at : end])
        if not piece.text.strip(_SPACE):
            raise self.fault("expected a value", at=end)
        self.at = end + 1
        return piece

    def is_blank(self, end: int) -> bool:
        """Whether only white space lies before `end`."""
        return not self.buffer[self.at : end].strip(_SPACE)

    def rest(self) -> Piece:
        """All that is in memory and not read yet."""
        return Piece(offset=self.base + self.at, text=self.buffer[self.at :])

    def close(self) -> None:
        """Checks that the file ends here."""
        if self.peek():
            raise self.fault(f"expected the end of the file, got {self.kind()}")

    def fault(self, detail: str, at: int | None = -1) -> JsonTextError:
        """A fault at the next byte, at an index of the buffer, or (None) at the buffer's end."""
        index = len(self.buffer) if at is None else self.at if at < 0 else at
        return JsonTextError(detail, offset=self.base + index)
