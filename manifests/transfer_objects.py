"""Asks which objects the other store lacks, and sends those: contents, manifests, commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from manifests.byte_progress import ByteListener
from manifests.copy_object import copy_object
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.in_parallel import in_parallel
from manifests.schemas import IMAGES
from manifests.store import Store
from manifests.taken_down import why_gone
from manifests.transfer_plan import PlannedObject, TransferPlan

_NUM_THREADS = 8
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingObjects:
    """What the target lacks, in the three stages in which it is sent.

    Attributes:
        num_there: planned objects that it has.
        num_withheld: images that were taken down and do not travel.
    """

    contents: tuple[PlannedObject, ...] = ()
    manifests: tuple[PlannedObject, ...] = ()
    commits: tuple[PlannedObject, ...] = ()
    num_there: int = 0
    num_withheld: int = 0

    @property
    def num_objects(self) -> int:
        return len(self.contents) + len(self.manifests) + len(self.commits)

    @property
    def num_bytes(self) -> int:
        return sum(planned.num_bytes or 0 for planned in self.objects())

    def objects(self) -> Iterator[PlannedObject]:
        """All of them, in the order in which they are sent."""
        yield from self.contents
        yield from self.manifests
        yield from self.commits

    def contents_without(self, sent: MissingObjects) -> frozenset[str]:
        """Ids of contents that are not among those sent."""
        done = {planned.object_id for planned in sent.contents}
        return frozenset(one.object_id for one in self.contents if one.object_id not in done)


def ask_for(
    source: Store, target: Store, plan: TransferPlan, listener: ByteListener
) -> MissingObjects:
    """Asks the target for each planned object, and the source for sizes that no manifest tells.

    An object of another size counts as missing: half of it came from somewhere.

    Raises:
        ObjectMissingError: the source itself lacks one.
    """
    asked = len(plan.contents) + len(plan.manifests) + len(plan.commits)
    listener.begin("comparing", total=asked)
    stages = [
        _missing(source, target, planned.values(), listener)
        for planned in (plan.contents, plan.manifests, plan.commits)
    ]
    return MissingObjects(
        contents=stages[0],
        manifests=stages[1],
        commits=stages[2],
        num_there=asked - sum(map(len, stages)),
        num_withheld=plan.num_withheld,
    )


def send(
    source: Store, target: Store, missing: MissingObjects, listener: ByteListener
) -> MissingObjects:
    """Sends what is missing; returns what really was sent: images taken down may be gone.

    A stage is begun when the one before is complete. What is damaged is found out for all
    contents before anything is said, so that it can be repaired at once.

    Raises:
        ObjectMissingError, ObjectDamagedError: the source lacks an object or has it damaged;
            nothing that needs it is sent.
        StoreError: one of the stores cannot be reached, is full or refuses.
    """
    listener.begin("sending", total=missing.num_bytes, in_bytes=True)
    copy = partial(_copy, source, target, listener=listener)
    done = in_parallel(copy, missing.contents, num_threads=_NUM_THREADS)
    failed = [loss for loss in done if loss]
    gone = _explained_by_takedown(source, failed)
    lost = [loss for loss in failed if loss.planned.object_id not in gone]
    if lost:
        raise _sentence(source, target, lost)
    for loss in in_parallel(copy, missing.manifests, num_threads=_NUM_THREADS):
        if loss:
            raise _sentence(source, target, [loss])
    for planned in missing.commits:  # one by one: a commit that is there has its parents there
        if loss := copy(planned):
            raise _sentence(source, target, [loss])
    sent = tuple(planned for planned in missing.contents if planned.object_id not in gone)
    return replace(missing, contents=sent, num_withheld=missing.num_withheld + len(gone))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """An object that could not be read at the source, and why."""

    planned: PlannedObject
    error: ObjectMissingError | ObjectDamagedError


def _missing(
    source: Store, target: Store, planned: Iterable[PlannedObject], listener: ByteListener
) -> tuple[PlannedObject, ...]:
    def ask(one: PlannedObject) -> PlannedObject | None:
        there = target.object_size(one.object_id)
        if there is not None and there == one.num_bytes:
            return None
        if one.num_bytes is not None:
            return one
        num_bytes = source.object_size(one.object_id)
        return None if there is not None and there == num_bytes else replace(
            one, num_bytes=num_bytes
        )  # fmt: skip

    found = []
    for one in in_parallel(ask, planned, num_threads=_NUM_THREADS):
        listener.advance(1)
        if one:
            found.append(one)
    return tuple(found)


def _copy(
    source: Store, target: Store, planned: PlannedObject, *, listener: ByteListener
) -> _Loss | None:
    try:
        copy_object(
            source, target, planned.object_id,
            num_bytes=planned.num_bytes or 0, on_bytes=listener.advance,
        )  # fmt: skip
    except (ObjectMissingError, ObjectDamagedError) as error:
        return _Loss(planned=planned, error=error)
    return None


def _explained_by_takedown(source: Store, failed: Collection[_Loss]) -> frozenset[str]:
    """Images that are gone because somebody took them down, as any ref of the source tells."""
    images = [
        loss.planned
        for loss in failed
        if loss.planned.layer == IMAGES and isinstance(loss.error, ObjectMissingError)
    ]
    return frozenset(one.object_id for one in images if why_gone(source, one.shard))


def _sentence(
    source: Store, target: Store, lost: list[_Loss]
) -> ObjectMissingError | ObjectDamagedError:
    named = "; ".join(f"{loss.planned.name}: {loss.error}" for loss in lost[:_NAMED])
    more = f" (and {len(lost) - _NAMED:,} more)" if len(lost) > _NAMED else ""
    kind = ObjectDamagedError if any(
        isinstance(loss.error, ObjectDamagedError) for loss in lost
    ) else ObjectMissingError  # fmt: skip
    return kind(
        f"{len(lost):,} of the objects to send cannot be read, so no ref of {target.url} was "
        f"moved: {named}{more}; then run the same command again, which sends only what is missing"
    )
