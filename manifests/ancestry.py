"""Who descends from whom: ancestors, and the commits at which two histories parted."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import datetime

from manifests.commit import Commit
from manifests.store import Store

_OURS, _THEIRS = 1, 2
_COMMON = _OURS | _THEIRS


def is_ancestor(store: Store, older: str, newer: str) -> bool:
    """Whether `newer` is `older` or descends from it. Raises as `Commit.load`."""
    return older in merge_bases(store, older, newer)


def merge_bases(store: Store, ours: str, theirs: str) -> tuple[str, ...]:
    """The newest common ancestors of two commits, none an ancestor of another, sorted.

    One as a rule, none for unrelated histories, several where branches were merged crosswise.
    Histories are walked newest first and only as far as they differ, as far as clocks tell.

    Raises:
        ObjectMissingError, ObjectDamagedError: a commit cannot be read.
    """
    walk = _Walk(store)
    walk.push(ours, _OURS)
    walk.push(theirs, _THEIRS)
    found: list[str] = []
    while walk.is_open():
        commit_id = walk.pop()
        sides = walk.sides[commit_id]
        if sides == _COMMON and commit_id not in walk.below:
            found.append(commit_id)
        for parent in walk.commits[commit_id].parents:
            if sides == _COMMON:
                walk.below.add(parent)
            walk.push(parent, sides)
    best = [commit_id for commit_id in dict.fromkeys(found) if commit_id not in walk.below]
    return tuple(sorted(_without_ancestors(store, best)))


@dataclass(slots=True)
class _Walk:
    """A walk from two commits at once; `sides` says from which of them a commit was reached.

    `below` are commits under one that both reach.
    """

    store: Store
    commits: dict[str, Commit] = field(default_factory=dict)
    sides: dict[str, int] = field(default_factory=dict)
    below: set[str] = field(default_factory=set)
    _queue: list[tuple[float, str]] = field(default_factory=list)

    def push(self, commit_id: str, sides: int) -> None:
        """Visits a commit, again if it was not known to be reached from that side."""
        before = self.sides.get(commit_id, 0)
        if before | sides == before:
            return
        self.sides[commit_id] = before | sides
        if commit_id not in self.commits:
            self.commits[commit_id] = Commit.load(self.store, commit_id)
        heapq.heappush(self._queue, (-_seconds(self.commits[commit_id]), commit_id))

    def pop(self) -> str:
        """The newest commit to visit."""
        return heapq.heappop(self._queue)[1]

    def is_open(self) -> bool:
        """Whether anything queued can still tell something new."""
        return any(
            self.sides[commit_id] != _COMMON or commit_id not in self.below
            for _, commit_id in self._queue
        )


def _without_ancestors(store: Store, commits: list[str]) -> list[str]:
    """Only where clocks misled the walk, or branches crossed, is there more than one to look at."""
    if len(commits) < 2:
        return commits
    ancestors: set[str] = set()
    for commit_id in commits:
        queue = list(Commit.load(store, commit_id).parents)
        while queue:
            parent = queue.pop()
            if parent not in ancestors:
                ancestors.add(parent)
                queue += Commit.load(store, parent).parents
    return [commit_id for commit_id in commits if commit_id not in ancestors]


def _seconds(commit: Commit) -> float:
    try:
        return datetime.fromisoformat(commit.time).timestamp()
    except ValueError:
        return 0.0
