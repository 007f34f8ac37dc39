"""Commits by id, fetched many at a time: a branch's own log tells which will be wanted next.

A commit names its parents, so a history can only be read one commit after the other. The entries
of a branch's log can be read all at once, and between two of them lie only a few commits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from manifests import layout
from manifests.commit import Commit
from manifests.errors import MaskmillError
from manifests.refs import RefEntry, Refs
from manifests.store import Store

_THREADS = 32
# A request for an entry brings this many commits, each read by the one before it.
_STRIDE = 8
# Before the logs are looked at: most who ask want to see a few commits.
_PATIENCE = 8
_FIRST_CHAINS, _MOST_CHAINS = 4, 64
_KEPT = 1024


class CommitReader:
    """Keeps the last thousand commits. Not for several threads."""

    def __init__(self, store: Store, *, branches: Sequence[str] = ()) -> None:
        """Makes no request yet.

        Args:
            store: where the commits are.
            branches: whose logs tell what comes next, if their heads are where reading begins.
        """
        self.store = store
        self._branches = branches
        self._known: OrderedDict[str, Commit] = OrderedDict()
        self._misses = 0
        self._num_chains = _FIRST_CHAINS
        self._entries: Iterator[tuple[str, int]] | None = None

    def get(self, commit_id: str) -> Commit:
        """A commit. Raises ObjectMissingError, ObjectDamagedError, StoreError as `Commit.load`."""
        if commit_id not in self._known:
            self._misses += 1
            if self._misses > _PATIENCE:
                self._fetch_ahead()
        if commit_id not in self._known:
            self._keep(commit_id, Commit.load(self.store, commit_id))
        self._known.move_to_end(commit_id)
        return self._known[commit_id]

    def get_all(self, commit_ids: Iterable[str]) -> dict[str, Commit]:
        """Several commits, those that are not there yet at once. Raises: as `get`."""
        wanted = list(dict.fromkeys(commit_ids))
        lacking = [commit_id for commit_id in wanted if commit_id not in self._known]
        if len(lacking) > 1:
            with ThreadPoolExecutor(_THREADS) as threads:
                loaded = list(threads.map(self._load, lacking))
            return {id_: self._known[id_] for id_ in wanted if id_ in self._known} | dict(
                zip(lacking, loaded, strict=True)
            )
        return {commit_id: self.get(commit_id) for commit_id in wanted}

    def _load(self, commit_id: str) -> Commit:
        return Commit.load(self.store, commit_id)

    def _keep(self, commit_id: str, commit: Commit) -> None:
        self._known[commit_id] = commit
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)

    def _fetch_ahead(self) -> None:
        """The next chains of commits that the logs lead to; whatever goes wrong is no matter."""
        if self._entries is None:
            self._entries = _every_few_entries(self.store, self._branches)
        chains = [entry for entry, _ in zip(self._entries, range(self._num_chains), strict=False)]
        self._num_chains = min(2 * self._num_chains, _MOST_CHAINS)
        if not chains:
            return
        with ThreadPoolExecutor(_THREADS) as threads:
            for chain in threads.map(lambda entry: self._chain(*entry), chains):
                for commit_id, commit in chain.items():
                    self._keep(commit_id, commit)

    def _chain(self, branch: str, number: int) -> dict[str, Commit]:
        """The commit of a log's entry, and some of those before it."""
        found: dict[str, Commit] = {}
        try:
            commit_id = _entry(self.store, branch, number).commit
            while commit_id and commit_id not in self._known and len(found) < _STRIDE:
                found[commit_id] = self._load(commit_id)
                commit_id = next(iter(found[commit_id].parents), "")
        except (MaskmillError, msgspec.MsgspecError):
            pass  # only a guess: who really needs the commit is told
        return found


def _every_few_entries(store: Store, branches: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(branch, number of an entry), newest first, the branches in turn."""
    heads = {branch: Refs(store).head(branch) for branch in branches}
    numbers = {branch: entry.number for branch, entry in heads.items() if entry}
    while numbers:
        for branch, number in list(numbers.items()):
            yield branch, number
            numbers[branch] = number - _STRIDE
            if numbers[branch] < 1:
                del numbers[branch]


def _entry(store: Store, branch: str, number: int) -> RefEntry:
    data = store.read_optional(layout.ref_entry_path(layout.HEADS, branch, number)) or b""
    return msgspec.json.decode(data, type=RefEntry)
