"""Training a student on a commit, top to bottom.

    ref ──resolved once──▶ data and texts, checked ──▶ a new run, or where this one was stopped
        ──▶ workers (student/training/worker.py): in this process, or N of them under Ray Train
        ──▶ checkpoints on the branch models/<name>

Run again after any interruption, it goes on from its last checkpoint; done, it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from manifests import layout
from manifests.cache_root import cache_root
from manifests.errors import InputError, JobError, JobInterruptedError
from manifests.file_lock import locked
from manifests.refs import Refs
from manifests.store import Store
from student.checkpoint import DataVersion, Lineage, branch_of
from student.config import StudentConfig
from student.config_files import config_values
from student.data.order import World
from student.data.training_data import TrainingData
from student.model.segmenter import build_segmenter
from student.new_folder import make_folder
from student.text.encoder import build_text_encoder
from student.text.table import TextTable
from student.training.run_observers import RunLogs, RunObserver
from student.training.run_start import RunStart, find_start
from student.training.worker import TrainJob, WorkerOutcome, work

RaySession = Callable[[str], AbstractContextManager[None]]
"""From the address of a cluster ("": a local Ray) to a connection for the length of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Where and how a training runs; what comes of it depends on none of these.

    Attributes:
        inline: one worker, in this process, without Ray.
        restart: begin anew although there are checkpoints under this name.
        ray_address: of a cluster; empty: a local Ray.
        run_folder: for logs; empty: one for this run, in the user's cache folder for maskmill.
        is_quiet: no progress bar.
    """

    inline: bool = False
    restart: bool = False
    ray_address: str = ""
    run_folder: str = ""
    is_quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What came of a training.

    Attributes:
        name, branch: the student's, and that of its checkpoints.
        commit_id: the last checkpoint.
        steps, steps_now: optimiser steps in all, and those of this command.
        first_step: where this command began.
        images_per_s: of all workers.
        waited_share: share of the time in which the first worker waited for data.
        loss: mean of the last steps; None: no step was taken.
        run_folder: where the logs are.
    """

    name: str
    branch: str
    commit_id: str
    steps: int
    steps_now: int
    first_step: int
    images_per_s: float
    waited_share: float
    loss: float | None
    run_folder: str


def train(
    store: Store,
    ref: str,
    config: StudentConfig,
    *,
    options: TrainOptions = TrainOptions(),
    session: RaySession | None = None,
    observer: RunObserver | None = None,
) -> TrainResult:
    """Trains, or goes on with, the student `config.name`.

    Args:
        store: where the data are, and where the checkpoints go.
        ref: what to train on; resolved once.
        config: what to train.
        options: where and how.
        session: how to reach Ray; None: it is reached already.
        observer: is told how it goes, instead of the logs in the run's folder.

    Raises:
        RefError: no such ref.
        InputError: data, texts or settings that cannot be trained with, or a name that is taken.
        WeightsError: weights of the backbone or the text encoder are not to be had.
        StoreError: the store cannot be reached.
        JobError: a worker was lost too often, or a loss was not finite.
    """
    job, start = prepare(store, ref, config, options=options)
    if start.newest and start.newest.lineage.step >= config.train.steps:
        return _result(job, start, None)
    make_folder(job.run_folder, setting="--run-folder")
    run, folder = start.lineage.run, job.run_folder
    logs = RunLogs(config, folder=folder, run=run, is_quiet=options.is_quiet)
    with _alone_in(folder), closing(logs):
        outcome = _outcome(job, options, session or _same_ray, observer or logs)
    return _result(job, start, outcome)


def prepare(
    store: Store, ref: str, config: StudentConfig, *, options: TrainOptions = TrainOptions()
) -> tuple[TrainJob, RunStart]:
    """What the workers are to do, and where they begin; all that can be wrong is found here.

    Raises: as `train`.
    """
    store.check_is_store()
    _check(config, options)
    home = Refs(store).resolve(ref)
    here = _with_absolute_paths(config)
    data = TrainingData.open(store, home, here.data)
    texts = TextTable(build_text_encoder(config.model.text), config.model.text.template)
    lineage = _lineage(store, home, data, texts, config)
    start = find_start(store, lineage, name=config.name, restart=options.restart)
    if not (options.inline or start.newest):
        # Ray would start the workers again and again for what is wrong on all of them.
        build_segmenter(here.model, here.denoising, text_dim=texts.dim)
    job = TrainJob(
        store=store, data=data, config=here, lineage=start.lineage, begun_at=start.entry,
        run_folder=_run_folder(start.lineage, config.name, options),
    )  # fmt: skip
    return job, start


def _outcome(
    job: TrainJob, options: TrainOptions, session: RaySession, observer: RunObserver
) -> WorkerOutcome:
    try:
        if options.inline:
            return work(job, world=World(), device=_device(), observer=observer)
        with session(options.ray_address):
            from student.training.ray_workers import train_on_ray  # seconds to import

            return train_on_ray(job, observer=observer, may_grow=bool(options.ray_address))
    except KeyboardInterrupt as error:
        anew = " without --restart" if options.restart else ""
        raise JobInterruptedError(
            f"stopped; run the same command again{anew} to go on from the last checkpoint of "
            f"'{branch_of(job.config.name)}'"
        ) from error


@contextmanager
def _same_ray(address: str) -> Iterator[None]:
    """The Ray that this process is connected to already."""
    yield


def _check(config: StudentConfig, options: TrainOptions) -> None:
    """What can be seen to be wrong before anything is read."""
    layout.check_ref_name(branch_of(config.name))
    batch, workers = config.train.batch, config.train.workers
    if options.inline and workers > 1:
        raise InputError(f"--inline has one worker, got train.workers {workers}; leave one out")
    World(rank=0, size=workers).share(batch)


def _lineage(
    store: Store, home: str, data: TrainingData, texts: TextTable, config: StudentConfig
) -> Lineage:
    """What the checkpoints will say; the run is named later."""
    texts.vectors(data.categories)  # raises for categories without text
    versions = [DataVersion(store=store.url, commit=home)]
    versions += [DataVersion(store=url, commit=commit_id) for url, commit_id in data.commits]
    return Lineage(
        student=config_values(config), step=0, run="", parent=None,
        data=tuple(dict.fromkeys(versions)), categories=tuple(data.categories),
        text=dict(texts.identity),
    )  # fmt: skip


def _with_absolute_paths(config: StudentConfig) -> StudentConfig:
    """Paths that mean the same in the working directory of a worker."""
    backbone, text, data = config.model.backbone, config.model.text, config.data
    model = replace(
        config.model,
        backbone=replace(backbone, weights=_absolute(backbone.weights)),
        text=replace(text, weights=_absolute(text.weights)),
    )
    cache = str(Path(data.cache_folder).absolute()) if data.cache_folder else ""
    return replace(config, model=model, data=replace(data, cache_folder=cache))


def _absolute(weights: str) -> str:
    """Of a path; a word that names weights is none."""
    return str(Path(weights).absolute()) if weights and Path(weights).exists() else weights


def _run_folder(lineage: Lineage, name: str, options: TrainOptions) -> Path:
    """Another store may have a student of the same name, so the name alone is not enough."""
    if options.run_folder:
        return Path(options.run_folder).absolute()
    return cache_root() / "runs" / f"{name}-{lineage.run[:8]}"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """A second process would cut the logs of the first."""
    with locked(folder / "lock", wait=False) as is_held:
        if not is_held:
            raise JobError(
                f"another training is at work in {folder}; let it finish, or name another "
                "--run-folder"
            )
        yield


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _result(job: TrainJob, start: RunStart, outcome: WorkerOutcome | None) -> TrainResult:
    first_step = start.newest.lineage.step if start.newest else 0
    was_at = start.newest.commit_id if start.newest else ""
    return TrainResult(
        name=job.config.name, branch=branch_of(job.config.name), first_step=first_step,
        commit_id=outcome.commit_id if outcome else was_at,
        steps=outcome.steps if outcome else first_step,
        steps_now=outcome.steps_now if outcome else 0,
        images_per_s=outcome.images_per_s if outcome else 0.0,
        waited_share=outcome.waited_share if outcome else 0.0,
        loss=outcome.loss if outcome else None,
        run_folder=str(job.run_folder),
    )  # fmt: skip
