"""When a store's files were written, by the store's own clock: this machine's may be wrong."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from manifests import layout
from manifests.errors import ObjectMissingError, StoreError
from manifests.file_system import explained
from manifests.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file of a folder: its name in it, bytes, and seconds since 1970 by the store's clock."""

    name: str
    num_bytes: int
    modified: float


def list_files(store: Store, folder: str) -> list[ListedFile]:
    """The files directly below a folder, sorted by name, hidden ones left out; [] if none.

    Raises:
        StoreError: the store cannot be reached, or tells no times.
    """
    try:
        with explained(store.url, store.protocol):
            found = store.fs.ls(store.path(folder), detail=True, refresh=True)
    except ObjectMissingError:
        return []
    files = [
        ListedFile(
            name=str(entry["name"]).rsplit("/", 1)[-1],
            num_bytes=int(entry["size"] or 0),
            modified=_modified(entry),
        )
        for entry in found
        if entry["type"] == "file"
    ]
    shown = (file for file in files if file.name and not file.name.startswith("."))
    return sorted(shown, key=lambda file: file.name)


def store_clock(store: Store) -> float:
    """Seconds since 1970, as the store dates a file that is written now. Raises as `list_files`."""
    key = f"{layout.PROBES}/{uuid.uuid4().hex}"
    store.create_if_absent(key, b"what time is it?")
    try:
        with explained(store.url, store.protocol):
            return _modified(store.fs.info(store.path(key)))
    finally:
        store.remove(key)


def _modified(entry: Mapping[str, Any]) -> float:  # Any: each file system has words of its own
    found = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    if isinstance(found, datetime):
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return aware.timestamp()
    if not isinstance(found, int | float):
        raise StoreError(
            f"the file system tells no time for {entry.get('name')}, so nothing is known to be old"
        )
    return float(found)
