"""Walking from a commit to its parents."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from manifests.commit import Commit
from manifests.refs import Refs
from manifests.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A commit and its id."""

    commit_id: str
    commit: Commit


def history(store: Store, ref: str) -> Iterator[HistoryEntry]:
    """Every commit reachable from a ref, once: newest first, never before the child that led there.

    Raises:
        RefError: no such ref.
        ObjectMissingError, ObjectDamagedError: a commit of the chain cannot be read.
    """
    first = _read(store, Refs(store).resolve(ref))
    seen = {first.commit_id}
    # Clocks jump: a parent may claim to be younger than its child. Within a chain it is not pushed
    # before the child was yielded; between chains the clocks decide.
    queue = [(_newest_first(first.commit), first.commit_id, first)]
    while queue:
        *_, entry = heapq.heappop(queue)
        yield entry
        for parent_id in entry.commit.parents:
            if parent_id not in seen:
                seen.add(parent_id)
                parent = _read(store, parent_id)
                heapq.heappush(queue, (_newest_first(parent.commit), parent_id, parent))


def newest(store: Store, ref: str, matches: Callable[[Commit], bool]) -> HistoryEntry | None:
    """The newest commit reachable from a ref that matches, or None.

    Raises: as `history`.
    """
    return next((entry for entry in history(store, ref) if matches(entry.commit)), None)


def _read(store: Store, commit_id: str) -> HistoryEntry:
    return HistoryEntry(commit_id=commit_id, commit=Commit.load(store, commit_id))


def _newest_first(commit: Commit) -> tuple[int, ...]:
    """Sorts by falling time; times are strings of one length."""
    return tuple(-ord(character) for character in commit.time)
