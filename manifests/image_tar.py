"""Images cells: WebDataset-compatible tar files, read by offset or as a stream."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa

from manifests.digest import content_id
from manifests.errors import InputError, ObjectDamagedError
from manifests.store import Store, explained

STREAM_COLUMNS = ["offset", "size", "image_id", "transforms"]
_FILE_MODE = 0o644
_CHUNK_BYTES = 4 * 2**20
_SMALL_BYTES = 2**20  # read whole, whatever is wanted of it


class ImageTarWriter:
    """Writes encoded images into a local tar whose bytes depend on the images alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def __enter__(self) -> ImageTarWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._tar.close()
        finally:
            self._file.close()

    def add(self, *, image_id: str, extension: str, data: bytes) -> int:
        """Appends `<image_id>.<extension>` and returns the offset of its first byte of data.

        Raises:
            InputError: the name does not fit into a USTAR header (100 bytes after the last `/`).
        """
        info = tarfile.TarInfo(f"{image_id}.{extension}")
        info.size = len(data)
        info.mode = _FILE_MODE
        offset = self._file.tell() + tarfile.BLOCKSIZE  # a USTAR header is one block
        try:
            self._tar.addfile(info, io.BytesIO(data))
        except ValueError as error:
            raise InputError(f"image name {info.name!r} cannot be in a tar: {error}") from error
        return offset


def offsets_of(sizes: Iterable[int]) -> Iterator[int]:
    """Where a tar that ImageTarWriter makes of images of these sizes has their first bytes."""
    position = 0
    for size in sizes:
        yield position + tarfile.BLOCKSIZE
        num_blocks = -(-size // tarfile.BLOCKSIZE)
        position += tarfile.BLOCKSIZE * (1 + num_blocks)


def stream_images(
    store: Store,
    object_id: str,
    spans: Sequence[tuple[int, int]],
    *,
    content_ids: Sequence[str | None] = (),
) -> Iterator[bytes]:
    """The bytes of each (offset, size), in order, from one sequential read of the tar.

    Damage does not go unseen: a pass over most of the tar hashes it on the way and raises at its
    end, so what is made of the images is to be kept only after the last one; in a shorter pass
    each image is compared with its id.

    Args:
        content_ids: for each image the `digest.content_id` of its bytes, or None if that is not
            known because ingest encoded it again; empty: none is known.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectDamagedError: it ends early, or its bytes are not those it was stored with.
    """
    with store.open_object(object_id) as file:
        tar = _Tar(store, object_id, file)
        if tar.is_mostly_in(spans):
            yield from tar.hashed(spans)
        else:
            yield from tar.compared(spans, content_ids or [None] * len(spans))


def stream_rows(store: Store, object_id: str, index: pa.Table) -> Iterator[bytes]:
    """The bytes of rows of `image_index`, of which STREAM_COLUMNS are needed.

    Raises: as `stream_images`.
    """
    rows = index.select(STREAM_COLUMNS).to_pylist()
    return stream_images(
        store,
        object_id,
        [(row["offset"], row["size"]) for row in rows],
        content_ids=[None if row["transforms"] else row["image_id"] for row in rows],
    )


class _Tar:
    """An images object, open for reading."""

    def __init__(self, store: Store, object_id: str, file: BinaryIO) -> None:
        self._store, self._object_id, self._file = store, object_id, file

    def is_mostly_in(self, spans: Sequence[tuple[int, int]]) -> bool:
        """Whether spans go forward only and hold at least half of the bytes, or it is small."""
        if any(a[0] + a[1] > b[0] for a, b in pairwise(spans)):
            return False
        with explained(self._store.url, self._store.protocol):
            num_bytes = self._file.seek(0, io.SEEK_END)
        return 2 * sum(size for _, size in spans) >= num_bytes or num_bytes <= _SMALL_BYTES

    def hashed(self, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Reads everything, also what lies between the spans."""
        digest, at = hashlib.sha256(), 0
        self._read(0, 0)
        for offset, size in spans:
            for chunk in self._chunks(at, offset):
                digest.update(chunk)
            data = self._read(offset, size)
            digest.update(data)
            yield data
            at = offset + size
        for chunk in self._chunks(at, None):
            digest.update(chunk)
        if digest.hexdigest() != self._object_id:
            raise self._damaged()

    def compared(
        self, spans: Sequence[tuple[int, int]], content_ids: Sequence[str | None]
    ) -> Iterator[bytes]:
        """Reads the spans alone. The whole is hashed only if an image is not what its id says."""
        is_sound = False
        for (offset, size), known_id in zip(spans, content_ids, strict=True):
            data = self._read(offset, size)
            if not is_sound and known_id is not None and content_id(data) != known_id:
                list(self.hashed(()))
                is_sound = True
            yield data

    def _read(self, offset: int, size: int) -> bytes:
        with explained(self._store.url, self._store.protocol):
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) != size:
            raise ObjectDamagedError(
                f"images object {self._object_id[:12]} ends early: expected {size} bytes at "
                f"{offset}, got {len(data)}; restore it from a copy"
            )
        return data

    def _chunks(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` on; reading goes on where the last read ended."""
        while stop is None or start < stop:
            size = _CHUNK_BYTES if stop is None else min(_CHUNK_BYTES, stop - start)
            with explained(self._store.url, self._store.protocol):
                chunk = self._file.read(size)
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    def _damaged(self) -> ObjectDamagedError:
        return ObjectDamagedError(
            f"object {self._object_id[:12]} in {self._store.url} is damaged: its bytes do not hash "
            "to its name; restore it from a copy"
        )
