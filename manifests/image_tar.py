"""Images cells: WebDataset-compatible tar files, read by offset or as a stream."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from manifests.errors import InputError, ObjectDamagedError
from manifests.store import Store, explained

_FILE_MODE = 0o644


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


def stream_images(store: Store, object_id: str, spans: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of each (offset, size), in order, from one sequential read of the tar.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectDamagedError: it ends early.
    """
    with store.open_object(object_id) as file:
        for offset, size in spans:
            with explained(store.url, store.protocol):
                file.seek(offset)
                data = file.read(size)
            if len(data) != size:
                raise ObjectDamagedError(
                    f"images object {object_id[:12]} ends early: expected {size} bytes at "
                    f"{offset}, got {len(data)}; restore it from a copy"
                )
            yield data
