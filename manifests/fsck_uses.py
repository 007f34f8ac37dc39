"""Who needs an object: cells, commits, and the refs that have these commits behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from manifests.findings import CellName
from manifests.fsck_refs import RefLog
from manifests.fsck_stock import CommitFacts, Stock, cell_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """Who needs one object.

    Attributes:
        role: "commit", "manifest", "cell", or what `Commit.hanging` calls it.
        cells: the cells it is.
        commits: those that need it and can be read, newest first.
        heads: refs whose own commit needs it.
        histories: other refs that have such a commit behind them.
        logs: "main@{3}": what only a branch's log still names.
    """

    role: str
    cells: tuple[CellName, ...] = ()
    commits: tuple[CommitFacts, ...] = ()
    heads: tuple[str, ...] = ()
    histories: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()

    @property
    def is_needed(self) -> bool:
        """Whether a ref leads to it; what only logs name, `gc` may have taken."""
        return bool(self.heads or self.histories)


class UseFinder:
    """Answers for one stock."""

    def __init__(self, stock: Stock, heads: Mapping[str, str], logs: Collection[RefLog]) -> None:
        """`heads` are ref -> commit id."""
        self._stock, self._heads, self._logs = stock, heads, logs

    def of_cells(self, object_ids: Collection[str]) -> dict[str, Uses]:
        """Of objects that are cells, in one pass over all manifests."""
        stock, wanted = self._stock, set(object_ids)
        is_wanted = np.array([cell.object_id in wanted for cell in stock.cells], dtype=bool)
        names: dict[str, dict[CellName, None]] = {}
        manifests: dict[str, set[str]] = {}
        for manifest, numbers in stock.of_manifest.items():
            for number in numbers[is_wanted[numbers]].tolist():
                cell = stock.cells[number]
                names.setdefault(cell.object_id, {})[cell_name(cell)] = None
                manifests.setdefault(cell.object_id, set()).add(manifest)
        by_manifest: dict[str, list[CommitFacts]] = {}
        for commit in stock.commits.values():
            by_manifest.setdefault(commit.manifest, []).append(commit)
        return {
            object_id: self._uses(
                "cell",
                [commit for manifest in manifests[object_id] for commit in by_manifest[manifest]],
                cells=tuple(found),
            )
            for object_id, found in names.items()
        }

    def of_other(self, object_id: str) -> Uses | None:
        """Of an object that hangs on commits, or is one; None: it is neither."""
        commits = self._stock.commits.values()
        if self.is_commit(object_id):
            children = [commit for commit in commits if object_id in commit.parents]
            own = self._stock.commits.get(object_id)
            return self._uses("commit", [*children, *([own] if own else [])], commit_id=object_id)
        if users := [commit for commit in commits if commit.manifest == object_id]:
            return self._uses("manifest", users)
        if users := [commit for commit in commits if object_id in commit.hanging]:
            return self._uses(users[0].hanging[object_id], users)
        return None

    def is_commit(self, object_id: str) -> bool:
        """Whether a ref, a log or a commit names it as a commit."""
        return object_id in self._commit_ids

    def refs_with(self, commit_id: str) -> tuple[str, ...]:
        """Refs that have a commit behind them, or point to it."""
        return tuple(ref for ref, reached in self._reached.items() if commit_id in reached)

    def _uses(
        self,
        role: str,
        commits: Collection[CommitFacts],
        *,
        cells: tuple[CellName, ...] = (),
        commit_id: str = "",
    ) -> Uses:
        """`commit_id` is the object itself, if it is a commit: then `commits` are its children."""
        ids = {commit_id} if commit_id else {commit.commit_id for commit in commits}
        heads = tuple(ref for ref, head in self._heads.items() if head in ids)
        behind = ids | {commit.commit_id for commit in commits}
        histories = tuple(
            ref
            for ref, reached in self._reached.items()
            if ref not in heads and not behind.isdisjoint(reached)
        )
        logs = [] if heads or histories else [log for id_ in ids for log in self._in_logs(id_)]
        newest_first = sorted(commits, key=lambda c: (c.time, c.commit_id), reverse=True)
        return Uses(
            role=role, cells=cells, commits=tuple(newest_first), heads=heads,
            histories=histories, logs=tuple(logs),
        )  # fmt: skip

    def _in_logs(self, commit_id: str) -> Iterator[str]:
        """`main@{3}` where a log names a commit, or one that has it behind it."""
        for log in self._logs:
            for entry in reversed(log.entries):
                if commit_id in self._behind(entry.commit):
                    yield f"{log.label}@{{{log.newest - entry.number}}}"
                    break  # one entry of each log says enough

    @cached_property
    def _commit_ids(self) -> frozenset[str]:
        named = {*self._stock.commits, *self._heads.values()}
        named |= {entry.commit for log in self._logs for entry in log.entries}
        return frozenset(
            named | {id_ for commit in self._stock.commits.values() for id_ in commit.parents}
        )

    @cached_property
    def _reached(self) -> dict[str, frozenset[str]]:
        return {ref: self._behind(head) for ref, head in self._heads.items()}

    def _behind(self, commit_id: str) -> frozenset[str]:
        """A commit and all that is behind it."""
        reached, front = {commit_id}, [commit_id]
        while front:
            commit = self._stock.commits.get(front.pop())
            fresh = [id_ for id_ in (commit.parents if commit else ()) if id_ not in reached]
            reached.update(fresh)
            front += fresh
        return frozenset(reached)
