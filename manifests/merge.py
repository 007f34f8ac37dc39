"""Merge one commit into a branch, take a commit back, put a branch where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from manifests import schemas
from manifests.ancestry import is_ancestor, merge_bases
from manifests.dataset import Dataset, operation
from manifests.errors import CommitError, InputError, MergeConflictError, RefError
from manifests.manifest import Cell
from manifests.merge_states import MergedState, State, merge_states
from manifests.pins import check_there, pinned
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.store import Store
from manifests.three_way import Conflict, Settlement, new_cells
from manifests.writer import Writer

MERGE_VERSION, REVERT_VERSION = 1, 1
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a merge, a revert or a reset did.

    Attributes:
        commit_id: the branch's head now.
        outcome: `up_to_date`, `fast_forward`, `merged`, `reverted` or `reset`.
        settled: cells that both sides had changed, decided by the settlement.
        stale: layer -> computed cells that were taken out and are to be made again.
        num_duplicates: pictures that both sides had ingested, now one.
    """

    commit_id: str
    outcome: str
    settled: tuple[Conflict, ...] = ()
    stale: dict[str, int] | None = None
    num_duplicates: int = 0


def merge_into(
    store: Store,
    branch: str,
    their_ref: str,
    *,
    settlement: Settlement = Settlement(),
    fast_forward: bool = True,
    message: str = "",
) -> MergeResult:
    """Merges a commit into a branch.

    Args:
        store: the store.
        branch: the branch to move.
        their_ref: what to merge: any ref.
        settlement: whose cell is taken where both changed one.
        fast_forward: without commits of its own the branch just moves to theirs.
        message: the merge commit's; empty: one is made.

    Raises:
        RefError: no such ref.
        CommitError: the histories have nothing in common.
        MergeConflictError: both sides changed the same cells, and nobody settled it.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, branch)
    ours, theirs = writer.dataset.commit_id, Refs(store).resolve(their_ref)
    bases = merge_bases(store, ours, theirs)
    if not bases:
        raise CommitError(
            f"'{branch}' at {ours[:12]} and '{their_ref}' at {theirs[:12]} have no common commit, "
            "so nothing tells who changed what; ingest the other's export instead, or clone one "
            "from the other before they part"
        )
    if theirs in bases:
        return MergeResult(commit_id=ours, outcome="up_to_date")
    if ours in bases and fast_forward:
        writer.move_to(theirs, reason="merge")
        return MergeResult(commit_id=theirs, outcome="fast_forward")
    base = _base_state(store, bases)
    other = State.of(Dataset(store, theirs))
    plain = merge_states(store, base, State.of(writer.dataset), other)
    merged = plain
    if plain.conflicts:
        merged = merge_states(store, base, State.of(writer.dataset), other, settlement=settlement)
    if merged.conflicts:
        raise _conflict_error(branch, their_ref, merged.conflicts)
    config = {
        "branch": branch, "theirs": theirs, "bases": list(bases), "settlement": asdict(settlement)
    }  # fmt: skip
    commit_id = writer.commit(
        merged.state.manifest,
        operation=operation("merge", version=MERGE_VERSION, config=config),
        ledger=merged.counter.ledger(),
        message=message or f"merge {their_ref} into {branch}",
        categories=merged.state.categories,
        removals=merged.state.removals,
        merged=(theirs,),
    )
    return _result(commit_id, "merged", merged, settled=plain.conflicts)


def revert(
    store: Store,
    branch: str,
    ref: str,
    *,
    settlement: Settlement = Settlement(),
    message: str = "",
) -> MergeResult:
    """Takes one commit's changes back, with a new commit on the branch.

    Of a merge, what the merge brought in from other branches is taken back. Reverting a takedown
    brings the images back, as long as no `gc` has deleted them.

    Raises:
        RefError: no such ref.
        CommitError: the commit is not in the branch's history, or is its first.
        MergeConflictError: later commits changed the same cells.
        NothingToCommitError: the branch holds nothing of it any more.
    """
    writer = Writer(store, branch)
    commit_id = Refs(store).resolve(ref)
    undone = Dataset(store, commit_id)
    if not undone.commit.parents:
        raise CommitError(f"commit {commit_id[:12]} is the first: there is nothing before it")
    if not is_ancestor(store, commit_id, writer.dataset.commit_id):
        raise CommitError(
            f"commit {commit_id[:12]} is not in the history of '{branch}', so there is nothing to "
            f"take back; see 'maskmill log --ref {branch}'"
        )
    before = State.of(Dataset(store, undone.commit.parents[0]))
    arguments = store, State.of(undone), State.of(writer.dataset), before
    plain = merge_states(*arguments)
    merged = plain
    if plain.conflicts:
        merged = merge_states(*arguments, settlement=settlement)
    if merged.conflicts:
        raise _conflict_error(branch, f"the revert of {commit_id[:12]}", merged.conflicts)
    _check_brought_back(store, writer, merged)
    config = {"commit": commit_id, "settlement": asdict(settlement)}
    made = writer.commit(
        merged.state.manifest,
        operation=operation("revert", version=REVERT_VERSION, config=config),
        ledger=merged.counter.ledger(),
        message=message or f'revert {commit_id[:12]} "{undone.commit.message}"',
        categories=merged.state.categories,
        removals=merged.state.removals,
    )
    return _result(made, "reverted", merged, settled=plain.conflicts)


def reset(store: Store, branch: str, ref: str) -> MergeResult:
    """Puts a branch at another commit, as a new entry of its log; `branch@{1}` is where it was.

    Raises:
        RefError: no such ref or branch.
        CommitError: the commit would bring back images that were taken down.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, branch)
    commit_id = Refs(store).resolve(ref)
    if commit_id == writer.dataset.commit_id:
        return MergeResult(commit_id=commit_id, outcome="up_to_date")
    target = Dataset(store, commit_id)
    known = Removals.load(store, writer.dataset.commit)
    back = set(known.shards) & set(target.manifest.shards())
    if back:
        why = known.explain(sorted(back)[0])
        raise CommitError(
            f"commit {commit_id[:12]} still has images that were taken down, and a reset would "
            f"bring them back: {why}; reset to a later commit, or revert the takedown first"
        )
    writer.move_to(commit_id, reason="reset")
    return MergeResult(commit_id=commit_id, outcome="reset")


def create_branch(store: Store, branch: str, ref: str) -> str:
    """Starts a branch at a ref; returns the commit id.

    Raises:
        RefError: the branch exists, or there is no such ref.
        CommitError: `gc` has taken objects of the commit.
    """
    return _name(store, branch, ref, tag=False)


def create_tag(store: Store, tag: str, ref: str) -> str:
    """Names a commit for ever; returns its id. Raises as `create_branch`."""
    return _name(store, tag, ref, tag=True)


def _name(store: Store, name: str, ref: str, *, tag: bool) -> str:
    refs = Refs(store)
    commit_id = refs.resolve(ref)
    with pinned(store, commit_id):
        if not _is_named(refs, commit_id):  # nothing but this name will keep it
            check_complete(store, commit_id)
        (refs.create_tag if tag else refs.create_branch)(name, commit_id)
    return commit_id


def check_complete(store: Store, commit_id: str) -> None:
    """Looks for every object of a commit, but for images that were taken down.

    Raises:
        ObjectMissingError, ObjectDamagedError: the commit or its manifest cannot be read.
        CommitError: cells are gone.
    """
    dataset = Dataset(store, commit_id)
    check_there(store, dataset.manifest)


def _is_named(refs: Refs, commit_id: str) -> bool:
    return commit_id in {*refs.branches().values(), *refs.tags().values()}


def _base_state(store: Store, bases: Sequence[str]) -> State:
    """The common ancestor; where branches were merged crosswise, the merge of all of them."""
    state = State.of(Dataset(store, bases[0]))
    for other in bases[1:]:
        older = merge_bases(store, bases[0], other)
        below = State.of(Dataset(store, older[0])) if older else State(manifest=state.manifest)
        settlement = Settlement(default="ours")
        there = State.of(Dataset(store, other))
        state = merge_states(store, below, state, there, settlement=settlement).state
    return state


def _check_brought_back(store: Store, writer: Writer, merged: MergedState) -> None:
    """Raises InputError where a reverted takedown's images are gone for good."""
    gone = [
        cell
        for cell in new_cells(merged.state.manifest, writer.dataset.manifest)
        if cell.layer == schemas.IMAGES and store.object_size(cell.object_id) != cell.num_bytes
    ]
    if gone:
        known = Removals.load(store, writer.dataset.commit)
        why = known.explain(gone[0].shard) or f"shard {gone[0].shard[:12]} has no images object"
        raise InputError(
            f"this takes {len(gone):,} images objects that 'maskmill gc' has deleted: {why}; "
            "ingest the images again instead"
        )


def _conflict_error(branch: str, what: str, conflicts: Sequence[Conflict]) -> MergeConflictError:
    places = [f"{entry.layer} of shard {entry.shard[:12]}" for entry in conflicts[:_SHOWN]]
    more = f" and {len(conflicts) - _SHOWN:,} more" if len(conflicts) > _SHOWN else ""
    layers = sorted({entry.layer for entry in conflicts})
    return MergeConflictError(
        f"'{branch}' and {what} changed {len(conflicts):,} cell{'s' if len(conflicts) > 1 else ''} "
        f"differently: {', '.join(places)}"
        f"{more}; say --ours or --theirs, or --settle {layers[0]}=theirs for each layer",
        conflicts=conflicts,
    )


def _result(
    commit_id: str, outcome: str, merged: MergedState, *, settled: tuple[Conflict, ...]
) -> MergeResult:
    return MergeResult(
        commit_id=commit_id,
        outcome=outcome,
        settled=settled,
        stale=_by_layer(merged.stale),
        num_duplicates=merged.num_duplicates,
    )


def _by_layer(cells: Sequence[Cell]) -> dict[str, int]:
    layers = [cell.layer for cell in cells]
    return {layer: layers.count(layer) for layer in sorted(set(layers))}


def unknown_layers(settlement: Settlement, dataset: Dataset) -> None:
    """Raises RefError where a settlement names a layer that the dataset does not have."""
    for layer in settlement.by_layer:
        if layer not in dataset.manifest.layers():
            raise RefError(
                f"--settle {layer}: there is no such layer; there are "
                f"{', '.join(dataset.manifest.layers())}"
            )
