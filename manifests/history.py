"""Walking from a commit to its parents."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
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
    """Every commit reachable from a ref, once: newest first, never before a child that led there.

    Raises:
        RefError: no such ref.
        ObjectMissingError, ObjectDamagedError: a commit of the chain cannot be read.
    """
    start = Refs(store).resolve(ref)
    seen = {start}
    # Clocks jump: time orders what is free to be ordered, the heap never yields a parent first
    # within a chain because a parent is pushed only after its child.
    queue = [(_newest_first(Commit.load(store, start)), start)]
    while queue:
        _, commit_id = heapq.heappop(queue)
        commit = Commit.load(store, commit_id)
        yield HistoryEntry(commit_id=commit_id, commit=commit)
        for parent in commit.parents:
            if parent not in seen:
                seen.add(parent)
                heapq.heappush(queue, (_newest_first(Commit.load(store, parent)), parent))


def _newest_first(commit: Commit) -> tuple[int, ...]:
    return tuple(-ord(character) for character in commit.time)
