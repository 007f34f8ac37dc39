"""Which commits one store has and another lacks, found with as few requests as the answer has rows.

Two walks from the heads of both sides, newest first, as if they were one: it ends as soon as every
commit it still has to visit is known to be on the other side. Commits that both have are complete
there, because a commit is published after everything that it names.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from manifests import ancestry
from manifests.commit import Commit
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.store import Store

_WANTED, _THERE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLinks:
    """What a commit points to. Ten thousand of these are small; whole commits would not be.

    `hanging` as in Commit.
    """

    commit_id: str
    parents: tuple[str, ...]
    manifest: str
    hanging: Mapping[str, str]
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommits:
    """What the other side lacks.

    Attributes:
        commits: parents before children.
        common: their parents that the other side has.
    """

    commits: tuple[CommitLinks, ...]
    common: tuple[CommitLinks, ...]


def new_commits(
    stores: Sequence[Store], *, wanted: Collection[str], there: Collection[str]
) -> NewCommits:
    """Every commit that is reachable from `wanted` and not from `there`.

    Times decide only how soon the walk ends: where clocks jumped, a commit that is there already
    may be named as well, never the other way round.

    Args:
        stores: where commits are read from, the nearest first.
        wanted: commit ids to be sent; at least one of the stores has their whole history.
        there: heads of the other side; those that cannot be read count as not there.

    Raises:
        ObjectMissingError, ObjectDamagedError: a wanted commit or its ancestor cannot be read.
    """
    walk = _Walk(stores)
    for commit_id in there:
        walk.mark(commit_id, _THERE)
    for commit_id in wanted:
        walk.mark(commit_id, _WANTED)
    while walk.is_open():
        walk.step()
    return walk.result()


def is_ancestor(store: Store, ancestor: str, *, of: str) -> bool:
    """Whether `of`, which the store has, is that commit or has it in its history.

    Raises:
        ObjectMissingError, ObjectDamagedError: a commit on the way cannot be read.
    """
    # A store that has a commit has all of its history.
    return store.object_size(ancestor) is not None and ancestry.is_ancestor(store, ancestor, of)


def read_links(stores: Sequence[Store], commit_id: str) -> CommitLinks:
    """A commit from the first store that has it.

    Raises:
        ObjectMissingError, ObjectDamagedError: none has it, or one has it damaged.
    """
    for store in stores[:-1]:
        try:
            return _links(store, commit_id)
        except ObjectMissingError:
            continue
    return _links(stores[-1], commit_id)


def _links(store: Store, commit_id: str) -> CommitLinks:
    commit = Commit.load(store, commit_id)
    return CommitLinks(
        commit_id=commit_id,
        parents=commit.parents,
        manifest=commit.manifest,
        hanging=commit.hanging,
        time=commit.time,
    )


class _Walk:
    """Commits by falling time; each carries from which side it can be reached."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores
        self._links: dict[str, CommitLinks] = {}
        self._marks: dict[str, int] = {}
        self._queue: list[tuple[tuple[int, ...], str]] = []
        self._open: set[str] = set()  # in the queue, and not known to be there

    def is_open(self) -> bool:
        return bool(self._open)

    def mark(self, commit_id: str, mark: int) -> None:
        """Adds a mark, and visits the commit (again) if that is news."""
        before = self._marks.get(commit_id, 0)
        if before | mark == before:
            return
        if not self._read(commit_id, needed=mark == _WANTED):
            return
        self._marks[commit_id] = before | mark
        if self._marks[commit_id] == _WANTED:
            self._open.add(commit_id)
        else:
            self._open.discard(commit_id)
        # Sorts by falling time; times are strings of one length.
        newest_first = tuple(-ord(character) for character in self._links[commit_id].time)
        heapq.heappush(self._queue, (newest_first, commit_id))

    def step(self) -> None:
        """Hands the newest commit's marks on to its parents."""
        _, commit_id = heapq.heappop(self._queue)
        self._open.discard(commit_id)
        for parent in self._links[commit_id].parents:
            for mark in (_THERE, _WANTED):
                if self._marks[commit_id] & mark:
                    self.mark(parent, mark)

    def result(self) -> NewCommits:
        new = {name: self._links[name] for name, mark in self._marks.items() if mark == _WANTED}
        parents = {name: [p for p in links.parents if p in new] for name, links in new.items()}
        common = {parent for links in new.values() for parent in links.parents} - new.keys()
        return NewCommits(
            commits=tuple(new[name] for name in TopologicalSorter(parents).static_order()),
            common=tuple(self._links[name] for name in sorted(common)),
        )

    def _read(self, commit_id: str, *, needed: bool) -> bool:
        if commit_id not in self._links:
            try:
                self._links[commit_id] = read_links(self._stores, commit_id)
            except (ObjectMissingError, ObjectDamagedError):
                if needed:
                    raise
                return False
        return True
