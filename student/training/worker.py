"""What one worker of a run does, from its parts to the last checkpoint; read it top-down."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from manifests.store import Store
from student.checkpoint import Lineage
from student.config import StudentConfig
from student.data.loader import step_batches
from student.data.order import World
from student.data.training_data import TrainingData
from student.losses.criterion import Criterion
from student.model.segmenter import build_segmenter
from student.records import Batch
from student.text.encoder import build_text_encoder
from student.text.table import TextTable
from student.training.checkpoints import Checkpoints
from student.training.run_observers import RunObserver
from student.training.step import StepOutcome, Stepper
from student.training.taught import TaughtNetwork
from student.training.trainee import Trainee

_LOSSES = 100
"""How many of the last steps the outcome's loss is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """All that a worker needs; it is sent to other machines.

    Attributes:
        store: where checkpoints go.
        data: what to train on; its commits do not change.
        config: what to train.
        lineage: of the run, and so of its checkpoints.
        begun_at: entry of the branch's log at which the run was found, or began.
        run_folder: for logs, and for a batch that stopped the run.
    """

    store: Store
    data: TrainingData
    config: StudentConfig
    lineage: Lineage
    begun_at: int
    run_folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOutcome:
    """What came of a run, as its first worker tells it.

    Attributes:
        commit_id: the last checkpoint.
        steps: optimiser steps taken in the whole run.
        steps_now: those of them that this process took.
        images_per_s: of all workers, from the second step on; 0 if there was none.
        waited_share: share of that time in which this worker waited for its data.
        loss: mean of the last steps; NaN if there was none.
    """

    commit_id: str
    steps: int
    steps_now: int
    images_per_s: float
    waited_share: float
    loss: float


def work(
    job: TrainJob, *, world: World, device: torch.device, observer: RunObserver
) -> WorkerOutcome:
    """Trains from the run's newest checkpoint to its last step.

    Raises:
        JobError: a loss or a gradient is not finite.
        StoreError: the store could not be reached for long.
        CommitConflictError: another run moved the branch.
    """
    config, train = job.config, job.config.train
    texts = TextTable(build_text_encoder(config.model.text), config.model.text.template)
    checkpoints = Checkpoints(job.store, job.lineage, name=config.name, begun_at=job.begun_at)
    trainee = _trainee(config, texts, device, is_new=checkpoints.newest is None)
    checkpoints.restore(trainee)
    stepper = Stepper(
        TaughtNetwork(trainee.network, Criterion(config.loss), train), trainee.optimizer, train,
        world=world, device=device, run_folder=job.run_folder,
    )  # fmt: skip
    steps = step_batches(
        job.data, texts, config, world=world, first_step=trainee.steps, last_step=train.steps
    )
    pace = _Pace(first_step=trainee.steps)
    observer.started(first_step=trainee.steps, last_step=train.steps)
    for batches in pace.waiting_for(steps):
        outcome = stepper.take(trainee.steps, batches)
        trainee.average.update()
        trainee.steps += 1
        observer.took(outcome, seconds=pace.took(outcome))
        is_last = trainee.steps == train.steps
        if world.rank == 0 and (is_last or trainee.steps % train.checkpoint_steps == 0):
            message = f"train {config.name}: step {trainee.steps:,} of {train.steps:,}"
            machine = _machine(device, world)
            observer.wrote(checkpoints.write(trainee, message=message, machine=machine))
    return pace.outcome(trainee.steps, checkpoints, images=train.batch)


def _trainee(
    config: StudentConfig, texts: TextTable, device: torch.device, *, is_new: bool
) -> Trainee:
    """The network as it is before the first step, the same on all workers."""
    torch.manual_seed(config.train.seed)
    network = build_segmenter(
        config.model, config.denoising, text_dim=texts.dim, pretrained=is_new
    ).to(device)
    network.train()
    if config.train.compile:
        network.compile()
    return Trainee.new(network, config.train)


def _machine(device: torch.device, world: World) -> dict[str, str | int]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "workers": world.size, "threads": torch.get_num_threads()}


class _Pace:
    """How fast a run goes, from its second step on: the first warms caches and kernels up."""

    def __init__(self, *, first_step: int) -> None:
        self._first_step = first_step
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._last = time.monotonic()
        self._num_steps = 0
        self._seconds = self._waited = self._waiting = 0.0

    def waiting_for(self, steps: Iterator[tuple[Batch, ...]]) -> Iterator[tuple[Batch, ...]]:
        """The same steps; the time until each is there is waiting."""
        while True:
            began = time.monotonic()
            batches = next(steps, None)
            if batches is None:
                return
            self._waiting = time.monotonic() - began
            yield batches
            # What came after the step, such as a checkpoint, is no part of the next one.
            self._last = time.monotonic()

    def took(self, outcome: StepOutcome) -> float:
        """Seconds of the step that just ended, data included."""
        seconds = time.monotonic() - self._last
        self._losses.append(outcome.loss)
        self._num_steps += 1
        if self._num_steps > 1:
            self._seconds += seconds
            self._waited += self._waiting
        return seconds

    def outcome(self, steps: int, checkpoints: Checkpoints, *, images: int) -> WorkerOutcome:
        """Of the whole process."""
        counted = max(0, self._num_steps - 1)
        return WorkerOutcome(
            commit_id=checkpoints.newest.commit_id if checkpoints.newest else "",
            steps=steps,
            steps_now=self._num_steps,
            images_per_s=counted * images / self._seconds if self._seconds else 0.0,
            waited_share=self._waited / self._seconds if self._seconds else 0.0,
            loss=sum(self._losses) / len(self._losses) if self._losses else math.nan,
        )
