"""The cells of one commit as read-only files for DuckDB, and no other file.

DuckDB opens `cells://<object id>` on every kind of store alike, and fetches the byte ranges of the
columns that it needs. What is not a cell of the commit does not exist here.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from manifests.consequences import Loss, cell_lost, how_lost
from manifests.errors import MaskmillError, ObjectDamagedError, ObjectMissingError
from manifests.manifest import Cell
from manifests.parquet import CheckedRanges
from manifests.store import Store

PROTOCOL = "cells"
_KEPT_FOOTERS = 1024
# Objects never change, so whatever DuckDB keeps of them stays right.
_NEVER_CHANGED = datetime(2000, 1, 1, tzinfo=UTC)


def cell_url(object_id: str) -> str:
    """The address under which DuckDB reads a cell."""
    return f"{PROTOCOL}://{object_id}"


class CellFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """See the module. `failure` is the first error that a read ended in, in one sentence."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, store: Store, cells: Iterable[Cell], *, who: str) -> None:
        """`who` needs the cells, for messages: `commit 3f9a41c2d07e`."""
        super().__init__()
        self._store, self.who = store, who
        self._cells = {cell.object_id: cell for cell in cells}
        self.failure: MaskmillError | None = None
        self._open: dict[str, CheckedRanges] = {}
        self._lock = threading.Lock()

    def cell_of(self, text: str) -> Cell | None:
        """The cell whose address stands somewhere in a message of DuckDB's, or None."""
        _, separator, rest = text.partition(f"{PROTOCOL}://")
        return self._cells.get(rest[:64]) if separator else None

    # -- what DuckDB calls -----------------------------------------------------------------------

    def glob(self, path: str, **_: object) -> list[str]:
        """The path itself, if it is a cell: there are no folders to look through."""
        return [path] if self._find(path) else []

    def exists(self, path: str, **_: object) -> bool:
        """Whether it is a cell."""
        return self._find(path) is not None

    def isfile(self, path: str) -> bool:
        """Whether it is a cell."""
        return self._find(path) is not None

    def modified(self, path: str) -> datetime:
        """One time for all."""
        return _NEVER_CHANGED

    def info(self, path: str, **_: object) -> dict[str, Any]:  # Any: fsspec's own records
        """Size from the manifest, without a request. Raises FileNotFoundError."""
        cell = self._cell(path)
        return {"name": path, "size": cell.num_bytes, "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: object) -> BinaryIO:
        """A cell for reading. Raises FileNotFoundError, or PermissionError for writing."""
        if "r" not in mode or "+" in mode:
            raise PermissionError(f"{path} can only be read")
        return cast(BinaryIO, _CellFile(self, self._cell(path)))

    def read(self, cell: Cell, start: int, num_bytes: int) -> bytes:
        """Part of a cell.

        Raises:
            StoreError: also kept in `failure`, because DuckDB makes text of it.
        """
        try:
            return self._ranges(cell).read(start, num_bytes)
        except (MaskmillError, pa.ArrowException) as error:
            raise self.lost(cell, error) from error

    def lost(self, cell: Cell, error: Exception) -> MaskmillError:
        """What it means that a cell cannot be read; kept in `failure` if it is the first."""
        loss = cell_lost(shard=cell.shard, layer=cell.layer, object_id=cell.object_id)
        failure = _lost(error, loss, self.who)
        self.failure = self.failure or failure
        return failure

    def _ranges(self, cell: Cell) -> CheckedRanges:
        """Footers are kept: DuckDB opens a file several times for one query."""
        found = self._open.get(cell.object_id)
        if found is None:

            def read_range(start: int, num_bytes: int) -> bytes:
                return self._store.read_range(cell.object_id, start=start, num_bytes=num_bytes)

            found = CheckedRanges(read_range, cell.num_bytes)
            with self._lock:
                self._open[cell.object_id] = found
                while len(self._open) > _KEPT_FOOTERS:
                    self._open.pop(next(iter(self._open)))
        return found

    def _find(self, path: str) -> Cell | None:
        return self._cells.get(path.removeprefix(f"{PROTOCOL}://"))

    def _cell(self, path: str) -> Cell:
        cell = self._find(path)
        if cell is None:
            raise FileNotFoundError(path)
        return cell


class _CellFile(io.RawIOBase):
    """DuckDB's threads share a handle, and each calls `seek`, then `read`: every thread has its own
    position, so that none reads at another's."""

    def __init__(self, files: CellFiles, cell: Cell) -> None:
        self._files, self._cell, self._place = files, cell, threading.local()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._cell.num_bytes}
        self._place.position = base[whence] + offset
        return self.tell()

    def tell(self) -> int:
        return int(getattr(self._place, "position", 0))

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        left = max(0, self._cell.num_bytes - start)
        num_bytes = left if size is None or size < 0 else min(size, left)
        data = self._files.read(self._cell, start, num_bytes)
        self._place.position = start + len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _lost(error: Exception, loss: Loss, who: str) -> MaskmillError:
    if isinstance(error, ObjectMissingError):
        return ObjectMissingError(loss.sentence(how_lost(error, loss.object_id), who))
    if isinstance(error, MaskmillError) and not isinstance(error, ObjectDamagedError):
        return error
    damage = ObjectDamagedError(str(error))
    return ObjectDamagedError(loss.sentence(how_lost(damage, loss.object_id), who))
