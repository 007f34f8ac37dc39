"""Make a commit again, from the commit it was made from, and compare what comes of it.

The work is really done: result records are kept apart, so none of the first time is found, and are
removed at the end. No branch is read from or moved. Objects that come out the same are the same
objects; others belong to no commit, and `gc` removes them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.again import Again, ReproduceConfig
from engine.preconditions import findings
from engine.remake import OPERATIONS
from engine.run import Listener, Silence
from manifests.commit import Commit, Operation
from manifests.contents import Comparison, Contents, compare
from manifests.dataset import Dataset
from manifests.errors import (
    CommitError,
    JobInterruptedError,
    MaskmillError,
    OutcomeDiffersError,
)
from manifests.history import history
from manifests.merge_states import State, merge_states
from manifests.refs import Refs
from manifests.results import drop_scratch
from manifests.store import Store
from manifests.writer import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of making a commit again.

    Attributes:
        commit_id: the commit.
        operation: the name of what made it.
        warnings: what was not as it was the first time, a sentence each.
        comparison: how the outcomes differ.
    """

    commit_id: str
    operation: str
    warnings: tuple[str, ...]
    comparison: Comparison

    @property
    def is_same(self) -> bool:
        """Whether its contents came out the same."""
        return self.comparison.is_same

    def require_same(self) -> None:
        """Raises OutcomeDiffersError, unless the contents came out the same."""
        if not self.is_same:
            found = self.comparison
            because = "; what has changed since is above" if self.warnings else ""
            raise OutcomeDiffersError(
                f"commit {self.commit_id[:12]} ({self.operation}) came out different: "
                f"{found.num_differing:,} of {found.num_made:,} cells and "
                f"{len(found.sentences):,} facts beside them{because}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStep:
    """One commit of a chain: made again, or why it could not be."""

    commit_id: str
    operation: str
    reproduction: Reproduction | None
    error: MaskmillError | None


def reproduce(
    store: Store,
    ref: str,
    config: ReproduceConfig | None = None,
    listener: Listener | None = None,
) -> Reproduction:
    """Makes a commit again and compares its contents.

    Raises:
        RefError: no such ref.
        ObjectMissingError, ObjectDamagedError: the commit, or what it was made from, cannot be
            read; or its images were taken down.
        InputError: its source cannot be read, its settings are unknown to this version, or its
            operation cannot be made again.
        WeightsError: the weights it was drawn with are not to be had.
        JobError, JobInterruptedError: the job did not finish.
    """
    listener = listener or Silence()
    commit_id = Refs(store).resolve(ref)
    apart = Store(store.url, f"reproduce-{uuid.uuid4().hex}")
    commit = Commit.load(apart, commit_id)
    started_from = commit.base or next(iter(commit.parents), None)
    again = Again(
        store=apart,
        commit_id=commit_id,
        commit=commit,
        base=Dataset(apart, started_from) if started_from else None,
        config=config or ReproduceConfig(),
        on_progress=listener.progress,
    )
    warnings = _told(again, listener)
    listener.step(f"{commit.operation.name} of {again.name}, again")
    try:
        draft = _onto_parent(again, OPERATIONS[commit.operation.name].make(again))
    finally:
        drop_scratch(apart)
    for text in _other_machines(commit.operation, draft.operation):
        listener.warn(text)
        warnings.append(text)
    expected = Contents.of(Dataset(store, commit_id))
    return Reproduction(
        commit_id=commit_id,
        operation=commit.operation.name,
        warnings=tuple(warnings),
        comparison=compare(
            store, expected, Contents.of_draft(draft),
            given=again.base.manifest if again.base else None,
        ),
    )  # fmt: skip


def reproduce_chain(
    store: Store,
    ref: str,
    config: ReproduceConfig | None = None,
    listener: Listener | None = None,
) -> Iterator[ChainStep]:
    """Makes every commit that a ref goes back to again, the first one first, each from its parent.

    One that cannot be made again does not stop the others.

    Raises:
        RefError: no such ref.
        ObjectMissingError, ObjectDamagedError: the history cannot be read.
        JobInterruptedError: stopped.
    """
    names = [(entry.commit_id, entry.commit.operation.name) for entry in history(store, ref)]
    for commit_id, operation in reversed(names):
        made, failed = None, None
        try:
            made = reproduce(store, commit_id, config, listener)
        except JobInterruptedError:
            raise
        except MaskmillError as error:
            failed = error
        yield ChainStep(commit_id=commit_id, operation=operation, reproduction=made, error=failed)


def _told(again: Again, listener: Listener) -> list[str]:
    """Tells everything that was found; raises the first of what cannot be helped."""
    found = list(findings(again))
    fatal = [finding.error for finding in found if finding.error]
    for finding in found:
        if not fatal or finding.error is not fatal[0]:
            listener.warn(finding.text)
    if fatal:
        raise fatal[0]
    return [finding.text for finding in found]


def _onto_parent(again: Again, draft: Draft) -> Draft:
    """The draft on the commit's parent, if its branch had moved on while it was made."""
    if again.commit.base is None or again.base is None:
        return draft
    parent = Dataset(again.store, again.commit.parents[0])
    outcome = State(manifest=draft.manifest, categories=draft.categories, removals=draft.removals)
    merged = merge_states(again.store, State.of(again.base), State.of(parent), outcome)
    if merged.conflicts:
        raise CommitError(
            f"{again.name} was made from {again.base.commit_id[:12]} and put on top of "
            f"{parent.commit_id[:12]}, but what came out now does not go there: "
            f"{len(merged.conflicts):,} cells were changed on both sides"
        )
    state = merged.state
    return replace(
        draft, manifest=state.manifest, categories=state.categories, removals=state.removals
    )


def _other_machines(then: Operation, now: Operation) -> Iterator[str]:
    """A sentence if the kinds of machine differ in what shows in the last digits."""
    if then.machines and {*map(_words, then.machines)} != {*map(_words, now.machines)}:
        before, after = (" and ".join(map(_words, made.machines)) or "none" for made in (then, now))
        yield (
            f"the work was done on {before}, now on {after}: the last digits of signals may "
            "differ, and with them single pixels"
        )


def _words(machine: object) -> str:
    if not isinstance(machine, dict):
        return str(machine)
    return ", ".join(f"{name} {value}" for name, value in sorted(machine.items()))
