"""Predict: a trained student finds segments in photos, some hundred photos a task, on workers.

The flow is that of `label`: plan payloads, run those that are not done, gather their rows. Results
are objects of the store that holds the student, found again by their work keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from engine.driver import Driver, DriverConfig, JobProgress
from engine.pool import PoolConfig, open_pool
from engine.predict_images import PhotoSet, find_photos
from engine.predict_worker import PredictPayload, PredictWorker
from engine.task import Worker
from manifests.cells import read_table
from manifests.errors import InputError
from manifests.results import work_key
from manifests.store import Store
from teachers.predictor import PredictorSource

VERSION = 1
"""Raised when the same student would say something else of the same photo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """Settings of one prediction.

    Attributes:
        images: files, folders and URLs.
        without: a folder below which no photo is taken; empty: none.
        image_batch: photos given to the student together, at most.
        task_images: photos a task.
        pool: where the workers run.
        driver: how patient the job is.
    """

    images: tuple[str, ...]
    without: str = ""
    image_batch: int = 4
    task_images: int = 200
    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()

    def __post_init__(self) -> None:
        if min(self.image_batch, self.task_images) < 1:
            raise InputError("image_batch, task_images: expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedRoot:
    """What was found below one root: PREDICTIONS_SCHEMA, a row a photo, sorted by name."""

    root: str
    rows: pa.Table


def predict(
    store: Store,
    source: PredictorSource,
    config: PredictConfig,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> tuple[PredictedRoot, ...]:
    """Every photo's segments; work that is done is found in the store and not repeated.

    Raises:
        InputError: no photo is there.
        JobError, JobInterruptedError: the job did not finish; finished tasks are kept.
    """
    photos = find_photos(config.images, without=config.without)
    payloads = [payload for one in photos for payload in _plan(one, source, config)]
    build = partial(_build_worker, store, source, config.image_batch)
    with open_pool(build, config=config.pool, default_cpus=0, num_tasks=len(payloads)) as pool:
        driver = Driver(store, pool, config=config.driver, on_progress=on_progress)
        records = driver.run(payloads)
    tables: dict[str, list[pa.Table]] = {one.root: [] for one in photos}
    for payload, record in zip(payloads, records, strict=True):
        tables[payload.root].append(read_table(store, record.cells[0].object_id))
    return tuple(PredictedRoot(root=root, rows=pa.concat_tables(t)) for root, t in tables.items())


def _plan(
    photos: PhotoSet, source: PredictorSource, config: PredictConfig
) -> Iterator[PredictPayload]:
    every = tuple(photos.stamps)
    for start in range(0, len(every), config.task_images):
        names = every[start : start + config.task_images]
        key = work_key(
            operation="predict", version=VERSION, config=dict(source.identity),
            inputs=[photos.root, *(f"{name} {photos.stamps[name]}" for name in names)],
        )  # fmt: skip
        yield PredictPayload(work_key=key, root=photos.root, names=names)


def _build_worker(store: Store, source: PredictorSource, image_batch: int) -> Worker:
    """Runs in the worker's process: the only place where the student is loaded."""
    return PredictWorker(store, source.build(), image_batch=image_batch)
