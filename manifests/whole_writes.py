"""Writes that appear whole or not at all, and the one that fails if the name is taken."""

from __future__ import annotations

import io
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.file_system import http_status

_COPY_BYTES = 8 * 2**20
_REFUSED_BECAUSE_TAKEN = (409, 412)
_memory_lock = threading.Lock()


def create_if_absent(files: Any, protocol: str, path: str, data: bytes) -> bool:
    """Writes to an unused path; False, and nothing done, if it is in use.

    Args:
        files: an fsspec file system, which is untyped.
        protocol: what kind it is; the way to be exclusive differs, and is the only thing that does.
        path: inside that file system.
        data: small enough for a single request.

    Raises:
        OSError: whatever the file system says.
    """
    return _WAYS.get(protocol, _create_by_put)(files, path, data)


def write_local(path: str, source: bytes | Path, *, exclusive: bool) -> bool:
    """A finished, synced temporary file is linked (fails if taken) or renamed into place."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        _copy_and_sync(source, temporary)
        if not exclusive:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _copy_and_sync(source: bytes | Path, to: str) -> None:
    opened = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with opened, open(to, "xb") as target:
        shutil.copyfileobj(opened, target, _COPY_BYTES)
        target.flush()
        os.fsync(target.fileno())


def _create_local(files: Any, path: str, data: bytes) -> bool:
    return write_local(path, data, exclusive=True)


def _create_in_memory(files: Any, path: str, data: bytes) -> bool:
    with _memory_lock:
        if files.exists(path):
            return False
        files.pipe_file(path, data)
        return True


def _create_by_put(files: Any, path: str, data: bytes) -> bool:
    """One single-part PUT with `If-None-Match: *`; losers get FileExistsError or a bare 412.

    AWS answers 409 while another conditional write to that name is under way.
    """
    try:
        files.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if http_status(error) in _REFUSED_BECAUSE_TAKEN:
            return False
        raise
    return True


_WAYS: dict[str, Callable[[Any, str, bytes], bool]] = {
    "file": _create_local,
    "memory": _create_in_memory,
}
