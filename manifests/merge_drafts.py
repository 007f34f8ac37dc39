"""What a merge and a revert make of a commit; no branch is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from manifests import schemas
from manifests.ancestry import merge_bases
from manifests.dataset import Dataset, operation
from manifests.errors import CommitError, InputError, MergeConflictError
from manifests.manifest import Manifest
from manifests.merge_states import MergedState, State, merge_states
from manifests.removed import Removals
from manifests.store import Store
from manifests.three_way import Conflict, Settlement, new_cells
from manifests.writer import Draft

MERGE_VERSION, REVERT_VERSION = 2, 2
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeDraft:
    """A commit to be, how the merge went, and what the settlement decided."""

    draft: Draft
    merged: MergedState
    settled: tuple[Conflict, ...]


def draft_merge(ours: Dataset, theirs: Dataset, settlement: Settlement) -> MergeDraft:
    """Our commit with what theirs did since the two parted.

    Raises:
        CommitError: the histories have nothing in common.
        MergeConflictError: both sides changed the same cells, and nobody settled it.
    """
    store = ours.store
    bases = merge_bases(store, ours.commit_id, theirs.commit_id)
    if not bases:
        raise CommitError(
            f"{ours.commit_id[:12]} and {theirs.commit_id[:12]} have no common commit, so nothing "
            "tells who changed what; start both from one store with 'maskmill clone', or ingest "
            "the other's export"
        )
    base = _base_state(store, bases)
    what = f"{theirs.commit_id[:12]} and {ours.commit_id[:12]}"
    merged, settled = _merge(store, base, State.of(ours), State.of(theirs), settlement, what)
    config = {
        "theirs": theirs.commit_id, "bases": list(bases), "settlement": asdict(settlement)
    }  # fmt: skip
    draft = Draft.on(
        ours,
        merged.state.manifest,
        operation=operation("merge", version=MERGE_VERSION, config=config),
        ledger=merged.counter.ledger(),
        message=f"merge {theirs.commit_id[:12]}",
        categories=merged.state.categories,
        removals=merged.state.removals,
        merged=(theirs.commit_id,),
    )
    return MergeDraft(draft=draft, merged=merged, settled=settled)


def draft_revert(ours: Dataset, undone: Dataset, settlement: Settlement) -> MergeDraft:
    """Our commit without what an older one did against its first parent.

    Raises:
        CommitError: there is nothing before that one.
        MergeConflictError: later commits changed the same cells.
        InputError: it took images down that are gone for good.
    """
    store, commit_id = ours.store, undone.commit_id
    if not undone.commit.parents:
        raise CommitError(f"commit {commit_id[:12]} is the first: there is nothing before it")
    before = State.of(Dataset(store, undone.commit.parents[0]))
    what = f"the revert of {commit_id[:12]} and {ours.commit_id[:12]}"
    merged, settled = _merge(store, State.of(undone), State.of(ours), before, settlement, what)
    _check_brought_back(ours, merged.state.manifest)
    draft = Draft.on(
        ours,
        merged.state.manifest,
        operation=operation(
            "revert",
            version=REVERT_VERSION,
            config={"commit": commit_id, "settlement": asdict(settlement)},
        ),
        ledger=merged.counter.ledger(),
        message=f'revert {commit_id[:12]} "{undone.commit.message}"',
        categories=merged.state.categories,
        removals=merged.state.removals,
    )
    return MergeDraft(draft=draft, merged=merged, settled=settled)


def _merge(
    store: Store, base: State, ours: State, theirs: State, settlement: Settlement, what: str
) -> tuple[MergedState, tuple[Conflict, ...]]:
    """The merge, and the conflicts there would be without the settlement."""
    plain = merge_states(store, base, ours, theirs)
    if not plain.conflicts:
        return plain, ()
    merged = merge_states(store, base, ours, theirs, settlement=settlement)
    if merged.conflicts:
        raise _conflict_error(what, merged.conflicts)
    return merged, plain.conflicts


def _base_state(store: Store, bases: Sequence[str]) -> State:
    """The common ancestor; where branches were merged crosswise, the merge of all of them."""
    state = State.of(Dataset(store, bases[0]))
    for other in bases[1:]:
        older = merge_bases(store, bases[0], other)
        below = State.of(Dataset(store, older[0])) if older else State(manifest=Manifest())
        there = State.of(Dataset(store, other))
        settlement = Settlement(default="ours")
        state = merge_states(store, below, state, there, settlement=settlement).state
    return state


def _check_brought_back(ours: Dataset, manifest: Manifest) -> None:
    """Raises InputError where a reverted takedown's images are gone for good."""
    gone = [
        cell
        for cell in new_cells(manifest, ours.manifest)
        if cell.layer == schemas.IMAGES and ours.store.object_size(cell.object_id) != cell.num_bytes
    ]
    if gone:
        known = Removals.load(ours.store, ours.commit)
        why = known.explain(gone[0].shard) or f"shard {gone[0].shard[:12]} has no images object"
        count = f"{len(gone):,} images objects" if len(gone) > 1 else "an images object"
        raise InputError(
            f"this takes {count} that 'maskmill gc' has deleted: {why}; ingest the images again "
            "instead"
        )


def _conflict_error(what: str, conflicts: Sequence[Conflict]) -> MergeConflictError:
    places = [f"{entry.layer} of shard {entry.shard[:12]}" for entry in conflicts[:_SHOWN]]
    more = f" and {len(conflicts) - _SHOWN:,} more" if len(conflicts) > _SHOWN else ""
    layers = sorted({entry.layer for entry in conflicts})
    return MergeConflictError(
        f"{what} changed {len(conflicts):,} cell{'s' if len(conflicts) > 1 else ''} differently: "
        f"{', '.join(places)}{more}; say --ours or --theirs, or --settle {layers[0]}=theirs for "
        "each layer",
        conflicts=conflicts,
    )
