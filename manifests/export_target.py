"""The folder an export goes to, local or any fsspec URL: there when finished, and not before.

Local: everything is written below `<target>/.maskmill-unfinished` and moved up at the end. Object
stores cannot move: files get their names at once, and `maskmill_export.json` says "unfinished"
until the last one is there. That file is also what allows `overwrite` to remove an older export,
and what stops it from removing anything else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from manifests.errors import InputError, ObjectMissingError
from manifests.export_marker import MARKER, Marker
from manifests.store import Store, explained

_UNFINISHED = ".maskmill-unfinished"
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "oci", "memory"}
_MAX_PENDING_BYTES = 32 * 2**20
_MAX_PENDING_FILES = 128


class Target(Protocol):
    """A folder being filled. Names are relative and use `/`."""

    num_files: int
    num_bytes: int

    def write(self, name: str, data: bytes) -> None:
        """Adds a file."""

    def stage(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write to; it becomes part of the export when the block ends well."""

    def finish(self) -> None:
        """Makes the export visible, or says that it is complete."""

    def abandon(self) -> None:
        """Removes what can be removed of an export that failed."""


@contextmanager
def open_target(url: str, marker: Marker, *, overwrite: bool) -> Iterator[Target]:
    """A target that is finished when the block ends well, and abandoned when it does not.

    Raises:
        InputError: something is there that must not be replaced.
        StoreError: it cannot be reached or written.
    """
    files = Store(url)
    old = _check_free(files, overwrite=overwrite)
    is_local = files.protocol in ("file", "local")
    target: Target = _LocalTarget(files, marker, old) if is_local else _Uploads(files, marker, old)
    finished = False
    try:
        yield target
        target.finish()
        finished = True
    finally:
        if not finished:
            target.abandon()


def _check_free(files: Store, *, overwrite: bool) -> Marker | None:
    """The marker of an older export that may be replaced; None where there is nothing."""
    there = _names(files)
    if not there:
        return None
    if not overwrite:
        raise InputError(
            f"{files.url} is not empty: it has {there[0]!r}; choose another folder, or say "
            "overwrite to replace an export that is there"
        )
    raw = files.read_optional(MARKER)
    if raw is None and there != [_UNFINISHED]:
        raise InputError(
            f"{files.url} has {there[0]!r} but no {MARKER}, so it is not an export and is not "
            "overwritten; choose another folder, or empty this one yourself"
        )
    try:
        return msgspec.json.decode(raw, type=Marker) if raw else None
    except msgspec.MsgspecError as error:
        raise InputError(
            f"{files.url}/{MARKER} cannot be read ({error}), so nothing there is overwritten; "
            "empty the folder yourself"
        ) from error


def _names(files: Store) -> list[str]:
    """Everything directly below, hidden files too; [] if there is no such folder."""
    try:
        with explained(files.url, files.protocol):
            if files.fs.isfile(files.root):
                raise InputError(f"{files.url} is a file; an export needs a folder of its own")
            paths = files.fs.ls(files.root, detail=False)
    except ObjectMissingError:
        return []
    return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths} - {""})


def _checked(name: str) -> str:
    """The last line of defence: names are made safe where they are made."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"file name {name!r} would leave the target folder; rename the image")
    return name


@contextmanager
def _disk_errors_explained(files: Store) -> Iterator[None]:
    """For a block of somebody else's code, whose other errors are not the disk's."""
    try:
        yield
    except OSError:
        with explained(files.url, files.protocol):
            raise


class _LocalTarget:
    """Writes below a hidden folder inside the target, so that a mount point will do as target."""

    def __init__(self, files: Store, marker: Marker, old: Marker | None) -> None:
        self.num_files = self.num_bytes = 0
        self._files, self._marker, self._old = files, marker, old
        self._root = Path(files.root)
        self._staging = self._root / _UNFINISHED
        self._folders: set[Path] = set()
        with explained(files.url, "file"):
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)

    def write(self, name: str, data: bytes) -> None:
        with self.stage(name) as path:
            path.write_bytes(data)

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        path = self._staging / _checked(name)
        with explained(self._files.url, "file"):
            if path.parent not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(path.parent)
        with _disk_errors_explained(self._files):
            yield path
        self.num_bytes += path.stat().st_size
        self.num_files += 1

    def finish(self) -> None:
        done = msgspec.structs.replace(self._marker, state="finished")
        self.write(MARKER, done.to_bytes())
        with explained(self._files.url, "file"):
            if self._old:
                for path in self._root.iterdir():
                    if self._old.covers(path.name):
                        _remove(path)
            made = sorted(os.listdir(self._staging), key=lambda name: (name == MARKER, name))
            for name in made:
                os.replace(self._staging / name, self._root / name)
            self._staging.rmdir()

    def abandon(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._root.is_dir() and not os.listdir(self._root):
            self._root.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class _Uploads:
    """Small files go up many at a time, big ones from a temporary file."""

    def __init__(self, files: Store, marker: Marker, old: Marker | None) -> None:
        self.num_files = self.num_bytes = 0
        self._files, self._marker = files, marker
        self._pending: dict[str, bytes] = {}
        self._pending_bytes = 0
        # Until it is finished, what is left of the older export is this one's to remove.
        entries = tuple(dict.fromkeys((*(old.entries if old else ()), *marker.entries)))
        self._put_marker(msgspec.structs.replace(marker, entries=entries))
        if old:
            with explained(files.url, files.protocol):
                for name in _names(files):
                    if name != MARKER and old.covers(name):
                        files.fs.rm(f"{files.root}/{name}", recursive=True)

    def write(self, name: str, data: bytes) -> None:
        self._pending[f"{self._files.root}/{_checked(name)}"] = data
        self._pending_bytes += len(data)
        self.num_files += 1
        self.num_bytes += len(data)
        if self._pending_bytes >= _MAX_PENDING_BYTES or len(self._pending) >= _MAX_PENDING_FILES:
            self._flush()

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="maskmill-export-") as folder:
            path = Path(folder) / "staged"
            with _disk_errors_explained(self._files):
                yield path
            to = f"{self._files.root}/{_checked(name)}"
            with explained(self._files.url, self._files.protocol):
                self._make_folders([to])
                self._files.fs.put_file(str(path), to)
            self.num_files += 1
            self.num_bytes += path.stat().st_size

    def finish(self) -> None:
        self._flush()
        self.num_bytes += self._put_marker(msgspec.structs.replace(self._marker, state="finished"))
        self.num_files += 1

    def abandon(self) -> None:
        self._pending.clear()  # what is up stays, under a marker that says "unfinished"

    def _flush(self) -> None:
        with explained(self._files.url, self._files.protocol):
            self._make_folders(list(self._pending))
            self._files.fs.pipe(self._pending)
        self._pending, self._pending_bytes = {}, 0

    def _put_marker(self, marker: Marker) -> int:
        data = marker.to_bytes()
        with explained(self._files.url, self._files.protocol):
            self._make_folders([f"{self._files.root}/{MARKER}"])
        self._files.overwrite(MARKER, data)
        return len(data)

    def _make_folders(self, paths: list[str]) -> None:
        if self._files.protocol not in _OBJECT_STORES:
            for folder in sorted({path.rsplit("/", 1)[0] for path in paths}):
                self._files.fs.makedirs(folder, exist_ok=True)
