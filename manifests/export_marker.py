"""`maskmill_export.json`: what a folder is, whether it is complete, and what may be replaced."""

from __future__ import annotations

import fnmatch

import msgspec

from manifests.digest import canonical_json

MARKER = "maskmill_export.json"


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What this folder is, and which of its entries an export made.

    Attributes:
        entries: `fnmatch` patterns of names directly in the folder.
        state: "unfinished" or "finished".
    """

    format: str
    commit: str
    ref: str | None
    maskmill: str
    entries: tuple[str, ...]
    state: str = "unfinished"

    def covers(self, name: str) -> bool:
        """Is this entry of the folder an export's own, to be replaced with it?"""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*self.entries, MARKER))

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same export has the same bytes."""
        return canonical_json(msgspec.to_builtins(self))
