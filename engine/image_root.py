"""The folder or bucket below which a source's images lie; nothing from data leads out of it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from engine.sources.files import transport_errors
from manifests.errors import InputError

MISSING = "missing"
"""The stamp of a file that is not there."""

_DRIVE = re.compile(r"[A-Za-z]:")


class UnsafeNameError(Exception):
    """A file name that would lead out of its root, by itself or by a link."""


def is_safe_name(file_name: str) -> bool:
    """Whether a file name from data stays below its root: relative, no `..`, no scheme, no NUL."""
    parts = re.split(r"[/\\]", file_name)
    return not (
        not file_name
        or file_name.startswith(("/", "\\"))
        or _DRIVE.match(file_name)
        or "://" in file_name
        or "\0" in file_name
        or ".." in parts
        or file_name.endswith(("/", "\\"))
    )


def why_unreadable(error: Exception) -> str:
    """For the ledger's details: what is wrong, without a path, which differs between machines."""
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {reason or error}"


MAX_FILE_BYTES = 512 * 2**20
"""More is no photo; several are in memory at a time."""


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """Attributes: url: a folder, made absolute since workers may stand elsewhere, or a URL."""

    url: str

    def __post_init__(self) -> None:
        if self.url and "://" not in self.url:
            absolute = os.path.abspath(os.path.expanduser(self.url))
            object.__setattr__(self, "url", absolute)

    def check(self) -> None:
        """Raises InputError if the root is not there or cannot be reached."""
        filesystem, root = self._filesystem()
        try:
            found = filesystem.isdir(root) or filesystem.ls(root, detail=False) not in ([], [root])
        except transport_errors() as error:
            raise InputError(
                f"images at {self.url}: cannot be listed ({type(error).__name__}: {error}); "
                "check the path and the credentials"
            ) from error
        if not found:
            raise InputError(f"images at {self.url}: no such folder; give the image root")

    def read(self, file_name: str) -> bytes:
        """The bytes of an image.

        Raises:
            FileNotFoundError: it is not there.
            UnsafeNameError: the name would lead out of the root, by itself or by a link.
            OSError: it cannot be read, or is a pipe or a device, whose reading might never end.
        """
        if not is_safe_name(file_name):
            raise UnsafeNameError(f"{file_name!r} leads out of the image root")
        filesystem, root = self._filesystem()
        path = f"{root.rstrip('/')}/{file_name}"
        if "file" in filesystem.protocol:
            real_root = os.path.realpath(root)
            if os.path.commonpath([real_root, os.path.realpath(path)]) != real_root:
                raise UnsafeNameError(f"{file_name!r} is a link out of the image root")
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{file_name!r} is not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise OSError(f"{file_name!r} has {status.st_size} bytes, over {MAX_FILE_BYTES}")
            return Path(path).read_bytes()
        if "s3" not in filesystem.protocol:
            return bytes(filesystem.cat_file(path))
        data = bytes(filesystem.cat_file(path, start=0, end=MAX_FILE_BYTES + 1))
        if len(data) > MAX_FILE_BYTES:
            raise OSError(f"{file_name!r} has over {MAX_FILE_BYTES} bytes")
        return data

    def stamp(self, file_name: str) -> str | None:
        """Size and time of change of a local file; None where that would cost a request each."""
        filesystem, root = self._filesystem()
        if "file" not in filesystem.protocol:
            return None
        try:
            status = os.stat(f"{root.rstrip('/')}/{file_name}")
        except (OSError, ValueError):
            return MISSING
        return f"{status.st_size}:{status.st_mtime_ns}"

    def _filesystem(self) -> tuple[Any, str]:  # fsspec has no types
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"images at {self.url}: {error}") from error
        return filesystem, str(root)
