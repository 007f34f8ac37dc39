"""A bounded disk cache of a machine: objects of a store, and files that are made from them.

Many processes share a folder. What is in it is whole (written beside its place and renamed), is
known by its content, and can be deleted at any time: whoever has it open keeps reading it.

Images are read in random order, so all tars of a dataset are wanted at once. Where they do not fit,
an ordinary LRU cache would fetch a whole tar for every image. Here an object that was used in the
last minutes stays, and what finds no room is read from the store, one range an image. A tar is
fetched in the background; until it is there its images come from the store as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from manifests.cache_root import cache_root
from manifests.errors import ObjectDamagedError, StoreError
from manifests.file_lock import locked
from manifests.store import Store, StoredObject
from student.data.cache_room import TEMPORARY, CacheRoom
from student.data.filler import Filler
from student.data.patience import Patience

_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")
_ATTEMPTS = 5
_PIECE_BYTES = 16 * 2**20


class DamagedFileError(Exception):
    """A file of the cache is not what was made, as after a power cut."""


def default_folder() -> Path:
    """`$MASKMILL_CACHE`/student, or the user's cache folder for maskmill."""
    return cache_root() / "student"


class CellCache:
    """See the file's top. Safe for many threads and processes."""

    def __init__(self, folder: Path, *, max_bytes: int, patience: Patience | None = None) -> None:
        """Makes no file yet.

        Args:
            folder: on a local disk; all processes of a machine give the same.
            max_bytes: of all files together. Files that are made may go beyond it, see `made`.
            patience: with a store that does not answer.
        """
        self.folder = folder
        self.patience = patience or Patience()
        self._room = CacheRoom(folder, max_bytes=max_bytes)
        self._filler = Filler(self._fill)

    # -- objects ---------------------------------------------------------------------------------

    def read_range(
        self, store: Store, stored: StoredObject, *, start: int, num_bytes: int
    ) -> bytes:
        """Part of an object, from the cache if it is there, else from the store.

        Bytes from the cache belong to an object whose digest was checked; others are not checked.

        Raises:
            ObjectMissingError, ObjectDamagedError: it is not there, or ends before that part does.
            NoAnswerError: the store did not answer for the whole of `patience`.
        """
        if store.protocol != "file":
            path = self._object_path(stored.object_id)
            with contextlib.suppress(FileNotFoundError):
                data = _read_file(path, start, num_bytes)
                self._room.touch(path)
                return data
            self._filler.want(store, stored)
        return self.patience.ask(
            lambda: store.read_range(stored.object_id, start=start, num_bytes=num_bytes),
            what=f"reading object {stored.object_id[:12]}",
        )

    def wait_until_filled(self) -> None:
        """Returns when nothing that was asked for so far is on its way."""
        self._filler.wait()

    def _fill(self, store: Store, stored: StoredObject) -> None:
        """Fetches an object, unless it is there, somebody else does, or there is no room."""
        path = self._object_path(stored.object_id)
        with locked(self._lock_path(stored.object_id), wait=False) as is_mine:
            if not is_mine or path.exists():
                return
            if not self._room.make(stored.num_bytes):
                return
            with self._written(path) as temporary:
                self._download(store, stored, temporary)

    def _download(self, store: Store, stored: StoredObject, to: Path) -> None:
        digest = hashlib.sha256()
        with to.open("wb") as file:
            for start in range(0, stored.num_bytes, _PIECE_BYTES):
                size = min(_PIECE_BYTES, stored.num_bytes - start)
                piece = self._piece(store, stored, start, size)
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != stored.object_id:
            raise ObjectDamagedError(
                f"object {stored.object_id[:12]} in {store.url} is damaged: its bytes do not hash "
                "to its name; restore it from a copy"
            )

    def _piece(self, store: Store, stored: StoredObject, start: int, size: int) -> bytes:
        return self.patience.ask(
            lambda: store.read_range(stored.object_id, start=start, num_bytes=size),
            what=f"fetching object {stored.object_id[:12]}",
        )

    # -- files that are made ---------------------------------------------------------------------

    def made(self, key: str, make: Callable[[Path], None], read: Callable[[Path], _Read]) -> _Read:
        """What is read from a file that is made once on this machine; others wait for its maker.

        It is let in even if that takes the place of objects in use, or more than there is: it is
        small beside images, and nothing goes without it.

        Args:
            key: 64 hex digits that decide the content.
            make: writes the file to a path.
            read: opens it; what it has open outlives the file. Raises DamagedFileError if it is
                not what was made.

        Raises:
            StoreError: the file is thrown out as soon as it is made.
        """
        path = self.folder / "made" / key[:2] / key
        for _ in range(_ATTEMPTS):
            try:
                found = read(path)
            except FileNotFoundError:  # also if somebody deletes it just now
                pass
            except DamagedFileError as error:
                _log.warning("%s is damaged (%s) and is made again", path, error)
                path.unlink(missing_ok=True)
            else:
                self._room.touch(path)
                return found
            with locked(self._lock_path(key)):
                if not path.exists():
                    with self._written(path) as temporary:
                        make(temporary)
                    self._room.make(0, keep=path)
        raise StoreError(
            f"the cache in {self.folder} cannot keep a file for a moment; raise data.cache_bytes"
        )

    # -- places ----------------------------------------------------------------------------------

    def _object_path(self, object_id: str) -> Path:
        return self.folder / "objects" / object_id[:2] / object_id

    def _lock_path(self, key: str) -> Path:
        return self.folder / "locks" / key[:2]

    @staticmethod
    @contextlib.contextmanager
    def _written(path: Path) -> Iterator[Path]:
        """A temporary path, which becomes `path` if nothing is raised."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{uuid.uuid4().hex}{TEMPORARY}")
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read_file(path: Path, start: int, num_bytes: int) -> bytes:
    """Part of a file. Raises FileNotFoundError if there is none, or if it is shorter."""
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), num_bytes, start)
    if len(data) != num_bytes:
        raise FileNotFoundError(path)
    return data
