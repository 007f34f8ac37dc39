"""The workers of a run under Ray Train: started, watched, and started again when one is lost.

Ray Train's part is the group: its processes, its process group (gloo or NCCL), and a new group
after a loss, which goes on from the store's last checkpoint. Nothing is checkpointed through Ray,
so its own storage is a folder that nobody else needs to see.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from typing import Any

import ray
import torch
from ray.train import (
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
    get_context,
)
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from manifests.errors import CommitError, JobError, MaskmillError
from student.checkpoint import Checkpoint
from student.data.order import World
from student.training.run_observers import RunObserver, Silence
from student.training.step import StepOutcome
from student.training.worker import TrainJob, WorkerOutcome, work
from student.training.worker_size import cpus_per_worker

_TIMEOUT_S = 1800
"""Of the process group: longer than any worker waits for the store while the others wait for it."""
_LOOK_EVERY_S = 0.5
_LAST_WORDS_S = 60.0
_Actor = Any  # Any: Ray's handles say nothing of the methods they have
_News = tuple[str, Mapping[str, Any]]  # Any: arguments of an observer's method


def train_on_ray(job: TrainJob, *, observer: RunObserver, may_grow: bool) -> WorkerOutcome:
    """Trains with `train.workers` workers on the Ray that this process is connected to.

    Args:
        job: what to do.
        observer: told, in this process, what the first worker tells.
        may_grow: whether nodes may join the cluster, so that too few are worth waiting for.

    Raises:
        JobError: the cluster cannot hold the workers, one was lost too often, or a loss was not
            finite.
        MaskmillError: what a worker raised, and raised again after each restart.
    """
    train = job.config.train
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray has no hints here
    cpus = cpus_per_worker(train, nodes, may_grow=may_grow)
    relay: _Actor = ray.remote(num_cpus=0)(_Relay).remote()
    resources = {"CPU": cpus, **({"GPU": train.gpus_per_worker} if train.gpus_per_worker else {})}
    with tempfile.TemporaryDirectory(prefix="maskmill-ray-train-") as storage:
        trainer = TorchTrainer(
            _work_in_group,  # type: ignore[arg-type]  # that of Ray Train 1 returned nothing
            train_loop_config={"job": job, "relay": relay, "threads": max(1, int(cpus))},
            torch_config=TorchConfig(timeout_s=_TIMEOUT_S),
            scaling_config=ScalingConfig(
                num_workers=train.workers, use_gpu=train.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=job.config.name.replace("/", "-"), storage_path=storage,
                failure_config=FailureConfig(max_failures=train.max_failures),
            ),
        )  # fmt: skip
        fit = _Fit(trainer)
        while fit.is_running():
            _tell(relay, observer)
        _tell(relay, observer)
        return fit.outcome()


class _Fit:
    """`trainer.fit()` in a thread: in the main one it would take Ctrl-C for itself, and end the
    process as if all were well."""

    def __init__(self, trainer: TorchTrainer) -> None:
        self._trainer = trainer
        self._result: WorkerOutcome | JobError | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result: Any = self._trainer.fit()  # Any: mypy sees the result of Ray Train 1
            self._result = result.return_value
        except BaseException as error:  # raised again by `outcome`, in the thread that asks
            self._error = error

    def is_running(self) -> bool:
        """Waits a little."""
        self._thread.join(_LOOK_EVERY_S)
        return self._thread.is_alive()

    def outcome(self) -> WorkerOutcome:
        """What the first worker returned. Raises as `train_on_ray`."""
        if isinstance(self._error, TrainingFailedError):
            raise _cause(self._error) from self._error
        if self._error:
            raise self._error
        if isinstance(self._result, WorkerOutcome):
            return self._result
        raise self._result or JobError("Ray Train ended without an outcome; run again to go on")


def _cause(error: TrainingFailedError) -> MaskmillError:
    """What a worker said of itself rather than what the others said of its silence."""
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for failure in failures.values():
        if isinstance(failure, MaskmillError):
            return failure
    lines = [f"worker {rank}: {_first_line(cause)}" for rank, cause in sorted(failures.items())]
    return JobError(
        f"training workers were lost more often than train.max_failures allows "
        f"({'; '.join(lines) or _first_line(error)}); run the same command again to go on from the "
        "last checkpoint"
    )


def _first_line(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__


class _Relay:
    """An actor between the first worker and the process of the command."""

    def __init__(self) -> None:
        self._news: list[_News] = []

    def put(self, name: str, arguments: Mapping[str, Any]) -> None:  # Any: see _News
        """Something happened."""
        self._news.append((name, arguments))

    def take(self) -> list[_News]:
        """What happened since the last time."""
        news, self._news = self._news, []
        return news


class _RelayObserver:
    """Tells a relay, and does not wait for it."""

    def __init__(self, relay: _Actor) -> None:
        self._relay = relay

    def started(self, *, first_step: int, last_step: int) -> None:
        """See `RunObserver.started`."""
        self._relay.put.remote("started", {"first_step": first_step, "last_step": last_step})

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        """See `RunObserver.took`."""
        self._relay.put.remote("took", {"outcome": outcome, "seconds": seconds})

    def wrote(self, checkpoint: Checkpoint) -> None:
        """See `RunObserver.wrote`."""
        self._relay.put.remote("wrote", {"checkpoint": checkpoint})

    def close(self) -> None:
        """Waits until all is told."""
        ray.wait([self._relay.put.remote("closed", {})], timeout=_LAST_WORDS_S)


def _tell(relay: _Actor, observer: RunObserver) -> None:
    news: list[_News] = ray.get(relay.take.remote())
    for name, arguments in news:
        if name == "started":
            observer.started(**arguments)
        elif name == "took":
            observer.took(**arguments)
        elif name == "wrote":
            observer.wrote(**arguments)


def _work_in_group(config: Mapping[str, Any]) -> WorkerOutcome | JobError:  # Any: Ray's
    """What runs in each worker's process.

    A JobError is raised by all workers alike and would be so again: it is returned, because Ray
    would start anew for whatever is raised.
    """
    context = get_context()
    world = World(rank=context.get_world_rank(), size=context.get_world_size())
    torch.set_num_threads(config["threads"])
    relay = _RelayObserver(config["relay"]) if world.rank == 0 else None
    try:
        return work(config["job"], world=world, device=get_device(), observer=relay or Silence())
    except JobError as error:
        return error
    except CommitError as error:
        raise CommitError(str(error)) from error  # a conflict cannot be pickled
    finally:
        if relay:
            relay.close()
