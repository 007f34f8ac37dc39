"""Which photos a prediction is asked for: files, folders and buckets, one root and its names."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from engine.image_root import ImageRoot
from engine.sources.files import IMAGE_SUFFIXES, transport_errors
from manifests.errors import InputError

_STAMPS = ("size", "ETag", "etag", "mtime", "LastModified")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """Photos below one folder or bucket.

    Attributes:
        root: its URL or absolute path.
        stamps: name relative to the root -> what the file system knows of that version of the
            file: size, ETag, time of change. A photo that was replaced has another stamp.
    """

    root: str
    stamps: Mapping[str, str]


def find_photos(wanted: Sequence[str], *, without: str = "") -> tuple[PhotoSet, ...]:
    """Folders are searched at any depth for files with an image's suffix; files are taken as named.

    Args:
        wanted: files, folders and URLs; what several of them name is one photo all the same.
        without: a folder below which nothing is taken, such as earlier pictures of segments.

    Raises:
        InputError: something is not there, cannot be reached, or nothing was found at all.
    """
    refused = f"{ImageRoot(without).url.rstrip('/')}/" if without else None
    sets: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for url in wanted:
        found = _look(url)
        names = sets.setdefault(found.root, {})
        for name, stamp in found.stamps.items():
            place = f"{found.root.rstrip('/')}/{name}"
            if place in seen or (refused and place.startswith(refused)):
                continue
            seen.add(place)
            names[name] = stamp
    full = tuple(PhotoSet(root=root, stamps=names) for root, names in sets.items() if names)
    if not full:
        raise InputError(
            f"no image in {', '.join(wanted)}: expected files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}; check the folder"
        )
    return full


def _look(url: str) -> PhotoSet:
    """A folder's photos, or a single one. Roots are absolute: workers may stand elsewhere."""
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        if not url.strip():
            raise InputError("a photo or folder is called ''; leave it out")
        if not filesystem.exists(path):
            raise InputError(f"no file or folder at {url}; check path and spelling")
        if not filesystem.isdir(path):
            parent, name = posixpath.split(url)
            stamps = {_printable(name): _stamp(filesystem.info(path))}
            return PhotoSet(root=ImageRoot(parent or ".").url, stamps=stamps)
        found = filesystem.find(path, detail=True)
    except transport_errors() as error:
        raise InputError(
            f"{url} cannot be reached ({type(error).__name__}: {error}); check the address and "
            "the credentials"
        ) from error
    start = len(path.rstrip("/")) + 1
    stamps = {
        _printable(name[start:]): _stamp(info)
        for name, info in sorted(found.items())
        if name.lower().endswith(tuple(IMAGE_SUFFIXES))
    }
    return PhotoSet(root=ImageRoot(url.rstrip("/") or "/").url, stamps=stamps)


def _printable(name: str) -> str:
    """A name that is not UTF-8 has no place in a table: spelled out, it is missing and counted."""
    return name.encode(errors="backslashreplace").decode()


def _stamp(info: Mapping[str, Any]) -> str:  # Any: each file system has its own
    return " ".join(str(info[key]) for key in _STAMPS if info.get(key) is not None)
