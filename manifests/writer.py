"""The start and the end of one step: a branch as it was found, and a commit on top of it.

A branch that moved meanwhile is no reason to lose the work: what this step and the others did is
merged cell by cell, and only cells that both changed stop it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from manifests.commit import Category, Commit, Operation, default_author, now
from manifests.dataset import Dataset
from manifests.digest import sha256_hex
from manifests.errors import CommitConflictError, NothingToCommitError, RefError
from manifests.ledger import Ledger
from manifests.manifest import Manifest
from manifests.merge_states import State, merge_states
from manifests.models import is_model
from manifests.pins import Pin, check_objects, check_there, wait_for_sweep
from manifests.refs import RefEntry, Refs
from manifests.removed import Removals
from manifests.store import Store
from manifests.three_way import cell_changes, new_cells

log = logging.getLogger(__name__)

_PATIENCE_S = 900.0
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A commit but for its place in history.

    Attributes:
        manifest: what the dataset is to hold.
        categories, removals: as the commit will say.
        operation, ledger, message, rejects, attached, quality: see Commit.
        merged: commits that become parents beside the branch's head.
        even_if_unchanged: commits the ledger of an operation that could keep nothing at all.
    """

    manifest: Manifest
    categories: tuple[Category, ...]
    removals: Removals
    operation: Operation
    ledger: Ledger
    message: str
    rejects: str | None = None
    attached: Mapping[str, str] | None = None
    quality: Mapping[str, Any] | None = None  # Any: JSON
    merged: tuple[str, ...] = ()
    even_if_unchanged: bool = False

    @staticmethod
    def on(
        dataset: Dataset,
        manifest: Manifest,
        *,
        operation: Operation,
        ledger: Ledger,
        message: str,
        categories: tuple[Category, ...] | None = None,
        removals: Removals | None = None,
        **more: Any,  # Any: the other fields
    ) -> Draft:
        """What an operation made of a dataset; categories and removals are as before unless given.

        Raises:
            ObjectMissingError, ObjectDamagedError: the dataset's removals cannot be read.
        """
        found = dataset.commit
        return Draft(
            manifest=manifest,
            categories=found.categories if categories is None else categories,
            removals=Removals.load(dataset.store, found) if removals is None else removals,
            operation=operation,
            ledger=ledger,
            message=message,
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A draft on top of a head. `looked_for` are objects that were there after they were pinned."""

    draft: Draft
    onto: Dataset
    entry: RefEntry
    looked_for: set[str] = field(default_factory=set)


class Writer:
    """Remembers where a branch was, and commits on top of it or of what others added meanwhile.

    Usage: open it, read `dataset`, do the work, `commit(...)` a manifest or `publish(...)` a draft.
    """

    def __init__(self, store: Store, branch: str) -> None:
        """Raises StoreError without a store, RefError without the branch or for a student's."""
        store.check_is_store()
        if is_model(branch):
            raise RefError(
                f"branch '{branch}' holds the checkpoints of a student, so no data can be "
                "committed to it; give another branch"
            )
        self.store, self.branch = store, branch
        self._refs = Refs(store)
        self._entry = self._head()
        self.dataset = Dataset(store, self._entry.commit)

    def commit(
        self,
        manifest: Manifest,
        *,
        operation: Operation,
        ledger: Ledger,
        message: str,
        categories: tuple[Category, ...] | None = None,
        rejects: str | None = None,
        removals: Removals | None = None,
        merged: tuple[str, ...] = (),
        even_if_unchanged: bool = False,
    ) -> str:
        """Publishes a draft on the dataset; see Draft and `publish`."""
        draft = Draft.on(
            self.dataset, manifest, operation=operation, ledger=ledger, message=message,
            categories=categories, rejects=rejects, removals=removals, merged=merged,
            even_if_unchanged=even_if_unchanged,
        )  # fmt: skip
        return self.publish(draft)

    def publish(self, first: Draft) -> str:
        """Stores manifest and commit, then moves the branch; returns the commit id.

        Raises:
            NothingToCommitError: nothing would change (same manifest as the parent).
            LedgerImbalanceError: the ledger does not balance.
            CommitConflictError: the branch moved meanwhile and has other cells in the same places;
                the work is in the store, so repeating the command costs little.
            CommitError: `gc` took objects of this work away.
        """
        attempt = _Attempt(draft=first, onto=self.dataset, entry=self._entry)
        began, pause_s = time.monotonic(), _FIRST_PAUSE_S
        pin = Pin(self.store)
        try:
            while True:
                try:
                    return self._publish(attempt, pin)
                except CommitConflictError:
                    if time.monotonic() - began > _PATIENCE_S:
                        raise
                # Who has lost more often waits less: newcomers must not starve the others.
                time.sleep(random.uniform(0, pause_s))  # noqa: S311  so that rivals part
                pause_s /= 2
                attempt = self._next(attempt, first)
        finally:
            pin.remove()

    def _next(self, lost: _Attempt, first: Draft) -> _Attempt:
        """The same step on top of what others did meanwhile; raises where both changed a cell."""
        entry = self._head(after=lost.entry.number + 1)
        onto = Dataset(self.store, entry.commit)
        log.info("branch %s moved to %s: trying on top of it", self.branch, entry.commit)
        draft = self._rebased(first, onto)
        return _Attempt(draft=draft, onto=onto, entry=entry, looked_for=lost.looked_for)

    def _rebased(self, draft: Draft, onto: Dataset) -> Draft:
        merged = merge_states(
            self.store,
            State.of(self.dataset),
            State.of(onto),
            State(manifest=draft.manifest, categories=draft.categories, removals=draft.removals),
        )
        made = {cell.object_id for cell in new_cells(draft.manifest, self.dataset.manifest)}
        if merged.conflicts or any(cell.object_id in made for cell in merged.stale):
            raise CommitConflictError(
                branch=self.branch, expected=self.dataset.commit_id, found=onto.commit_id
            )
        state = merged.state
        return replace(
            draft,
            manifest=state.manifest,
            categories=state.categories,
            removals=state.removals,
        )

    def _head(self, *, after: int = 0) -> RefEntry:
        entry = self._refs.head(self.branch, after=after)
        if entry is None:
            self._refs.resolve(self.branch)  # names the nearest if there is nothing of that name
            raise RefError(f"'{self.branch}' is not a branch, so nothing can be committed to it")
        return entry

    def move_to(self, commit_id: str, *, reason: str) -> None:
        """Moves the branch to a commit that is there, pinned and looked for: see manifests.merge.

        Raises:
            CommitConflictError: the branch moved meanwhile.
        """
        self._refs.advance(self.branch, expected=self._entry, commit=commit_id, reason=reason)

    def _publish(self, attempt: _Attempt, pin: Pin) -> str:
        """Stores what is new besides the cells, pins it, and moves the branch (manifests.pins)."""
        draft, onto = attempt.draft, attempt.onto
        manifest = draft.manifest.to_bytes()
        manifest_id = sha256_hex(manifest)
        removed = draft.removals.save(self.store)
        is_same = manifest_id == onto.commit.manifest and removed == onto.commit.removed
        if is_same and not draft.merged and not draft.even_if_unchanged:
            raise NothingToCommitError(
                operation=draft.operation.name, branch=self.branch, commit_id=onto.commit_id
            )
        commit = self._commit(attempt, manifest_id, removed).to_bytes()
        commit_id = sha256_hex(commit)
        with ThreadPoolExecutor(3) as threads:  # three requests in the time of one
            pinning = threads.submit(pin.name, commit_id)
            list(threads.map(self.store.put_bytes, (manifest, commit)))
            pinning.result()
        cells = new_cells(draft.manifest, onto.manifest)
        if wait_for_sweep(self.store):
            attempt.looked_for.clear()
            attached = (draft.attached or {}).values()
            check_objects(self.store, [commit_id, manifest_id, removed, draft.rejects, *attached])
        check_there(self.store, [c for c in cells if c.object_id not in attempt.looked_for])
        attempt.looked_for.update(cell.object_id for cell in cells)
        self._refs.advance(
            self.branch, expected=attempt.entry, commit=commit_id, reason=draft.operation.name
        )
        return commit_id

    def _commit(self, attempt: _Attempt, manifest_id: str, removed: str | None) -> Commit:
        draft, onto = attempt.draft, attempt.onto
        return Commit(
            parents=(onto.commit_id, *draft.merged),
            manifest=manifest_id,
            author=default_author(),
            message=draft.message,
            time=now(),
            operation=draft.operation,
            categories=draft.categories,
            ledger=draft.ledger,
            rejects=draft.rejects,
            removed=removed,
            changes=cell_changes(onto.manifest, draft.manifest),
            base=None if onto.commit_id == self.dataset.commit_id else self.dataset.commit_id,
            attached=draft.attached,
            quality=draft.quality,
        )
