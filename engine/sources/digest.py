"""Digests of what a scan reads, so that a later one can tell whether anything has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from engine.sources.files import Folder, open_bytes, read_errors
from engine.sources.protocol import Source, SourceInput, absolute
from manifests.commit import ExternalInput
from manifests.errors import InputError

_BLOCK_BYTES = 4 << 20


def digests_of(source: Source) -> dict[str, ExternalInput]:
    """Role -> digest of everything the source's scan depends on but the images.

    This is a read of its own: a scan reads each file in a way of its own, some of them twice, and
    `reproduce` wants to know before it scans. A file costs a second for each 1.5 GB.

    Raises:
        InputError: a file or folder is missing or cannot be read.
    """
    return {item.role: _digest_of(item) for item in source.inputs()}


def _digest_of(item: SourceInput) -> ExternalInput:
    url = absolute(item.url)
    if item.names is None:
        digest, num_bytes = _of_file(item.url)
        return ExternalInput(url=url, sha256=digest, num_files=1, num_bytes=num_bytes)
    hasher, total = hashlib.sha256(), 0
    lines = _names(item.names) if item.is_listing else _of_files(item.url, item.names)
    for line, num_bytes in lines:
        hasher.update(line.encode())
        total += num_bytes
    return ExternalInput(
        url=url, sha256=hasher.hexdigest(), num_files=len(item.names), num_bytes=total
    )


def _of_file(url: str) -> tuple[str, int]:
    """SHA-256 and size of the file as it lies there, compressed or not."""
    hasher, num_bytes = hashlib.sha256(), 0
    with open_bytes(url, compression=None) as file:
        try:
            while block := file.read(_BLOCK_BYTES):
                hasher.update(block)
                num_bytes += len(block)
        except read_errors() as error:
            reason = str(error) or type(error).__name__
            raise InputError(
                f"{url}: cannot be read to its end: {reason}; check the file and the disk"
            ) from error
    return hasher.hexdigest(), num_bytes


def _names(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        yield f"{name}\n", 0


def _of_files(url: str, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(line of `sha256sum`, bytes) of each file."""
    for text in Folder(url).read(names):
        digest = hashlib.sha256(text.text).hexdigest()
        if text.is_missing or text.problem is not None:
            digest = "missing" if text.is_missing else "unreadable"
        yield f"{digest}  {text.name}\n", len(text.text)
