"""Opening and listing annotation files through fsspec, with one error for all that can go wrong."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import fsspec

from manifests.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif", ".avif", ".heic"}
)
_FILES_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """A small file's content, empty where `is_missing`, or in `problem` why it is unreadable."""

    name: str
    text: bytes = b""
    is_missing: bool = False
    problem: str | None = None


class Folder:
    """A folder anywhere fsspec reaches; names in and out are relative to it, with `/`.

    Raises:
        InputError: there is no such folder, or it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        try:
            self._filesystem, self.path = fsspec.core.url_to_fs(self.url)
            present = self._filesystem.isdir(self.path)
        except transport_errors() as error:
            raise _unreachable(url, error) from error
        if not present:
            raise InputError(
                f"no folder at {url}: expected a folder with the dataset; check path and spelling"
            )

    def has(self, name: str) -> bool:
        """Whether a file or folder of that name exists."""
        return bool(self._filesystem.exists(self._inside(name)))

    def has_folder(self, name: str) -> bool:
        """Whether a folder of that name exists."""
        return bool(self._filesystem.isdir(self._inside(name)))

    def url_of(self, name: str) -> str:
        """The fsspec URL of one name."""
        return str(self._filesystem.unstrip_protocol(self._inside(name)))

    def names(self, suffixes: Iterable[str], *, below: str = "") -> list[str]:
        """Sorted names of all files, at any depth under `below`, with one of the suffixes."""
        wanted = tuple(suffixes)
        try:
            found = self._filesystem.find(self._inside(below))
        except transport_errors() as error:
            raise _unreachable(self.url, error) from error
        start = len(self.path.rstrip("/")) + 1
        names = (path[start:] for path in found if path.lower().endswith(wanted))
        # A name that is not UTF-8 has no place in a table: spelled out, it is missing and counted.
        return sorted(name.encode(errors="backslashreplace").decode() for name in names)

    def read(self, names: Iterable[str]) -> Iterator[FileText]:
        """The files in the order of `names`, fetched some hundreds at a time."""
        group: list[str] = []
        for name in names:
            group.append(name)
            if len(group) == _FILES_AT_ONCE:
                yield from self._read_group(group)
                group = []
        if group:
            yield from self._read_group(group)

    def _read_group(self, names: list[str]) -> Iterator[FileText]:
        paths = [self._inside(name) for name in names]
        endless = {path for path in paths if self._is_local and _is_endless(path)}
        wanted = [path for path in paths if path not in endless]
        found = self._filesystem.cat(wanted, recursive=False, on_error="return") if wanted else {}
        # One path alone comes back as bare bytes from some filesystems.
        texts = found if isinstance(found, dict) else {wanted[0]: found}
        for name, path in zip(names, paths, strict=True):
            odd = OSError("not a regular file") if path in endless else None
            yield _file_text(name, odd or texts.get(path))

    @property
    def _is_local(self) -> bool:
        return "file" in self._filesystem.protocol

    def _inside(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}" if name else self.path


def _is_endless(path: str) -> bool:
    """A pipe or a device, whose reading might never end."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _file_text(name: str, found: object) -> FileText:
    if isinstance(found, bytes):
        return FileText(name=name, text=found)
    if found is None or isinstance(found, FileNotFoundError | NotADirectoryError):
        return FileText(name=name, is_missing=True)
    return FileText(name=name, problem=str(found) or type(found).__name__)


@contextmanager
def open_bytes(url: str, *, compression: str | None = "infer") -> Iterator[BinaryIO]:
    """A file opened for reading, decompressed where its suffix says so, or as it is for None.

    Raises:
        InputError: it does not exist, is a folder, or cannot be reached.
    """
    try:
        opened = fsspec.open(url, "rb", compression=compression).open()
    except transport_errors() as error:
        raise _unreachable(url, error) from error
    with opened as file:
        yield file


def transport_errors() -> tuple[type[BaseException], ...]:
    """What fsspec's filesystems raise for a bad URL or an unreachable file.

    botocore's own errors are no OSError; its module is looked up, never imported, since it is
    loaded whenever one of its errors can have been raised.
    """
    botocore = sys.modules.get("botocore.exceptions")
    extra = (botocore.BotoCoreError,) if botocore else ()
    return (OSError, ValueError, ImportError, *extra)


def read_errors() -> tuple[type[BaseException], ...]:
    """What reading on can raise besides: compressed data that are cut off or damaged."""
    return (EOFError, zlib.error, *transport_errors())


def _unreachable(url: str, error: BaseException) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"no file at {url}: expected a readable file; check path and spelling")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{url} is a folder: expected a file; name the file inside it")
    reason = str(error) or type(error).__name__
    return InputError(f"cannot open {url}: expected a readable file, got '{reason}'; check access")
