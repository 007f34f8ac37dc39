"""What a transfer is to do to each ref of the other side, decided before anything is sent.

A branch is created or fast-forwarded, or, in a pull, merged; a tag is created. Nothing else ever
happens to a ref, and if one of those asked for cannot have that, none is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from manifests.commit import Commit
from manifests.dataset import DEFAULT_BRANCH
from manifests.errors import CommitConflictError, CommitError, RefError
from manifests.manifest import Manifest
from manifests.negotiate import NewCommits, is_ancestor
from manifests.refs import RefEntry, Refs
from manifests.store import Store

Outcome = Literal["new", "fast-forward", "merge", "up to date", "ahead"]
"""What becomes of a ref: `ahead` is a branch of the target that has more than the source's."""


class DivergedError(CommitConflictError):
    """Both sides have commits the other has not; carries `branch`, `expected` and `found`."""

    def __init__(self, message: str, *, branch: str, expected: str, found: str) -> None:
        CommitError.__init__(self, message)
        self.branch, self.expected, self.found = branch, expected, found


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRef:
    """A ref of the source."""

    kind: Literal["branch", "tag"]
    name: str
    commit_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefUpdate:
    """A ref of the source and what becomes of the target's ref of that name.

    Attributes:
        entry: the target's branch as it was found, which it must still be; None: there is none.
        before: what the target's ref names now, or None.
    """

    wanted: WantedRef
    outcome: Outcome
    before: str | None
    entry: RefEntry | None = None

    @property
    def is_news(self) -> bool:
        return self.outcome not in ("up to date", "ahead")


def choose_refs(
    source: Store, names: Sequence[str], *, all_branches: bool, tags: bool
) -> tuple[WantedRef, ...]:
    """The refs of the source that are asked for; branch `main` if none is.

    Raises:
        RefError: there is no such branch or tag; the message names the nearest ref.
    """
    refs = Refs(source)
    chosen: dict[tuple[str, str], WantedRef] = {}
    if not names and not all_branches and not tags:
        names = [DEFAULT_BRANCH]
    for name in names:
        wanted = _named(refs, name)
        chosen[wanted.kind, name] = wanted
    if all_branches:
        for name, commit_id in refs.branches().items():
            chosen["branch", name] = WantedRef(kind="branch", name=name, commit_id=commit_id)
    if tags:
        for name, commit_id in refs.tags().items():
            chosen["tag", name] = WantedRef(kind="tag", name=name, commit_id=commit_id)
    return tuple(chosen.values())


def _named(refs: Refs, name: str) -> WantedRef:
    commit_id = refs.resolve(name)
    if (head := refs.head(name)) is not None:
        return WantedRef(kind="branch", name=name, commit_id=head.commit)
    if name in refs.tags():
        return WantedRef(kind="tag", name=name, commit_id=commit_id)
    raise RefError(
        f"'{name}' is a commit of {refs.store.url} and neither branch nor tag; give it a name "
        "with 'maskmill branch' or 'maskmill tag' first"
    )


def plan_updates(
    source: Store, target: Store, wanted: Iterable[WantedRef]
) -> tuple[RefUpdate, ...]:
    """What becomes of each ref. "merge" means that both sides worked on a branch.

    Raises:
        RefError: tags of the target that name other commits.
    """
    wanted = tuple(wanted)
    tags = Refs(target).tags() if any(ref.kind == "tag" for ref in wanted) else {}
    clashes = [
        ref
        for ref in wanted
        if ref.kind == "tag" and tags.get(ref.name, ref.commit_id) != ref.commit_id
    ]  # fmt: skip
    if clashes:
        raise RefError(_clash(source, target, clashes, tags))
    return tuple(
        _of_branch(source, target, ref) if ref.kind == "branch" else RefUpdate(
            wanted=ref,
            outcome="up to date" if ref.name in tags else "new",
            before=tags.get(ref.name),
        )
        for ref in wanted
    )  # fmt: skip


def _of_branch(source: Store, target: Store, ref: WantedRef) -> RefUpdate:
    entry = Refs(target).head(ref.name)
    return RefUpdate(
        wanted=ref,
        outcome=_outcome(source, target, entry, ref.commit_id),
        before=entry.commit if entry else None,
        entry=entry,
    )


def _outcome(source: Store, target: Store, entry: RefEntry | None, commit_id: str) -> Outcome:
    if entry is None:
        return "new"
    if entry.commit == commit_id:
        return "up to date"
    # An empty store's first commit has nothing in it to be lost, whatever it is called.
    if is_ancestor(source, entry.commit, of=commit_id) or _is_empty_start(target, entry.commit):
        return "fast-forward"
    return "ahead" if is_ancestor(target, commit_id, of=entry.commit) else "merge"


def _is_empty_start(store: Store, commit_id: str) -> bool:
    commit = Commit.load(store, commit_id)
    return (
        not commit.parents
        and commit.operation.name == "init"
        and not len(Manifest.load(store, commit.manifest))
    )


def refuse_push(target: Store, updates: Iterable[RefUpdate]) -> None:
    """Raises DivergedError for the first branch that cannot be fast-forwarded."""
    for update in updates:
        if update.before is None or update.outcome not in ("ahead", "merge"):
            continue
        name, mine, theirs = update.wanted.name, update.wanted.commit_id, update.before
        how = "is ahead of" if update.outcome == "ahead" else "has commits that are not in"
        raise DivergedError(
            f"branch '{name}' of {target.url} {how} the one here: it is at {theirs[:12]}, here it "
            f"is at {mine[:12]}; nothing was sent: run 'maskmill pull {target.url} {name}', settle "
            "what the merge lists, and push again",
            branch=name,
            expected=mine,
            found=theirs,
        )


def refuse_merge(source: Store, target: Store, updates: Iterable[RefUpdate]) -> None:
    """Raises DivergedError for the first branch that only a merge could bring together."""
    for update in updates:
        if update.outcome != "merge" or update.before is None:
            continue
        name, theirs, mine = update.wanted.name, update.wanted.commit_id, update.before
        raise DivergedError(
            f"branch '{name}' has gone two ways: here it is at {mine[:12]}, in {source.url} at "
            f"{theirs[:12]}, and only a merge could bring them together; nothing was fetched, and "
            f"no branch of {target.url} was moved",
            branch=name, expected=mine, found=theirs,
        )  # fmt: skip


def refuse_unrelated(
    source: Store, target: Store, updates: Iterable[RefUpdate], found: NewCommits
) -> None:
    """Raises CommitError if there is something to merge and no commit that both sides have."""
    names = [update.wanted.name for update in updates if update.outcome == "merge"]
    if names and found.commits and not found.common:
        raise CommitError(
            f"branch '{names[0]}' of {source.url} and {target.url} have no common commit, so "
            "nothing tells who changed what, and nothing was fetched; ingest the other's export "
            "instead, or clone one from the other before they part"
        )


def _clash(source: Store, target: Store, clashes: Sequence[WantedRef], tags: dict[str, str]) -> str:
    listed = ", ".join(
        f"'{ref.name}' ({ref.commit_id[:12]} in {source.url}, {tags[ref.name][:12]} in "
        f"{target.url})"
        for ref in clashes
    )
    return (
        f"tags that name different commits on the two sides: {listed}; tags never move, so nothing "
        "was sent: name the refs you want one by one, or tag the commit once more under a new name"
    )
