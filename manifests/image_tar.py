"""Images cells: WebDataset-compatible tar files with a fixed header, read by offset or as a stream."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from manifests.errors import ObjectDamagedError
from manifests.store import Store

_FILE_MODE = 0o644


class ImageTarWriter:
    """Writes encoded images into a local tar whose bytes depend on the images alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def __enter__(self) -> ImageTarWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()
        self._file.close()

    def add(self, *, image_id: str, extension: str, data: bytes) -> int:
        """Appends `<image_id>.<extension>` and returns the offset of its first byte of data."""
        info = tarfile.TarInfo(f"{image_id}.{extension}")
        info.size = len(data)
        info.mode = _FILE_MODE
        offset = self._file.tell() + tarfile.BLOCKSIZE  # a USTAR header is one block
        self._tar.addfile(info, io.BytesIO(data))
        return offset


def stream_images(store: Store, object_id: str, spans: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of each (offset, size), in order, from one sequential read of the tar.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectDamagedError: it ends early.
    """
    with store.open_object(object_id) as file:
        for offset, size in spans:
            file.seek(offset)
            data = file.read(size)
            if len(data) != size:
                raise ObjectDamagedError(
                    f"images object {object_id[:12]} ends early: expected {size} bytes at "
                    f"{offset}, got {len(data)}; restore it from a copy"
                )
            yield data
