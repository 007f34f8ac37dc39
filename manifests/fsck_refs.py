"""The logs of branches and tags, read entry by entry without stopping at damage."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import msgspec

from manifests import layout
from manifests.in_parallel import in_parallel
from manifests.refs import RefEntry
from manifests.store import Store

_ENTRY_NUMBER = re.compile(rf"[0-9]{{{layout.REF_DIGITS}}}")
_COMMIT_OR_DELETED = re.compile(r"([0-9a-f]{64})?")
_THREADS = 16
_HINT_REACH = 64  # no more entries than these are believed to be missing on a hint's word


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """An entry that is not there or cannot be right; `how` continues its name."""

    number: int
    kind: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefLog:
    """A branch's or tag's own log.

    Attributes:
        folder: layout.HEADS or layout.TAGS.
        entries: those that can be read, oldest first.
        bad: those that cannot.
        newest: number of the last entry, bad or not.
    """

    folder: str
    name: str
    entries: tuple[RefEntry, ...]
    bad: tuple[BadEntry, ...]
    newest: int

    @property
    def label(self) -> str:
        """ "main", "tag release-1"."""
        return self.name if self.folder == layout.HEADS else f"tag {self.name}"

    @property
    def head(self) -> str | None:
        """The commit it points to; None: its last entry is bad, or the branch was deleted."""
        last = self.entries[-1] if self.entries else None
        return last.commit or None if last and last.number == self.newest else None

    @property
    def last_known(self) -> str | None:
        """Where it pointed to by the last entry that can be read, if its last one is bad."""
        last = self.entries[-1] if self.entries else None
        return last.commit or None if last and last.number != self.newest else None


def read_logs(store: Store) -> list[RefLog]:
    """The log of every branch that there is or ever was, and of every tag.

    Raises:
        StoreError: the store does not answer.
    """
    return [
        read_log(store, folder, name)
        for folder in (layout.HEADS, layout.TAGS)
        for name in _names(store, folder, "")
    ]


def find_log(logs: Collection[RefLog], text: str) -> RefLog | None:
    """The log of the branch of that name, or else of the tag."""
    named = [log for log in logs if log.name == text]
    return min(named, key=lambda log: log.folder != layout.HEADS, default=None)


def read_log(store: Store, folder: str, name: str) -> RefLog:
    """One log. The branch's hint tells of entries that are missing at its end."""
    listed = [int(n) for n in store.list_names(f"{folder}/{name}") if _ENTRY_NUMBER.fullmatch(n)]
    read = partial(_read_entry, store, folder, name)
    found = list(in_parallel(read, listed, num_threads=_THREADS))
    last, hint = max(listed, default=0), _hint(store, folder, name)
    newest = hint if last < hint <= last + _HINT_REACH else last  # else the hint itself is damaged
    bad = [entry for entry in found if isinstance(entry, BadEntry)]
    return RefLog(
        folder=folder,
        name=name,
        entries=tuple(entry for entry in found if isinstance(entry, RefEntry)),
        bad=tuple(sorted([*bad, *_gaps(listed, newest)], key=lambda entry: entry.number)),
        newest=newest,
    )


def _gaps(listed: list[int], newest: int) -> Iterator[BadEntry]:
    """Entries that are not there although later ones were written."""
    for before, after in pairwise([0, *listed, newest + 1]):
        if after == before + 2:
            yield BadEntry(number=before + 1, kind="missing", how="is missing")
        elif after > before + 2:
            how = f"and all others up to {after - 1} are missing"
            yield BadEntry(number=before + 1, kind="missing", how=how)


def _names(store: Store, folder: str, prefix: str) -> Iterator[str]:
    """Ref names may contain '/', so folders are walked until they hold numbers."""
    below = store.list_names(f"{folder}/{prefix}".rstrip("/"))
    if prefix and any(map(_ENTRY_NUMBER.fullmatch, below)):
        yield prefix.rstrip("/")
    for name in below:
        if not _ENTRY_NUMBER.fullmatch(name):
            yield from _names(store, folder, f"{prefix}{name}/")


def _hint(store: Store, folder: str, name: str) -> int:
    data = store.read_optional(layout.newest_hint_path(folder, name)) or b""
    return int(data) if data.isdigit() and len(data) <= layout.REF_DIGITS else 0


def _read_entry(store: Store, folder: str, name: str, number: int) -> RefEntry | BadEntry:
    data = store.read_optional(layout.ref_entry_path(folder, name, number)) or b""
    try:
        entry = msgspec.json.decode(data, type=RefEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return BadEntry(number=number, kind="damaged", how=f"is damaged ({error})")
    if entry.number != number:
        how = f"is damaged (it holds entry {entry.number})"
        return BadEntry(number=number, kind="damaged", how=how)
    if not _COMMIT_OR_DELETED.fullmatch(entry.commit):
        how = f"is damaged (it names {entry.commit[:80]!r}, which is no commit)"
        return BadEntry(number=number, kind="damaged", how=how)
    return entry
