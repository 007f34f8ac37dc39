"""The files of a checkout's folder: written beside their place, moved into it, removed, locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from manifests.byte_progress import ByteListener
from manifests.dataset import Dataset
from manifests.errors import InputError, ObjectMissingError
from manifests.image_tar import STREAM_COLUMNS
from manifests.in_parallel import in_parallel
from manifests.schemas import IMAGE_INDEX
from manifests.store import explained

_NUM_SHARDS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFiles:
    """Images of one shard to write: rows of its image_index, and a file name for each."""

    shard: str
    rows: Sequence[int]
    names: Sequence[str]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keeps other checkouts out of a folder; the lock goes with the process.

    Raises:
        InputError: another one is at work there.
    """
    with explained(str(root), "file"):
        handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another 'maskmill checkout' is at work in {root}; let it finish"
            ) from error
        yield
    finally:
        os.close(handle)


class CheckoutFolder:
    """Writes below a root, whose folders are made as they are needed.

    A shard's images get their names when all of them have been read: some damage shows only then.
    """

    def __init__(self, root: Path, new: Path, *, mtime_ns: int) -> None:
        """`new` is a folder on the same disk; `mtime_ns` is what every file gets."""
        self._root, self._new, self._mtime_ns = root, new, mtime_ns

    def write_images(
        self, dataset: Dataset, shards: Sequence[ShardFiles], listener: ByteListener
    ) -> None:
        """Fetches images and writes them, several shards at once.

        Raises:
            ObjectMissingError, ObjectDamagedError: images are gone or damaged.
            StoreError: a disk is full, or refuses.
        """
        write = partial(self._write_shard, dataset, listener=listener)
        for _ in in_parallel(write, shards, num_threads=_NUM_SHARDS_AT_ONCE):
            pass

    def place(self, new: Path, name: str) -> None:
        """Gives a finished file its name, over whatever file has it."""
        final = self._root / checked(name)
        with explained(str(self._root), "file"):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(new, final)
            except IsADirectoryError as error:
                raise InputError(
                    f"{final} is a folder where a file is to be written; move it away, and run "
                    "the same command again"
                ) from error

    def stamp(self, path: Path) -> None:
        """Gives a file the time by which it will be known."""
        with explained(str(self._root), "file"):
            os.utime(path, ns=(self._mtime_ns, self._mtime_ns))

    def remove(self, names: Sequence[str]) -> None:
        """Removes files, and folders that are empty then."""
        folders: set[PurePosixPath] = set()
        with explained(str(self._root), "file"):
            for name in names:
                (self._root / checked(name)).unlink(missing_ok=True)
                folders.update(PurePosixPath(name).parents[:-1])
            for folder in sorted(folders, key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):  # something else is in it
                    (self._root / folder).rmdir()

    def _write_shard(self, dataset: Dataset, files: ShardFiles, *, listener: ByteListener) -> None:
        index = dataset.table(files.shard, IMAGE_INDEX, columns=STREAM_COLUMNS)
        folder = self._new / files.shard
        with explained(str(self._root), "file"):
            folder.mkdir()
        try:
            for number, data in enumerate(dataset.images(files.shard, index.take(files.rows))):
                path = folder / str(number)
                with explained(str(self._root), "file"):
                    path.write_bytes(data)
                self.stamp(path)
                listener.advance(len(data))
        except ObjectMissingError as error:
            raise ObjectMissingError(
                f"{error}; 'maskmill checkout --no-images' writes the annotations alone"
            ) from error
        for number, name in enumerate(files.names):
            self.place(folder / str(number), name)
        with explained(str(self._root), "file"):
            folder.rmdir()


def checked(name: str) -> str:
    """The last line of defence: names are made safe where they are made."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"file name {name!r} would leave the folder; rename the image")
    return name
