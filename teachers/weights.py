"""Weights files: where they may lie, and how a missing one is had.

A file is known by its full SHA-256. It is looked for in every folder of `$MASKMILL_WEIGHTS`, then
in the cache, then at its sources; nothing is ever loaded whose digest does not match.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.cache_root import cache_root
from manifests.errors import WeightsError
from manifests.file_lock import locked
from teachers.weights_sources import Source, SourceFailedError
from teachers.weights_table import TABLE as TABLE
from teachers.weights_table import WeightsFile as WeightsFile

_LOG = logging.getLogger(__name__)
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsStatus:
    """Where a file of the table lies on this machine; `path` is None if it does not."""

    file: WeightsFile
    path: Path | None


def find(name: str, *, table: Mapping[str, WeightsFile] = TABLE) -> Path | None:
    """The file of that name on this machine, digest checked; None if it is not here.

    Raises:
        WeightsError: the table has no such name, or a file in `$MASKMILL_WEIGHTS` has the wrong
            digest. (A damaged file in the cache counts as absent: `fetch` replaces it.)
    """
    file = _entry(name, table)
    for folder in _given_folders():
        path = folder / file.file_name
        if path.is_file():
            _require_digest(path, file)
            return path
    cached = cache_folder() / file.file_name
    if cached.is_file() and _digest_of(cached) == file.sha256:
        return cached
    return None


def fetch(name: str, *, table: Mapping[str, WeightsFile] = TABLE) -> Path:
    """The file of that name, downloaded into the cache if it is nowhere on this machine.

    Many processes may call this at once: one downloads, the others wait for it and take its file.

    Raises:
        WeightsError: as `find`, or no source had the file; says what was tried.
    """
    found = find(name, table=table)
    if found is not None:
        return found
    file = _entry(name, table)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{file.file_name}.lock"):
        return find(name, table=table) or _download(file, folder)


def listing(*, table: Mapping[str, WeightsFile] = TABLE) -> list[WeightsStatus]:
    """Every file of the table with its place on this machine; downloads nothing.

    Raises:
        WeightsError: a file in `$MASKMILL_WEIGHTS` has the wrong digest.
    """
    return [WeightsStatus(file=file, path=find(name, table=table)) for name, file in table.items()]


def cache_folder() -> Path:
    """`$MASKMILL_CACHE`/weights, or the user's cache folder for maskmill."""
    return cache_root() / "weights"


def _given_folders() -> list[Path]:
    given = os.environ.get("MASKMILL_WEIGHTS", "")
    return [Path(folder) for folder in given.split(os.pathsep) if folder]


def _entry(name: str, table: Mapping[str, WeightsFile]) -> WeightsFile:
    if name not in table:
        known = ", ".join(sorted(table))
        raise WeightsError(f"weights '{name}' are not in the table; known: {known}")
    return table[name]


def _require_digest(path: Path, file: WeightsFile) -> None:
    got = _digest_of(path)
    if got != file.sha256:
        raise WeightsError(
            f"{path} has the wrong digest: expected {file.sha256}, got {got}; "
            f"replace the file or take its folder out of $MASKMILL_WEIGHTS"
        )


def _digest_of(path: Path) -> str:
    state = path.stat()
    return _digest_once(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest_once(path: str, _num_bytes: int, _mtime_ns: int) -> str:
    """Size and time are part of the key only: 2.5 GB are hashed once a process, not once a call."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(file: WeightsFile, folder: Path) -> Path:
    tried: list[str] = []
    for source in file.sources:
        _LOG.info("weights %s: fetching %d bytes from %s", file.name, file.num_bytes, source.label)
        try:
            return _download_from(source, file, folder)
        except SourceFailedError as error:
            _LOG.warning("weights %s: %s failed: %s", file.name, source.label, error)
            tried.append(f"{source.label} ({error})")
    places = [str(place) for place in (*_given_folders(), folder)]
    raise WeightsError(
        f"weights '{file.name}' not found: no {file.file_name} in {', '.join(places)}; "
        f"tried {'; '.join(tried) or 'no source, the table names none'}; put the file with SHA-256 "
        f"{file.sha256} into a folder and name that folder in $MASKMILL_WEIGHTS"
    )


def _download_from(source: Source, file: WeightsFile, folder: Path) -> Path:
    """Into a temporary file beside the target, renamed when digest and size are right."""
    handle, temporary = tempfile.mkstemp(prefix=f".{file.file_name}.", dir=folder)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as stream:
            for block in source.blocks(max_bytes=file.num_bytes, block_bytes=_BLOCK_BYTES):
                digest.update(block)
                stream.write(block)
        if digest.hexdigest() != file.sha256:
            raise SourceFailedError(
                f"wrong digest: expected {file.sha256}, got {digest.hexdigest()}"
            )
        target = folder / file.file_name
        os.chmod(temporary, 0o644)  # a cache may serve several users
        os.replace(temporary, target)
        return target
    finally:
        Path(temporary).unlink(missing_ok=True)
