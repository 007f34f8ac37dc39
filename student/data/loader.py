"""Batches of a rank, step after step, made in other processes or in a thread beside the training.

What is in a step depends on the step and on the whole batch alone, never on who makes it: every
image has its own random numbers, from the seed and its position in the stream.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from manifests.errors import InputError, JobError, MaskmillError
from student.config import StudentConfig
from student.data.collate import collate
from student.data.order import Order, World, rank_positions
from student.data.parcel import Parcel, packed, unpacked
from student.data.sample import training_sample
from student.data.step_texts import StepTexts
from student.data.training_data import TrainingData
from student.records import Batch
from student.text.table import TextTable

_log = logging.getLogger(__name__)
_VIEWS = 4  # see order: no two streams of random numbers are the same
_AHEAD = 2
_LOGGED_FULLY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A micro-batch: the step and the part of the rank's images."""

    step: int
    part: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A micro-batch without its texts, or why there is none."""

    parcel: Parcel | Batch | None = None
    complaints: tuple[str, ...] = ()
    error: MaskmillError | None = None

    def pin_memory(self) -> _Made:
        """The same where a GPU fetches it fast; the name is what DataLoader looks for."""
        if not isinstance(self.parcel, Parcel):
            return self
        tensors = {name: tensor.pin_memory() for name, tensor in self.parcel.tensors.items()}
        return replace(self, parcel=replace(self.parcel, tensors=tensors))

    def batch(self) -> Batch:
        """The micro-batch. Raises what making it raised."""
        if self.error is not None or self.parcel is None:
            raise self.error or InputError("a loader process sent nothing")
        return unpacked(self.parcel) if isinstance(self.parcel, Parcel) else self.parcel


def step_batches(
    data: TrainingData,
    texts: TextTable,
    config: StudentConfig,
    *,
    world: World,
    first_step: int,
    last_step: int,
) -> Iterator[tuple[Batch, ...]]:
    """This rank's micro-batches of the steps [first_step, last_step), a tuple for each step.

    Args:
        data: what to draw from.
        texts: embeddings; used in this process alone.
        config: of it `data`, `train.batch`, `train.micro_batch` and `train.seed`.
        world: which of the ranks this is; all of them together see `train.batch` images a step.
        first_step, last_step: any; a resumed training begins at its next step.

    Raises:
        InputError: the batch cannot be shared equally, or the store is only in this process.
        StoreError: the store cannot be read.
        JobError: a loader process was killed.
    """
    world.share(config.train.batch)
    if config.data.workers and data.is_in_memory:
        raise InputError(
            f"data.workers: expected 0 for a store in memory, got {config.data.workers}"
        )
    maker = _Maker(data, config, world)
    made = _in_processes if config.data.workers else _in_thread
    known: Counter[str] = Counter()
    vectors = _Vectors(texts)
    with closing(made(maker, first_step, last_step)) as found:
        for _ in range(first_step, last_step):
            parts = [next(found) for _ in range(maker.num_parts)]
            for part in parts:
                _tell(part.complaints, known)
            yield tuple(vectors.added(part.batch()) for part in parts)


class _Vectors:
    """The texts' embeddings, looked up anew only where the texts change."""

    def __init__(self, texts: TextTable) -> None:
        self._texts = texts
        self._names: tuple[str, ...] = ()
        self._vectors = torch.empty(0, texts.dim)

    def added(self, batch: Batch) -> Batch:
        """The batch with its `texts`."""
        if batch.names != self._names:
            self._names, self._vectors = batch.names, self._texts.vectors(batch.names)
        return replace(batch, texts=self._vectors)


class _Maker:
    """Makes any micro-batch of a rank; goes to other processes as it is."""

    def __init__(self, data: TrainingData, config: StudentConfig, world: World) -> None:
        self._data, self._config, self._world = data, config, world
        self._order = Order(data.weights(), seed=config.train.seed)
        self._texts = StepTexts(data, self._order, config)

    @property
    def num_workers(self) -> int:
        """Processes to be used."""
        return self._config.data.workers

    @property
    def num_parts(self) -> int:
        """Micro-batches of a step."""
        num_images = self._world.share(self._config.train.batch)
        return -(-num_images // self._config.train.micro_batch)

    def places(self, first_step: int, last_step: int) -> Iterator[_Place]:
        """All micro-batches of some steps, in order."""
        for step in range(first_step, last_step):
            for part in range(self.num_parts):
                yield _Place(step=step, part=part)

    def __getitem__(self, place: _Place) -> _Made:
        try:
            return self._make(place)
        except MaskmillError as error:  # raised where the batch is used, without a second process's
            return _Made(error=error)  # traceback around it

    def _make(self, place: _Place) -> _Made:
        train = self._config.train
        positions = rank_positions(place.step, batch=train.batch, world=self._world)
        mine = positions[place.part * train.micro_batch : (place.part + 1) * train.micro_batch]
        samples = [
            training_sample(
                self._data,
                int(self._order.images(position, position + 1)[0]),
                self._config.data,
                np.random.default_rng(np.random.SeedSequence((train.seed, _VIEWS, position))),
            )
            for position in mine.tolist()
        ]
        batch = collate(samples, self._texts.at(place.step), self._data.categories)
        complaints = tuple(word for sample in samples for word in sample.complaints)
        return _Made(parcel=batch, complaints=complaints)


class _Sender(Dataset[_Made]):
    """What makes micro-batches in another process."""

    def __init__(self, maker: _Maker) -> None:
        self._maker = maker

    def __getitem__(self, place: _Place) -> _Made:
        made = self._maker[place]
        return replace(made, parcel=packed(made.batch())) if made.error is None else made


def _in_processes(maker: _Maker, first_step: int, last_step: int) -> Generator[_Made, None, None]:
    """`spawn`, because a forked S3 client waits for answers that its parent gets."""
    loader = DataLoader(
        _Sender(maker),
        batch_size=None,
        sampler=maker.places(first_step, last_step),
        num_workers=maker.num_workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # gets single items: there is no batch size
        prefetch_factor=_AHEAD,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn",
        worker_init_fn=_use_one_thread,
        generator=torch.Generator(),  # or torch's own would be drawn from
    )
    try:
        yield from loader
    except RuntimeError as error:
        raise JobError(
            f"a loader process was lost ({error}); it may have run out of memory or of shared "
            "memory: lower data.workers or train.micro_batch"
        ) from error


def _in_thread(maker: _Maker, first_step: int, last_step: int) -> Generator[_Made, None, None]:
    """One thread, a few micro-batches ahead."""
    under_way: deque[Future[_Made]] = deque()
    thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
    try:
        for place in maker.places(first_step, last_step):
            under_way.append(thread.submit(maker.__getitem__, place))
            if len(under_way) > _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def _as_it_is(made: _Made) -> _Made:
    return made


def _use_one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(1)


def _tell(new: tuple[str, ...], known: Counter[str]) -> None:
    """Each damaged thing is logged once, the first few at length, then only their number."""
    for complaint in new:
        known[complaint] += 1
        if known[complaint] > 1:
            continue
        if len(known) <= _LOGGED_FULLY:
            _log.warning("damaged, and left out: %s", complaint)
        elif not len(known) & (len(known) - 1):
            _log.warning("%d images or masks are damaged and left out", len(known))
