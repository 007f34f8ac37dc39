"""Worker pools: Ray actors, or this very process. The driver sees one protocol."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.task import Outcome, Payload, Progress, TaskFailure, Worker, WorkerBuilder, failure_from
from manifests.errors import InputError, JobError

log = logging.getLogger(__name__)

_MAX_FAILED_STARTS = 3
_COMPLAIN_AFTER_S = 60.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Where the workers run.

    Attributes:
        executor: `ray`, or `inline` for this process (tests, debugging, `memory://` stores).
        ray_address: an existing cluster (`auto`, `host:port`, `ray://...`); empty: a local Ray.
        workers: how many; 0: as many as the resources hold.
        cpus_per_worker: Ray CPUs for each, which is also its thread count; 0: the operation's own.
        gpus_per_worker: Ray GPUs for each.
    """

    executor: str = "ray"
    ray_address: str = ""
    workers: int = 0
    cpus_per_worker: int = 0
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.executor not in ("ray", "inline"):
            raise InputError(f"executor: expected ray or inline, got '{self.executor}'")
        if min(self.workers, self.cpus_per_worker, self.gpus_per_worker) < 0:
            raise InputError("workers, cpus_per_worker, gpus_per_worker: expected 0 or more")


class WorkerPool(Protocol):
    """Runs payloads, each on one worker at a time."""

    @property
    def num_free(self) -> int:
        """How many `submit` calls can be made now; more may be possible after a `wait`."""
        ...

    def submit(self, ticket: int, payload: Payload, *, deadline_s: float, stall_s: float) -> None:
        """Starts one attempt; `ticket` comes back in its Outcome.

        It is given up after `deadline_s`, or after `stall_s` without any progress.
        """
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Finished attempts, as soon as there is one, or none after `timeout_s`."""
        ...

    def progress(self) -> Progress:
        """Counts of the attempts under way."""
        ...

    def close(self) -> None:
        """Ends every worker this pool started."""
        ...


class InlinePool:
    """One worker in this process; `submit` does the work. Deadlines cannot be kept here."""

    def __init__(self, build: WorkerBuilder) -> None:
        self._build = build
        self._worker: Worker | None = None
        self._done: list[Outcome] = []

    @property
    def num_free(self) -> int:
        return 0 if self._done else 1

    def submit(self, ticket: int, payload: Payload, *, deadline_s: float, stall_s: float) -> None:
        """Does the work now; the outcome waits for `wait`."""
        try:
            if self._worker is None:
                self._worker = self._build()
            outcome = Outcome(ticket=ticket, record=self._worker.run(payload))
        except Exception as error:  # the boundary at which anything becomes a recorded failure
            log.debug("task %s failed", payload.name, exc_info=True)
            outcome = Outcome(ticket=ticket, failure=failure_from(error))
        self._done.append(outcome)

    def wait(self, timeout_s: float) -> list[Outcome]:
        done, self._done = self._done, []
        return done

    def progress(self) -> Progress:
        return Progress()

    def close(self) -> None:
        self._worker = None


class _ActorBody:
    """What runs inside a Ray actor: the plain worker, and the boundary around it.

    `progress` is answered by a second thread while `run` works, which makes it a heartbeat too.
    """

    def __init__(self, build: WorkerBuilder) -> None:
        self._build = build
        self._worker: Worker | None = None

    def start(self) -> TaskFailure | None:
        try:
            self._worker = self._build()
        except Exception as error:  # the actor boundary
            log.exception("worker could not start")
            return failure_from(error)
        return None

    def run(self, payload: Payload) -> Any:  # ResultRecord | TaskFailure; Ray erases the type
        if self._worker is None:
            return TaskFailure(reason="worker_died", detail="the worker was never started")
        try:
            return self._worker.run(payload)
        except Exception as error:  # the actor boundary
            log.exception("task %s failed", payload.name)
            return failure_from(error)

    def progress(self) -> Progress:
        return self._worker.progress if self._worker else Progress()


@dataclass(slots=True)
class _Actor:
    """The pool's view of one actor. Ray's handles and refs have no types of their own."""

    handle: Any
    starting: Any
    ticket: int | None = None
    running: Any = None
    deadline: float = 0.0
    asked: Any = None
    progress: Progress = field(default_factory=Progress)
    stall_s: float = 0.0
    moved: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.starting is None and self.running is None


class RayPool:
    """Ray actors: bounded in number, replaced when they die, killed when they overrun a deadline.

    Actors that wait for resources (an autoscaler adding nodes) simply stay `starting`; work is
    only given to those that have answered.
    """

    def __init__(self, build: WorkerBuilder, *, config: PoolConfig, num_workers: int) -> None:
        import ray

        self._ray = ray
        self._build = build
        self._num_workers = num_workers
        self._failed_starts = 0
        body: Any = _ActorBody  # Ray's own types do not know classes that come in as values
        self._actor_class = ray.remote(body).options(
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            max_concurrency=2,
            max_restarts=0,
        )
        self._actors: list[_Actor] = []
        self._waiting_since: float | None = None

    @property
    def num_free(self) -> int:
        return sum(actor.is_idle for actor in self._actors)

    def submit(self, ticket: int, payload: Payload, *, deadline_s: float, stall_s: float) -> None:
        """Gives work to an idle actor; see `num_free`."""
        actor = next(actor for actor in self._actors if actor.is_idle)
        actor.ticket = ticket
        actor.running = actor.handle.run.remote(payload)
        actor.deadline = time.monotonic() + deadline_s
        actor.progress, actor.stall_s, actor.moved = Progress(), stall_s, time.monotonic()

    def wait(self, timeout_s: float) -> list[Outcome]:
        """See WorkerPool. Also where actors are started and, when they die, started again.

        Nothing here waits for an actor to start while another works: a lost node may leave no room
        for its replacement, and the job must go on without it.
        """
        while len(self._actors) < self._num_workers:
            self._actors.append(self._start_actor())
        running = {actor.running: actor for actor in self._actors if actor.running is not None}
        is_waiting = not running and not self.num_free
        self._settle_starts(timeout_s=timeout_s if is_waiting else 0.0)
        self._complain_of_waiting(is_waiting)
        outcomes: list[Outcome] = []
        if running:
            ready, _ = self._ray.wait(list(running), num_returns=1, timeout=timeout_s)
            outcomes = [self._finish(running[ref]) for ref in ready]
        return outcomes + [
            self._expire(actor) for actor in list(self._actors) if _is_overdue(actor)
        ]

    def progress(self) -> Progress:
        busy = [actor for actor in self._actors if actor.running is not None]
        for actor in busy:
            self._ask_progress(actor)
        return Progress(
            num_images=sum(actor.progress.num_images for actor in busy),
            num_masks=sum(actor.progress.num_masks for actor in busy),
        )

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle, no_restart=True)
        self._actors = []

    def _complain_of_waiting(self, is_waiting: bool) -> None:
        """One line a minute while there is work and no worker."""
        now = time.monotonic()
        if not is_waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > _COMPLAIN_AFTER_S:
            self._waiting_since = now
            log.error("no worker has started for a minute: waiting for the cluster to have room")

    def _start_actor(self) -> _Actor:
        handle = self._actor_class.remote(self._build)
        return _Actor(handle=handle, starting=handle.start.remote())

    def _settle_starts(self, *, timeout_s: float) -> None:
        """Moves actors that have answered from starting to idle; replaces those that died."""
        starting = {actor.starting: actor for actor in self._actors if actor.starting is not None}
        if not starting:
            return
        ready, _ = self._ray.wait(list(starting), num_returns=1, timeout=timeout_s)
        for ref in ready:
            actor = starting[ref]
            failure = self._get(ref)
            if failure is None:
                actor.starting = None
                self._failed_starts = 0
            else:
                self._replace_unstarted(actor, failure)

    def _replace_unstarted(self, actor: _Actor, failure: TaskFailure) -> None:
        self._failed_starts += 1
        if failure.is_fatal or self._failed_starts >= _MAX_FAILED_STARTS:
            raise JobError(f"no worker could start: {failure.detail}")
        log.warning("worker did not start (%s), trying another", failure.detail)
        self._discard(actor)

    def _finish(self, actor: _Actor) -> Outcome:
        ticket, answer = actor.ticket, self._get(actor.running)
        actor.ticket, actor.running, actor.asked = None, None, None
        if isinstance(answer, TaskFailure) and answer.reason == "worker_died":
            self._discard(actor)
        if ticket is None:
            raise JobError("a worker answered without having been asked; please report this")
        if isinstance(answer, TaskFailure):
            return Outcome(ticket=ticket, failure=answer)
        return Outcome(ticket=ticket, record=answer)

    def _expire(self, actor: _Actor) -> Outcome:
        """A task past its deadline: its actor is killed, because nothing else surely stops it."""
        ticket = actor.ticket
        self._discard(actor)
        failure = TaskFailure(
            reason="deadline_exceeded", detail="the task overran its deadline or made no progress"
        )
        return Outcome(ticket=-1 if ticket is None else ticket, failure=failure)

    def _discard(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle, no_restart=True)
        self._actors.remove(actor)

    def _get(self, ref: Any) -> Any:  # what the actor returned; Ray erases the type
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return TaskFailure(reason="worker_died", detail=_root_cause(error))

    def _ask_progress(self, actor: _Actor) -> None:
        if actor.asked is None:
            actor.asked = actor.handle.progress.remote()
            return
        ready, _ = self._ray.wait([actor.asked], timeout=0)
        if ready:
            answer = self._get(actor.asked)
            actor.asked = None
            if isinstance(answer, Progress) and answer != actor.progress:
                actor.progress, actor.moved = answer, time.monotonic()


def _root_cause(error: Exception) -> str:
    """Ray puts the remote traceback into the message; its last line is what went wrong."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:500]


def _is_overdue(actor: _Actor) -> bool:
    now = time.monotonic()
    is_stalled = now > actor.moved + actor.stall_s
    return actor.running is not None and (now > actor.deadline or is_stalled)


@contextmanager
def open_pool(
    build: WorkerBuilder, *, config: PoolConfig, default_cpus: int, num_tasks: int
) -> Iterator[WorkerPool]:
    """A pool for one job, ended with it, and a local Ray ended too if this started it.

    Args:
        build: makes the worker, in its process.
        config: where.
        default_cpus: CPUs a worker when the configuration leaves it open; 0 means all of a node's.
        num_tasks: an upper bound of useful workers.

    Raises:
        JobError: the cluster cannot be reached, or has too little for one worker.
    """
    if config.executor == "inline":
        pool: WorkerPool = InlinePool(build)
        try:
            yield pool
        finally:
            pool.close()
        return
    from engine.ray_session import ray_session, sized_for

    with ray_session(config.ray_address):
        sized, num_workers = sized_for(config, default_cpus=default_cpus)
        pool = RayPool(build, config=sized, num_workers=max(1, min(num_workers, num_tasks)))
        try:
            yield pool
        finally:
            pool.close()
