"""The driver: a bounded loop over one job's tasks that loses nothing.

For every task: done already? (its result record is in the store) -> submit -> wait -> record. A
failed attempt is repeated with backoff; a task that keeps failing is halved until the single image
that breaks it is found; that image becomes failed(reason) and the rest is done without it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from engine.pool import WorkerPool
from engine.task import Outcome, Payload, Progress, TaskFailure
from manifests.errors import JobError, JobInterruptedError
from manifests.results import ResultRecord, find_result
from manifests.store import Store

log = logging.getLogger(__name__)

_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How patient a job is.

    Attributes:
        max_attempts: tries of a whole shard, and of a single image, before it is given up.
        backoff_s: wait before the second try; doubled each time, with jitter.
        deadline_s: seconds a task may take whatever its size ...
        deadline_s_per_image: ... plus this for each of its images.
        stall_s: seconds without a finished image or mask after which a task is given up sooner.
        max_failed_images: images given up in one job before it stops as broken; a teacher that
            fails on everything is a fault of the set-up, not of the images.
    """

    max_attempts: int = 3
    backoff_s: float = 1.0
    deadline_s: float = 300.0
    deadline_s_per_image: float = 60.0
    stall_s: float = 900.0
    max_failed_images: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Where a job is; `running` are the counts of tasks under way."""

    num_tasks: int
    num_tasks_done: int
    num_tasks_found: int
    num_images: int
    num_images_done: int
    num_masks_done: int
    running: Progress


@dataclass(slots=True)
class _Node:
    """A task, or a part of one that is being halved."""

    payload: Payload
    start: int
    attempts: int = 0
    parent: _Node | None = None
    waiting_for: int = 0
    parts: list[str] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def root(self) -> _Node:
        return self.parent.root if self.parent else self


class Driver:
    """Runs the tasks of one job over one pool."""

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        *,
        config: DriverConfig,
        on_progress: Callable[[JobProgress], None] | None = None,
        seed: int = 0,
    ) -> None:
        self._store, self._pool, self._config = store, pool, config
        self._on_progress = on_progress or (lambda progress: None)
        self._random = random.Random(seed)  # noqa: S311 - jitter, not secrets
        self._ready: list[tuple[float, int, _Node]] = []
        self._running: dict[int, _Node] = {}
        self._tickets = itertools.count()
        self._records: dict[str, ResultRecord] = {}
        self._num_failed = 0

    def run(self, payloads: Sequence[Payload]) -> list[ResultRecord]:
        """Does every task that is not done yet; records in the order of `payloads`.

        Raises:
            JobInterruptedError: SIGINT or SIGTERM; finished tasks stay done.
            JobError: something that no repetition can mend.
        """
        for payload in payloads:
            if not self._is_done(payload):
                self._schedule(_Node(payload=payload, start=0))
        sizes = {payload.work_key: payload.num_items for payload in payloads}
        found = sum(key in self._records for key in sizes)
        with _stop_on_signal() as stopped:
            while self._ready or self._running:
                if stopped.is_set():
                    raise JobInterruptedError(
                        f"stopped: {sum(key in self._records for key in sizes)} of {len(sizes)} "
                        "tasks are done and kept; run the same command again to go on"
                    )
                self._submit_ready()
                for outcome in self._pool.wait(_WAIT_S):
                    self._settle(outcome)
                self._on_progress(self._progress(sizes, found))
        self._on_progress(self._progress(sizes, found))
        return [self._records[payload.work_key] for payload in payloads]

    def _is_done(self, payload: Payload) -> bool:
        record = find_result(self._store, payload.work_key)
        if record is not None:
            self._records[payload.work_key] = record
        return record is not None

    def _schedule(self, node: _Node, *, delay_s: float = 0.0) -> None:
        heapq.heappush(self._ready, (time.monotonic() + delay_s, next(self._tickets), node))

    def _submit_ready(self) -> None:
        while self._ready and self._pool.num_free and self._ready[0][0] <= time.monotonic():
            _, ticket, node = heapq.heappop(self._ready)
            if node.parent and self._is_done(node.payload):  # a part finished by an earlier run
                self._complete(node, self._records[node.payload.work_key])
                continue
            node.attempts += 1
            self._running[ticket] = node
            seconds = self._config.deadline_s
            seconds += self._config.deadline_s_per_image * node.payload.num_items
            self._pool.submit(
                ticket, node.payload, deadline_s=seconds, stall_s=self._config.stall_s
            )
        if self._ready and not self._running and self._ready[0][0] > time.monotonic():
            time.sleep(min(_WAIT_S, self._ready[0][0] - time.monotonic()))

    def _settle(self, outcome: Outcome) -> None:
        node = self._running.pop(outcome.ticket)
        if outcome.record is not None:
            log.info("done %s attempts=%d", node.payload.name, node.attempts)
            self._complete(node, outcome.record)
        elif outcome.failure is not None:
            self._handle_failure(node, outcome.failure)

    def _handle_failure(self, node: _Node, failure: TaskFailure) -> None:
        log.warning(
            "failed %s attempt=%d reason=%s: %s",
            node.payload.name, node.attempts, failure.reason, failure.detail,
        )  # fmt: skip
        if failure.is_fatal:
            raise JobError(failure.detail)
        can_halve = node.payload.num_items > 1
        # Parts are not repeated before they are halved: each level is itself a repetition.
        allowed = 1 if node.parent and can_halve else self._config.max_attempts
        if node.attempts < allowed:
            pause = self._config.backoff_s * 2 ** (node.attempts - 1)
            self._schedule(node, delay_s=pause * self._random.uniform(0.5, 1.5))
        elif failure.reason == "store_error":
            raise JobError(f"{node.payload.name}: {failure.detail}")
        elif node.waiting_for or node.parts or node.failures:
            raise JobError(
                f"{node.payload.name} fails as a whole although its parts do not: {failure.detail}"
            )
        elif can_halve:
            self._halve(node)
        else:
            self._give_up(node, failure)

    def _halve(self, node: _Node) -> None:
        size = node.payload.num_items
        middle = size // 2
        node.waiting_for = 2
        for start, stop in ((0, middle), (middle, size)):
            part = node.payload.part(start, stop)
            self._schedule(_Node(payload=part, start=node.start + start, parent=node))

    def _give_up(self, node: _Node, failure: TaskFailure) -> None:
        """A single image that cannot be done: it becomes a line of the ledger."""
        self._num_failed += 1
        if self._num_failed > self._config.max_failed_images:
            raise JobError(
                f"{self._num_failed} images failed, the last with {failure.reason} "
                f"({failure.detail}); the job allows {self._config.max_failed_images}: look at "
                "the set-up, or raise max_failed_images"
            )
        node.root.failures[node.start] = failure.reason
        if node.parent:
            self._part_done(node.parent)
        else:  # a shard of one image: do it again, knowing that the image fails
            self._assemble(node)

    def _complete(self, node: _Node, record: ResultRecord) -> None:
        if node.parent is None:
            self._records[node.payload.work_key] = record
            return
        node.root.parts.append(node.payload.work_key)
        self._part_done(node.parent)

    def _part_done(self, node: _Node) -> None:
        node.waiting_for -= 1
        if node.waiting_for:
            return
        if node.parent:
            self._part_done(node.parent)
        else:
            self._assemble(node)

    def _assemble(self, node: _Node) -> None:
        whole = node.payload.assembled(tuple(node.parts), dict(node.failures))
        again = _Node(payload=whole, start=0, parts=node.parts, failures=node.failures)
        self._schedule(again)

    def _progress(self, sizes: Mapping[str, int], found: int) -> JobProgress:
        done = [size for key, size in sizes.items() if key in self._records]
        return JobProgress(
            num_tasks=len(sizes),
            num_tasks_done=len(done),
            num_tasks_found=found,
            num_images=sum(sizes.values()),
            num_images_done=sum(done),
            num_masks_done=sum(
                _num_masks(self._records[key]) for key in sizes if key in self._records
            ),
            running=self._pool.progress(),
        )


def _num_masks(record: ResultRecord) -> int:
    return sum(row.kept for row in record.ledger if row.layer.startswith("masks/"))


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set a flag: the loop ends between two waits; a second one ends at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
