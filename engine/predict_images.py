"""Which photos a prediction is asked for: files, folders and buckets, one root and its names."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from engine.sources.files import IMAGE_SUFFIXES, transport_errors
from manifests.errors import InputError

_STAMPS = ("size", "ETag", "etag", "mtime", "LastModified")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """Photos below one folder or bucket.

    Attributes:
        root: its URL or path.
        stamps: name relative to the root -> what the file system knows of that version of the
            file: size, ETag, time of change. A photo that was replaced has another stamp.
    """

    root: str
    stamps: Mapping[str, str]


def find_photos(wanted: Sequence[str]) -> tuple[PhotoSet, ...]:
    """Folders are searched at any depth for files with an image's suffix; files are taken as named.

    Raises:
        InputError: something is not there, cannot be reached, or nothing was found at all.
    """
    sets: list[PhotoSet] = []
    single: dict[str, dict[str, str]] = {}
    for url in wanted:
        found = _look(url)
        if isinstance(found, PhotoSet):
            sets.append(found)
        else:
            parent, name = posixpath.split(url)
            single.setdefault(parent or ".", {})[name] = found
    sets += [PhotoSet(root=root, stamps=names) for root, names in single.items()]
    full = tuple(photos for photos in sets if photos.stamps)
    if not full:
        raise InputError(
            f"no image in {', '.join(wanted)}: expected files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}; check the folder"
        )
    return full


def _look(url: str) -> PhotoSet | str:
    """A folder's photos, or a single file's stamp."""
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        if not filesystem.exists(path):
            raise InputError(f"no file or folder at {url}; check path and spelling")
        if not filesystem.isdir(path):
            return _stamp(filesystem.info(path))
        found = filesystem.find(path, detail=True)
    except transport_errors() as error:
        raise InputError(
            f"{url} cannot be reached ({type(error).__name__}: {error}); check the address and "
            "the credentials"
        ) from error
    start = len(path.rstrip("/")) + 1
    stamps = {
        name[start:]: _stamp(info)
        for name, info in sorted(found.items())
        if name.lower().endswith(tuple(IMAGE_SUFFIXES))
    }
    return PhotoSet(root=url.rstrip("/") or "/", stamps=stamps)


def _stamp(info: Mapping[str, Any]) -> str:  # Any: each file system has its own
    return " ".join(str(info[key]) for key in _STAMPS if info.get(key) is not None)
