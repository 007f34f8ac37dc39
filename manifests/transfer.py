"""`clone`, `push` and `pull`: commits and all they name from one store to another.

choose refs -> what becomes of each -> which commits are new -> which objects are missing
-> contents, manifests, commits -> pin, look again, move the refs

Only missing objects travel, whatever was left of an earlier try; nothing is visible before the
last step, so a transfer that was killed is simply run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from manifests.byte_progress import ByteListener, Silence
from manifests.clone_mark import begin_clone, finish_clone
from manifests.errors import CommitError, InputError, MergeConflictError, StoreError
from manifests.merge import merge_into
from manifests.negotiate import NewCommits, new_commits
from manifests.pins import pinned
from manifests.refs import Refs
from manifests.store import Store
from manifests.transfer_objects import ask_for, send
from manifests.transfer_plan import TransferPlan, plan_transfer
from manifests.transfer_refs import (
    RefUpdate,
    WantedRef,
    choose_refs,
    plan_updates,
    refuse_merge,
    refuse_push,
    refuse_unrelated,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """What to transfer and how.

    Attributes:
        refs: branches and tags by name; none: branch `main`, unless the next two say otherwise.
        all_branches, tags: every branch; every tag.
        repair: look for every object of the refs' history, also of commits both sides have.
        dry_run: find out what would travel and write nothing.
        ff_only: pull: refuse what only a merge could bring together.
    """

    refs: Sequence[str] = ()
    all_branches: bool = False
    tags: bool = False
    repair: bool = False
    dry_run: bool = False
    ff_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefChange:
    """One ref of the target before and after."""

    kind: str
    name: str
    outcome: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSummary:
    """What a transfer did, or with `dry_run` would do.

    Attributes:
        num_commits: commits that the target did not have.
        num_objects, num_bytes: what travelled.
        num_there: objects of those commits that the target had all the same.
        num_withheld: images objects that were taken down and did not travel.
    """

    source: str
    target: str
    refs: tuple[RefChange, ...]
    num_commits: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    num_there: int = 0
    num_withheld: int = 0
    dry_run: bool = False


def clone(source: Store, target: Store, *, listener: ByteListener | None = None) -> TransferSummary:
    """Makes the target store with every branch and tag of the source; an unfinished one goes on.

    Raises:
        StoreError: the target is a store already, or its conditional writes do not exclude; the
            source is none; one of them cannot be reached.
        ObjectMissingError, ObjectDamagedError: the source is not whole.
    """
    source.check_is_store()
    if not Refs(source).branches():
        raise StoreError(
            f"{source.url} has no branch, so there is nothing to clone: its own 'clone' or 'init' "
            "was not finished; run that again first"
        )
    begin_clone(source, target)
    job = _Transfer(source, target, near=source, reason="clone", listener=listener)
    options = TransferOptions(all_branches=True, tags=True)
    updates = plan_updates(source, target, job.choose(options))
    refuse_push(target, updates)
    summary = job.run(updates, options)
    finish_clone(target)
    return summary


def push(
    store: Store,
    target: Store,
    options: TransferOptions = TransferOptions(),
    *,
    listener: ByteListener | None = None,
) -> TransferSummary:
    """Sends branches and tags to another store, whose branches are fast-forwarded only.

    Raises:
        DivergedError: the target has commits that are not here.
        CommitConflictError: the target's branch moved meanwhile.
        RefError: no such ref here, or the target's tag of that name is another.
        ObjectMissingError, ObjectDamagedError: the store here is not whole.
    """
    job = _Transfer(store, target, near=store, reason="push", listener=listener)
    updates = plan_updates(store, target, job.choose(options))
    refuse_push(target, updates)
    return job.run(updates, options)


def pull(
    store: Store,
    source: Store,
    options: TransferOptions = TransferOptions(),
    *,
    listener: ByteListener | None = None,
) -> TransferSummary:
    """Brings branches and tags from another store; where both sides worked, they are merged.

    What was fetched stays if a merge is refused, and no ref is moved: the commit is in the store,
    to be merged by its id, and is `gc`'s after its grace period if nobody does.

    Raises:
        DivergedError: it takes a merge, which `ff_only` forbids.
        MergeConflictError: both sides changed the same cells.
        CommitError: the histories have nothing in common.
        CommitConflictError: the branch here moved meanwhile.
        RefError: no such ref there, or the tag of that name here is another.
        ObjectMissingError, ObjectDamagedError: the other store is not whole.
    """
    job = _Transfer(source, store, near=store, reason="pull", listener=listener)
    updates = plan_updates(source, store, job.choose(options))
    if options.ff_only:
        refuse_merge(source, store, updates)
    return job.run(updates, options)


class _Transfer:
    """One way from a source to a target; `near` is the one that is cheaper to ask."""

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        near: Store,
        reason: str,
        listener: ByteListener | None,
    ) -> None:
        if source.url == target.url:
            raise InputError(f"{source.url} is both source and target; name two stores")
        self._source, self._target = source, target
        self._stores = (near, target if near is source else source)
        self._reason, self._listener = reason, listener or Silence()

    def choose(self, options: TransferOptions) -> tuple[WantedRef, ...]:
        self._source.check_is_store()
        self._target.check_is_store()
        return choose_refs(
            self._source, options.refs, all_branches=options.all_branches, tags=options.tags
        )

    def run(self, updates: Sequence[RefUpdate], options: TransferOptions) -> TransferSummary:
        """Sends and publishes; where every ref is up to date, nobody is asked anything more."""
        asked = [update.wanted for update in updates if update.is_news or options.repair]
        wanted = [ref.commit_id for ref in asked]
        commits = self._new_commits(wanted, repair=options.repair)
        if not options.repair:
            refuse_unrelated(self._source, self._target, updates, commits)
        shown = [ref.commit_id for ref in asked if ref.kind == "branch"]
        plan = plan_transfer(self._stores, self._source, commits, shown=shown)
        missing = ask_for(self._source, self._target, plan, self._listener)
        if options.dry_run:
            sent, refs = missing, _changes(updates)
        else:
            sent = send(self._source, self._target, missing, self._listener)
            refs = self._publish(updates, plan, missing.contents_without(sent))
        return TransferSummary(
            source=self._source.url,
            target=self._target.url,
            refs=refs,
            num_commits=len(sent.commits),
            num_objects=sent.num_objects,
            num_bytes=sent.num_bytes,
            num_there=sent.num_there,
            num_withheld=sent.num_withheld,
            dry_run=options.dry_run,
        )

    def _new_commits(self, wanted: Sequence[str], *, repair: bool) -> NewCommits:
        refs = Refs(self._target)
        there: set[str] = set()
        if wanted and not repair:
            there = {*refs.branches().values(), *refs.tags().values()}
        return new_commits(self._stores, wanted=wanted, there=there)

    def _publish(
        self, updates: Sequence[RefUpdate], plan: TransferPlan, gone: frozenset[str]
    ) -> tuple[RefChange, ...]:
        """Moves the refs; merges come first, because only they can be refused now."""
        news = [update for update in updates if update.is_news]
        made: dict[WantedRef, str] = {}
        with ExitStack() as pins:
            for commit_id in {update.wanted.commit_id for update in news}:
                pins.enter_context(pinned(self._target, commit_id))
            if news:
                self._look_again(plan, gone)
            for update in sorted(news, key=lambda update: update.outcome != "merge"):
                made[update.wanted] = self._move(update)
        return _changes(updates, made)

    def _look_again(self, plan: TransferPlan, gone: frozenset[str]) -> None:
        """Did a `gc` take anything before the commits were pinned?"""
        again = ask_for(self._source, self._target, plan, Silence())
        lost = [one for one in again.objects() if one.object_id not in gone]
        if lost:
            raise CommitError(
                f"{len(lost):,} objects have gone from {self._target.url} since they were sent, "
                f"the first is {lost[0].name}: a 'maskmill gc' took them for leftovers; run the "
                "same command again"
            )

    def _move(self, update: RefUpdate) -> str:
        """Does what is planned for one ref; returns the commit it names then."""
        ref, refs = update.wanted, Refs(self._target)
        if ref.kind == "tag":
            refs.create_tag(ref.name, ref.commit_id)
        elif update.outcome == "merge":
            return self._merge(ref)
        elif update.entry is None:
            refs.create_branch(ref.name, ref.commit_id)
        else:
            refs.advance(ref.name, expected=update.entry, commit=ref.commit_id, reason=self._reason)
        return ref.commit_id

    def _merge(self, ref: WantedRef) -> str:
        message = f"merge {ref.name} of {self._source.url}"
        try:
            return merge_into(self._target, ref.name, ref.commit_id, message=message).commit_id
        except MergeConflictError as error:
            raise MergeConflictError(
                f"{error}, to 'maskmill merge {ref.commit_id[:12]} --branch {ref.name}': all of it "
                "is fetched, and no ref was moved",
                conflicts=error.conflicts,
            ) from error


def _changes(
    updates: Sequence[RefUpdate], made: Mapping[WantedRef, str] | None = None
) -> tuple[RefChange, ...]:
    """What was done, or without `made` what is planned."""
    return tuple(
        RefChange(
            kind=update.wanted.kind,
            name=update.wanted.name,
            outcome=update.outcome,
            before=update.before,
            after=(made or {}).get(update.wanted, _planned(update)),
        )
        for update in updates
    )


def _planned(update: RefUpdate) -> str:
    stays = update.outcome == "ahead" and update.before is not None
    return str(update.before) if stays else update.wanted.commit_id
