"""What the driver and the workers say to each other: payloads, workers, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from manifests.results import ResultRecord


class Payload(Protocol):
    """One shard's work, or a part of it; small, pickled, and enough for any worker to do it."""

    @property
    def work_key(self) -> str:
        """Digest of all that decides the outcome; parts have keys of their own."""
        ...

    @property
    def name(self) -> str:
        """For people: which shard, which images."""
        ...

    @property
    def num_items(self) -> int:
        """Images; a payload of one cannot be divided further."""
        ...

    def part(self, start: int, stop: int) -> Self:
        """The same work for items [start, stop) alone."""
        ...

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """The whole work again, given finished parts' keys and the items that cannot be done.

        Has this payload's own `work_key`: how the result was reached does not show in it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts since the current task began."""

    num_images: int = 0
    num_masks: int = 0


class Worker(Protocol):
    """Does one kind of payload; made once per process, keeps its teacher in memory."""

    @property
    def progress(self) -> Progress:
        """Of the running task; read from another thread."""
        ...

    def run(self, payload: object) -> ResultRecord:
        """Does the work, stores its objects, publishes and returns the record.

        Raises:
            Exception: anything; the caller at the process boundary turns it into a TaskFailure.
        """
        ...


WorkerBuilder = Callable[[], Worker]
"""Picklable; called once in each worker process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailure:
    """Why one attempt failed.

    Attributes:
        reason: a ledger word: `worker_died`, `deadline_exceeded`, `out_of_memory`,
            `store_error`, `unexpected_error`.
        detail: one line for people.
        is_fatal: True when trying again, here or elsewhere, cannot help (wrong configuration).
    """

    reason: str
    detail: str
    is_fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one attempt: exactly one of `record` and `failure` is set."""

    ticket: int
    record: ResultRecord | None = None
    failure: TaskFailure | None = None


def failure_from(error: Exception) -> TaskFailure:
    """The ledger's word for what a worker raised."""
    from manifests.errors import InputError, MaskmillError, WeightsError

    detail = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    if isinstance(error, WeightsError | InputError):
        return TaskFailure(reason="configuration", detail=str(error), is_fatal=True)
    if isinstance(error, MemoryError):
        return TaskFailure(reason="out_of_memory", detail=detail)
    if isinstance(error, MaskmillError):
        return TaskFailure(reason="store_error", detail=str(error))
    return TaskFailure(reason="unexpected_error", detail=detail)
