"""One object from one store to another, checked against its name on the way.

An object of any size takes little memory: what is large goes through a file. Into a folder it is
written beside its place and renamed; on object stores it appears when its last part is there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback

from manifests import layout
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.store import Store, explained

SMALL_BYTES = 8 * 2**20
_CHUNK_BYTES = 4 * 2**20
# s3fs would hold ten parts of 50 MiB, for each file that is under way.
_UPLOADS: dict[str, dict[str, int]] = {"s3": {"chunksize": 8 * 2**20, "max_concurrency": 2}}

OnBytes = Callable[[int], None]
"""Told how many bytes have arrived since it was last told."""


def copy_object(
    source: Store, target: Store, object_id: str, *, num_bytes: int, on_bytes: OnBytes
) -> None:
    """Copies an object that the target lacks.

    Args:
        num_bytes: its size, which decides the way it takes.

    Raises:
        ObjectMissingError: the source does not have it.
        ObjectDamagedError: the source's bytes do not hash to its name; the target gets nothing.
        StoreError: one of them cannot be reached, or the target is full or refuses.
    """
    if num_bytes <= SMALL_BYTES:
        on_bytes(target.put_bytes(source.get_bytes(object_id)).num_bytes)
    elif target.protocol == "file":
        _copy_into_folder(source, target, object_id, on_bytes)
    elif source.protocol == "file":
        path = Path(source.root, layout.object_path(object_id))
        _read_checked(source, object_id, lambda chunk: None)
        _upload(target, path, object_id, on_bytes)
    else:
        with _temporary_file() as path:
            _download(source, path, object_id, lambda count: None)
            _upload(target, path, object_id, on_bytes)


def _copy_into_folder(source: Store, target: Store, object_id: str, on_bytes: OnBytes) -> None:
    final = Path(target.root, layout.object_path(object_id))
    temporary = final.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with explained(target.url, target.protocol):
            final.parent.mkdir(parents=True, exist_ok=True)
        _download(source, temporary, object_id, on_bytes, owner=target)
        with explained(target.url, target.protocol):
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _download(
    source: Store, path: Path, object_id: str, on_bytes: OnBytes, *, owner: Store | None = None
) -> None:
    """Into a new file, synced; `owner` is the store the file belongs to, if it does to one."""
    url = owner.url if owner else str(path.parent)
    with explained(url, "file"):
        file = path.open("xb")
    with file:

        def write(chunk: bytes) -> None:
            with explained(url, "file"):
                file.write(chunk)
            on_bytes(len(chunk))

        _read_checked(source, object_id, write)
        with explained(url, "file"):
            file.flush()
            os.fsync(file.fileno())


def _read_checked(source: Store, object_id: str, take: Callable[[bytes], None]) -> None:
    """Hands on the bytes and raises at the end if they were not the object's."""
    hasher, num_bytes = hashlib.sha256(), 0
    for chunk in _chunks(source, object_id):
        hasher.update(chunk)
        num_bytes += len(chunk)
        take(chunk)
    if hasher.hexdigest() != object_id:
        raise ObjectDamagedError(
            f"object {object_id[:12]} in {source.url} is damaged: its {num_bytes} bytes do not "
            "hash to its name; restore it from a copy"
        )


def _chunks(source: Store, object_id: str) -> Iterator[bytes]:
    try:
        file = source.open_object(object_id)
    except ObjectMissingError as error:
        raise ObjectMissingError(
            f"object {object_id[:12]} is missing in {source.url}; restore it from a copy"
        ) from error
    with file:
        while True:
            with explained(source.url, source.protocol):
                chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


def _upload(target: Store, path: Path, object_id: str, on_bytes: OnBytes) -> None:
    to = f"{target.root}/{layout.object_path(object_id)}"
    options: dict[str, Any] = dict(_UPLOADS.get(target.protocol, {}))  # Any: options of fsspec
    with explained(target.url, target.protocol):
        target.fs.put_file(str(path), to, callback=_Told(on_bytes), **options)


@contextmanager
def _temporary_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="maskmill-transfer-") as folder:
        yield Path(folder) / "object"


class _Told(Callback):  # type: ignore[misc]  # fsspec is untyped
    """fsspec's progress, told in the way of this module."""

    def __init__(self, on_bytes: OnBytes) -> None:
        super().__init__()
        self._on_bytes = on_bytes

    def relative_update(self, inc: int = 1) -> None:
        """`inc` more bytes are there."""
        self._on_bytes(inc)
