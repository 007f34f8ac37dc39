"""Merge one commit into a branch, take a commit back, put a branch where it was, name commits."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from manifests import schemas
from manifests.ancestry import is_ancestor, merge_bases
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import CommitError, ObjectDamagedError, ObjectMissingError, RefError
from manifests.manifest import Manifest
from manifests.merge_drafts import MergeDraft, draft_merge, draft_revert
from manifests.models import TRAIN
from manifests.pins import check_there, pinned
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.store import Store
from manifests.takedown_replay import holders
from manifests.taken_down import why_gone
from manifests.three_way import Conflict, Settlement
from manifests.writer import Writer


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
    stale: dict[str, int] = field(default_factory=dict)
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
        RefError: no such ref, or it is a student's checkpoint.
        CommitError: the histories have nothing in common, or `gc` has taken objects of theirs.
        MergeConflictError: both sides changed the same cells, and nobody settled it.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, branch)
    ours, theirs = writer.dataset.commit_id, Refs(store).resolve(their_ref)
    if is_ancestor(store, theirs, ours):
        return MergeResult(commit_id=ours, outcome="up_to_date")
    if (commit := Commit.load(store, theirs)).operation.name == TRAIN:
        raise RefError(
            f"'{their_ref}' is a checkpoint of a student and has no data of its own; merge commit "
            f"{commit.parents[0][:12]}, which it was trained on"
        )
    with kept(store, theirs):
        if fast_forward and is_ancestor(store, ours, theirs):
            writer.move_to(theirs, reason="merge")
            return MergeResult(commit_id=theirs, outcome="fast_forward")
        made = draft_merge(writer.dataset, Dataset(store, theirs), settlement)
        draft = replace(made.draft, message=message or f"merge {their_ref} into {branch}")
        return _result(writer.publish(draft), "merged", made)


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
    if not is_ancestor(store, commit_id, writer.dataset.commit_id):
        raise CommitError(
            f"commit {commit_id[:12]} is not in the history of '{branch}', so there is nothing to "
            f"take back; see 'maskmill log --ref {branch}'"
        )
    made = draft_revert(writer.dataset, Dataset(store, commit_id), settlement)
    draft = replace(made.draft, message=message or made.draft.message)
    return _result(writer.publish(draft), "reverted", made)


def reset(store: Store, branch: str, ref: str) -> MergeResult:
    """Puts a branch at another commit, as a new entry of its log; `branch@{1}` is where it was.

    It is also the way out of a commit that cannot be read any more.

    Raises:
        RefError: no such ref or branch.
        CommitError: the commit would bring back images that were taken down, or `gc` has taken
            objects of it.
        CommitConflictError: the branch moved meanwhile.
    """
    commit_id = Refs(store).resolve(ref)
    try:
        writer = Writer(store, branch)
    except (ObjectMissingError, ObjectDamagedError):
        return _leave_unreadable(store, branch, commit_id)
    if commit_id == writer.dataset.commit_id:
        return MergeResult(commit_id=commit_id, outcome="up_to_date")
    _check_brings_nothing_back(
        Dataset(store, commit_id), Removals.load(store, writer.dataset.commit)
    )
    with kept(store, commit_id):
        writer.move_to(commit_id, reason="reset")
    return MergeResult(commit_id=commit_id, outcome="reset")


def _leave_unreadable(store: Store, branch: str, commit_id: str) -> MergeResult:
    """Moves a branch whose commit cannot be read."""
    refs = Refs(store)
    entry = refs.head(branch)
    _check_brings_nothing_back(Dataset(store, commit_id), _last_known_takedowns(store, branch))
    with pinned(store, commit_id):
        check_complete(store, commit_id)
        refs.advance(branch, expected=entry, commit=commit_id, reason="reset")
    return MergeResult(commit_id=commit_id, outcome="reset")


def _last_known_takedowns(store: Store, branch: str) -> Removals:
    """Those of the newest commit in a branch's log that can be read."""
    for entry in reversed(Refs(store).history(branch)):
        if entry.commit:
            with contextlib.suppress(ObjectMissingError, ObjectDamagedError):
                return Removals.load(store, Commit.load(store, entry.commit))
    return Removals()


def _check_brings_nothing_back(target: Dataset, known: Removals) -> None:
    back = set(known.shards) & set(target.manifest.shards())
    elsewhere = holders(target.store, (target.manifest, Manifest()), known.image_ids)
    if back or elsewhere:
        image_ids = set().union(*elsewhere.values())
        shard = min(back or (row.shard for row in known.rows if row.image_id in image_ids))
        raise CommitError(
            f"commit {target.commit_id[:12]} still has images that were taken down, and a reset "
            f"would bring them back: {known.explain(shard)}; reset to a later commit, or "
            "revert the takedown first"
        )


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
    with kept(store, commit_id):
        (refs.create_tag if tag else refs.create_branch)(name, commit_id)
    return commit_id


def check_complete(store: Store, commit_id: str) -> None:
    """Looks for every object of a commit, but for images that were taken down.

    Raises:
        ObjectMissingError, ObjectDamagedError: the commit or its manifest cannot be read.
        CommitError: cells are gone.
    """
    cells = Dataset(store, commit_id).manifest
    check_there(
        store,
        (
            cell
            for cell in cells
            if cell.layer != schemas.IMAGES
            or store.object_size(cell.object_id) is not None
            or not why_gone(store, cell.shard)
        ),
    )


@contextmanager
def kept(store: Store, commit_id: str) -> Iterator[None]:
    """Keeps a commit from `gc` while a ref is put on it or on top of it, after looking for it.

    All of its history is looked for, as far as no branch or tag has it: `gc` keeps what is young,
    so a commit that no ref reaches may be there without its parents, and a ref on it would make a
    store that `gc` refuses. Raises as `check_complete`.
    """
    with pinned(store, commit_id):
        named = _named(Refs(store))
        if commit_id not in named:
            _check_history(store, commit_id, named)
        yield


def _check_history(store: Store, commit_id: str, named: Collection[str]) -> None:
    seen: set[str] = set()
    for head in sorted(named):
        with contextlib.suppress(ObjectMissingError, ObjectDamagedError):  # of what is not ours
            seen.update(merge_bases(store, commit_id, head))
        if commit_id in seen:
            return
    queue = [commit_id]
    while queue:
        if (older := queue.pop()) not in seen:
            seen.add(older)
            queue += Commit.load(store, older).parents
            check_complete(store, older)


def _named(refs: Refs) -> set[str]:
    """Commits that a branch or tag is at; none if one of them is damaged.

    Then all is looked for: a new branch may be the way out of the damage.
    """
    try:
        return {*refs.branches().values(), *refs.tags().values()}
    except ObjectDamagedError:
        return set()


def _result(commit_id: str, outcome: str, made: MergeDraft) -> MergeResult:
    there = made.merged.state.manifest
    layers = [cell.layer for cell in made.merged.stale if not there.get(cell.shard, cell.layer)]
    return MergeResult(
        commit_id=commit_id,
        outcome=outcome,
        settled=made.settled,
        stale=dict(sorted(Counter(layers).items())),
        num_duplicates=made.merged.num_duplicates,
    )


def unknown_layers(settlement: Settlement, store: Store, *refs: str) -> None:
    """Raises RefError where a settlement names a layer that none of the refs has."""
    layers = {
        layer
        for ref in (refs if settlement.by_layer else ())
        for layer in Dataset.open(store, ref).manifest.layers()
    }
    for layer in settlement.by_layer:
        if layer not in layers:
            raise RefError(
                f"--settle {layer}: there is no such layer; there are {', '.join(sorted(layers))}"
            )
