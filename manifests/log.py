"""The history of refs: every commit once, never before one of its children, whatever clocks say."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from manifests.commit import Commit
from manifests.commit_reader import CommitReader
from manifests.errors import InputError
from manifests.manifest import Manifest
from manifests.refs import Refs
from manifests.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A commit in a log.

    Attributes:
        commit_id, commit: which it is.
        parents: the nearest ancestors that are in the log, too; its parents if all are.
        refs: branches that are at it, and tags as `tag: v1`.
    """

    commit_id: str
    commit: Commit
    parents: tuple[str, ...]
    refs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What to show of a history.

    Attributes:
        layer: only commits that changed a cell of this layer; empty: all.
        operation: only commits of this operation; empty: all.
        limit: commits at most; 0: all.
        in_lines: one line of development after the other, as a graph wants them; otherwise the
            newest first.
    """

    layer: str = ""
    operation: str = ""
    limit: int = 0
    in_lines: bool = False

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InputError(f"limit: expected 0 (all) or more, got {self.limit}")


def log(store: Store, refs: Sequence[str], options: LogOptions) -> Iterator[LogEntry]:
    """The commits that refs lead to, each read when it is asked for as far as order allows.

    Raises:
        RefError: there is no such ref.
        ObjectMissingError, ObjectDamagedError: a commit cannot be read.
    """
    names = Refs(store)
    branches, tags = names.branches(), names.tags()
    tips = {ref: branches.get(ref) or names.resolve(ref) for ref in refs}
    at = _names_of(branches, tags)
    known = [branch for branch, head in branches.items() if head in tips.values()]
    reader = CommitReader(store, branches=known)
    order = in_order(reader, list(tips.values()), in_lines=options.in_lines)
    entries: Iterator[LogEntry] = (
        LogEntry(commit_id=id_, commit=commit, parents=commit.parents, refs=at.get(id_, ()))
        for id_, commit in order
    )
    if options.layer or options.operation:
        entries = _only(entries, _filter(reader, options), joined=options.in_lines)
    return islice(entries, options.limit or None)


def all_refs(store: Store) -> list[str]:
    """Every branch and tag. Raises StoreError."""
    refs = Refs(store)
    return [*refs.branches(), *refs.tags()]


def in_order(
    reader: CommitReader, tips: Sequence[str], *, in_lines: bool = False
) -> Iterator[tuple[str, Commit]]:
    """Commits with their ids, children first; what is unrelated by time or line by line.

    A piece of history ends where all lines run together again: only so far has to be read before
    its first commit can be shown.

    Raises: as `CommitReader.get`.
    """
    frontier = dict.fromkeys(tips)
    while frontier:
        piece, frontier = _piece(reader, frontier)
        yield from _sorted(piece, tips, in_lines=in_lines)


def _piece(
    reader: CommitReader, frontier: Mapping[str, None]
) -> tuple[dict[str, Commit], dict[str, None]]:
    """Commits from the frontier on, until one is left that everything unread is behind.

    A commit without parents is behind nothing, so after it everything has to be read.
    """
    waiting = reader.get_all(frontier)
    queue = [(_newest_first(commit), commit_id) for commit_id, commit in waiting.items()]
    heapq.heapify(queue)
    piece: dict[str, Commit] = {}
    has_root = False
    while queue and (not piece or len(queue) > 1 or has_root):
        commit_id = heapq.heappop(queue)[1]
        piece[commit_id] = waiting.pop(commit_id)
        has_root = has_root or not piece[commit_id].parents
        new = [id_ for id_ in piece[commit_id].parents if id_ not in piece and id_ not in waiting]
        if not queue and len(new) == 1 and not has_root:
            return piece, dict.fromkeys(new)  # not read before somebody asks for it
        for parent_id, parent in reader.get_all(new).items():
            waiting[parent_id] = parent
            heapq.heappush(queue, (_newest_first(parent), parent_id))
    return piece, dict.fromkeys(commit_id for _, commit_id in queue)


def _sorted(
    piece: Mapping[str, Commit], tips: Sequence[str], *, in_lines: bool
) -> Iterator[tuple[str, Commit]]:
    num_children = Counter(
        parent for commit in piece.values() for parent in set(commit.parents) if parent in piece
    )
    ready = sorted(
        (commit_id for commit_id in piece if not num_children[commit_id]),
        key=lambda commit_id: (_newest_first(piece[commit_id]), commit_id),
        reverse=True,  # the last is the next
    )
    while ready:
        commit_id = ready.pop()
        commit = piece[commit_id]
        yield commit_id, commit
        for parent in dict.fromkeys(commit.parents):
            if parent in piece:
                num_children[parent] -= 1
                if not num_children[parent]:
                    ready.append(parent)
        if not in_lines:
            ready.sort(key=lambda id_: (_newest_first(piece[id_]), id_), reverse=True)


def _newest_first(commit: Commit) -> tuple[int, ...]:
    """Sorts by falling time; times are strings of one length."""
    return tuple(-ord(character) for character in commit.time)


def _names_of(branches: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for branch, commit_id in branches.items():
        found[commit_id].append(branch)
    for tag, commit_id in tags.items():
        found[commit_id].append(f"tag: {tag}")
    return {commit_id: tuple(names) for commit_id, names in found.items()}


# -- filters -------------------------------------------------------------------------------------


def _filter(reader: CommitReader, options: LogOptions) -> Callable[[LogEntry], bool]:
    changes = LayerChanges(reader)

    def matches(entry: LogEntry) -> bool:
        is_operation = options.operation in ("", entry.commit.operation.name)
        return is_operation and (not options.layer or changes.has(entry.commit, options.layer))

    return matches


class LayerChanges:
    """Whether commits changed a layer: as they say, or by comparing manifests where they do not."""

    def __init__(self, reader: CommitReader) -> None:
        self._reader = reader
        self._last: dict[str, Manifest] = {}

    def has(self, commit: Commit, layer: str) -> bool:
        """Whether the layer differs from every parent's: a merge that took one side's made nothing.

        Raises: as `CommitReader.get`, and for manifests that cannot be read.
        """
        if commit.changes is not None and layer not in commit.changes:
            return False
        if commit.changes is not None and len(commit.parents) == 1:
            return True
        mine = self._cells(commit, layer)
        if not commit.parents:
            return bool(mine)
        parents = self._reader.get_all(commit.parents).values()
        return all(mine != self._cells(parent, layer) for parent in parents)

    def _cells(self, commit: Commit, layer: str) -> dict[str, str]:
        """Shard -> object. The last manifests are kept: each is compared with its neighbours."""
        if commit.manifest not in self._last:
            while len(self._last) > 3:
                self._last.pop(next(iter(self._last)))
            self._last[commit.manifest] = Manifest.load(self._reader.store, commit.manifest)
        return {cell.shard: cell.object_id for cell in self._last[commit.manifest].of_layer(layer)}


def _only(
    entries: Iterable[LogEntry], matches: Callable[[LogEntry], bool], *, joined: bool
) -> Iterator[LogEntry]:
    """The entries that match; `joined` makes their parents those that match as well."""
    if not joined:
        yield from filter(matches, entries)
        return
    every = list(entries)
    shown = {entry.commit_id for entry in every if matches(entry)}
    nearest: dict[str, tuple[str, ...]] = {}
    for entry in reversed(every):  # parents first
        behind = dict.fromkeys(
            near
            for parent in entry.parents
            for near in ((parent,) if parent in shown else nearest.get(parent, ()))
        )
        nearest[entry.commit_id] = tuple(behind)
    below = _ancestors_of_siblings(nearest, shown)
    for entry in every:
        if entry.commit_id in shown:
            parents = tuple(
                parent for parent in nearest[entry.commit_id]
                if parent not in below.get(entry.commit_id, ())
            )  # fmt: skip
            yield LogEntry(
                commit_id=entry.commit_id, commit=entry.commit, parents=parents, refs=entry.refs
            )


def _ancestors_of_siblings(
    nearest: Mapping[str, tuple[str, ...]], shown: set[str]
) -> dict[str, set[str]]:
    """For each commit with several parents: which of them another of them leads to anyhow."""
    found: dict[str, set[str]] = {}
    for commit_id, parents in nearest.items():
        if commit_id in shown and len(parents) > 1:
            seen: set[str] = set()
            queue = [near for parent in parents for near in nearest[parent]]
            while queue:
                ancestor = queue.pop()
                if ancestor not in seen:
                    seen.add(ancestor)
                    queue += nearest[ancestor]
            found[commit_id] = seen
    return found
