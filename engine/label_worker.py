"""The label worker: stream the images, decode in threads, predict, encode in threads, one cell.

Nothing depends on the previous image, so any worker gives the same rows for the same shard.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.decode import ImageRejectedError, ImageRgb, decode_stored
from engine.label import LabelPayload
from engine.mask_ledger import mask_outcomes
from engine.mask_rows import failed_row, rows_from_chunk, skipped_row
from engine.task import Progress
from manifests import schemas
from manifests.cells import read_table, write_cell
from manifests.consequences import cell_lost, telling
from manifests.errors import JobError
from manifests.image_tar import STREAM_COLUMNS, stream_rows
from manifests.ledger import LedgerRow
from manifests.results import ResultRecord, find_result, publish_result
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.taken_down import why_gone
from teachers.protocol import MaskChunk, Teacher, machine_of
from teachers.signals import Gradient

log = logging.getLogger(__name__)

_DECODE_AHEAD = 4
_NUM_DECODERS = 2
_NUM_ENCODERS = 2

MaskRow = dict[str, Any]  # Any: one value of each column of MASKS_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompted:
    """One image with at least one box to prompt: its row, and those boxes with their rows."""

    image_row: int
    box_rows: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]  # [n, 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Photo:
    """A decoded image, and how fast it changes from pixel to pixel."""

    rgb: ImageRgb
    gradient: Gradient

    @classmethod
    def of(cls, data: bytes) -> _Photo:
        """From stored bytes. Raises ImageRejectedError if they do not decode."""
        rgb = decode_stored(data)
        return cls(rgb=rgb, gradient=Gradient.of(rgb))


_Prompt = tuple[_Prompted, _Photo]


class LabelWorker:
    """See `engine.task.Worker`; keeps its teacher between shards and nothing else."""

    def __init__(self, store: Store, teacher: Teacher, *, image_batch: int = 8) -> None:
        self._store, self._teacher, self._image_batch = store, teacher, image_batch
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def run(self, payload: object) -> ResultRecord:
        """Labels the payload's images and publishes their rows as a cell (or a part of one)."""
        if not isinstance(payload, LabelPayload):
            raise JobError(f"label worker: expected a LabelPayload, got {type(payload).__name__}")
        self._progress = Progress()
        shard = _Shard(self._store, payload)
        shard.take_finished_parts(self._store)
        with (
            ThreadPoolExecutor(_NUM_DECODERS) as decoders,
            ThreadPoolExecutor(_NUM_ENCODERS) as encoders,
        ):
            self._label(shard, decoders, encoders)
        table = shard.table()
        cell = write_cell(
            self._store, table, shard=payload.shard,
            layer=schemas.masks_layer(payload.teacher), inputs=payload.inputs,
            statistics=_statistics(payload, table),
        )  # fmt: skip
        record = ResultRecord(
            cells=(cell,), ledger=shard.outcomes(table), machine=machine_of(self._teacher)
        )
        if cell.object_id == payload.carried and cell.statistics.get(schemas.FAILED):
            return record  # tried again in vain: the next one who asks may try, too
        return publish_result(self._store, payload.work_key, record)

    def _label(
        self, shard: _Shard, decoders: ThreadPoolExecutor, encoders: ThreadPoolExecutor
    ) -> None:
        """Decoded images flow to the teacher in batches; its masks flow to the encoders."""
        encoding: deque[Future[int]] = deque()
        current = None
        for batch in _batches(self._decoded(shard, decoders), self._image_batch):
            for (prompted, photo), chunk in self._predict(batch):
                self._count(num_images=int(prompted is not current))
                current = prompted
                encoding.append(encoders.submit(shard.fill, prompted, chunk, photo.gradient))
                while len(encoding) > _NUM_ENCODERS:  # bounds the masks in memory
                    self._count(num_masks=encoding.popleft().result())
        for future in encoding:
            self._count(num_masks=future.result())

    def _decoded(self, shard: _Shard, decoders: ThreadPoolExecutor) -> Iterator[_Prompt]:
        """Images in order, decoded a few ahead; rows of one that no longer decodes are failed."""
        ahead: deque[tuple[_Prompted, Future[_Photo]]] = deque()
        todo = shard.prompts()
        stored = shard.images(self._store, [prompted.image_row for prompted in todo])
        for prompted, data in zip(todo, stored, strict=True):
            ahead.append((prompted, decoders.submit(_Photo.of, data)))
            if len(ahead) > max(_DECODE_AHEAD, self._image_batch):
                yield from shard.only_decoded(*ahead.popleft())
        while ahead:
            yield from shard.only_decoded(*ahead.popleft())

    def _predict(self, batch: Sequence[_Prompt]) -> Iterator[tuple[_Prompt, MaskChunk]]:
        """The teacher's chunks; out of memory halves the batch and tries again."""
        try:
            chunks = self._teacher.predict(
                [photo.rgb for _, photo in batch], [prompted.boxes_xyxy for prompted, _ in batch]
            )
            for chunk in chunks:
                yield batch[chunk.image_index], chunk
        except MemoryError:
            if len(batch) == 1:
                raise
            log.warning("out of memory with %d images together, halving", len(batch))
            middle = len(batch) // 2
            yield from self._predict(batch[:middle])
            yield from self._predict(batch[middle:])

    def _count(self, *, num_images: int = 0, num_masks: int = 0) -> None:
        now = self._progress
        self._progress = replace(
            now, num_images=now.num_images + num_images, num_masks=now.num_masks + num_masks
        )


class _Shard:
    """The rows of one payload while they are being filled."""

    def __init__(self, store: Store, payload: LabelPayload) -> None:
        self.payload = payload
        columns = ["height", "width", "quarantine", *STREAM_COLUMNS]
        with self._telling(schemas.IMAGE_INDEX, payload.image_index):
            self._index_table = read_table(store, payload.image_index, columns=columns)
        self._index = self._index_table.to_pylist()
        with self._telling(schemas.BOXES, payload.boxes):
            boxes = read_table(store, payload.boxes)
        image_rows = boxes["image_row"].to_numpy()
        # Rows of one image are together and in the order of images, so a range of images is one.
        self._first, self._last = np.searchsorted(image_rows, [payload.start, payload.stop])
        self._boxes = boxes.slice(self._first, self._last - self._first)
        self._image_rows = image_rows[self._first : self._last]
        flat = self._boxes["box_xyxy"].combine_chunks().flatten()
        self._box_xyxy = flat.to_numpy(zero_copy_only=False).reshape(-1, 4)
        self._rows: list[MaskRow | None] = [None] * self._boxes.num_rows
        self._fill_unprompted()
        if payload.carried:
            with self._telling(schemas.masks_layer(payload.teacher), payload.carried):
                carried = read_table(store, payload.carried)
            self._fill_carried(carried)

    def take_finished_parts(self, store: Store) -> None:
        """Rows of parts that were labelled alone, after the shard failed as a whole."""
        for key in self.payload.parts:
            record = find_result(store, key)
            if record is None:
                raise JobError(f"{self.payload.name}: a finished part has gone; run again")
            part = read_table(store, record.cells[0].object_id).to_pylist()
            first, _ = np.searchsorted(self._image_rows, _part_range(record))
            self._rows[first : first + len(part)] = part

    def prompts(self) -> list[_Prompted]:
        """Images that have rows to fill, in order."""
        open_rows = np.array(
            [row for row, content in enumerate(self._rows) if content is None], dtype=np.int64
        )
        images, starts = np.unique(self._image_rows[open_rows], return_index=True)
        groups = np.split(open_rows, starts[1:])
        return [
            _Prompted(image_row=int(image), box_rows=rows, boxes_xyxy=self._box_xyxy[rows])
            for image, rows in zip(images, groups, strict=False)
        ]

    def images(self, store: Store, image_rows: list[int]) -> Iterator[bytes]:
        """The stored bytes of these images; some damage is found only after the last one."""
        rows = self._index_table.take(pa.array(image_rows, pa.int32()))
        with self._telling(schemas.IMAGES, self.payload.images, partial(why_gone, store)):
            yield from stream_rows(store, self.payload.images, rows)

    def _telling(
        self, layer: str, object_id: str, why_gone: Callable[[str], str | None] = lambda shard: None
    ) -> AbstractContextManager[None]:
        shard = self.payload.shard
        lost = cell_lost(shard=shard, layer=layer, object_id=object_id)
        return telling(lost, who="the shard", why_gone=lambda: why_gone(shard))

    def fill(self, prompted: _Prompted, chunk: MaskChunk, gradient: Gradient) -> int:
        """Encodes a chunk's masks into their rows; returns how many masks there were."""
        size_hw = self._size_hw(prompted.image_row)
        rows = rows_from_chunk(chunk, prompted.boxes_xyxy, size_hw=size_hw, gradient=gradient)
        for box, row in rows:
            self._rows[prompted.box_rows[box]] = row
        return len(chunk.box_indices)

    def only_decoded(self, prompted: _Prompted, future: Future[_Photo]) -> Iterator[_Prompt]:
        """The image, if it decodes; otherwise its rows are failed."""
        try:
            yield prompted, future.result()
        except ImageRejectedError as error:
            for row in prompted.box_rows:
                size_hw = self._size_hw(prompted.image_row)
                self._rows[row] = failed_row(error.reason, size_hw=size_hw)

    def table(self) -> pa.Table:
        """The cell: exactly the rows of `boxes` in the payload's range, in that order."""
        missing = sum(row is None for row in self._rows)
        if missing:
            raise JobError(f"{self.payload.name}: the teacher left {missing} boxes unanswered")
        return pa.Table.from_pylist(self._rows, schema=schemas.MASKS_SCHEMA)

    def outcomes(self, table: pa.Table) -> tuple[LedgerRow, ...]:
        """What became of every row, by category."""
        layer = schemas.masks_layer(self.payload.teacher)
        return mask_outcomes(layer, categories=self._boxes["category"], masks=table)

    def _fill_unprompted(self) -> None:
        """Rows that are never prompted: crowds, quarantined images, images known to fail."""
        crowd = self._boxes["is_crowd"].to_pylist()
        group = self._boxes["is_group_of"].to_pylist()
        for row, image_row in enumerate(self._image_rows):
            size_hw = self._size_hw(image_row)
            failure = self.payload.failures.get(int(image_row))
            quarantine = self._index[image_row]["quarantine"]
            if failure:
                self._rows[row] = failed_row(failure, size_hw=size_hw)
            elif quarantine:
                self._rows[row] = skipped_row(f"quarantined_{quarantine}", size_hw=size_hw)
            elif crowd[row] or group[row]:
                word = "crowd" if crowd[row] else "group_of"
                self._rows[row] = skipped_row(word, size_hw=size_hw)

    def _fill_carried(self, carried: pa.Table) -> None:
        rows = carried.slice(self._first, self._last - self._first).to_pylist()
        for position, row in enumerate(rows):
            if row["status"] not in (schemas.PENDING, schemas.FAILED):
                self._rows[position] = row

    def _size_hw(self, image_row: int) -> tuple[int, int]:
        entry = self._index[image_row]
        return entry["height"], entry["width"]


def _statistics(payload: LabelPayload, table: pa.Table) -> dict[str, int]:
    counts = cell_statistics(schemas.masks_layer(payload.teacher), table)
    if payload.is_part:
        counts |= {"part_start": payload.start, "part_stop": payload.stop}
    return counts


def _part_range(record: ResultRecord) -> tuple[int, int]:
    statistics = record.cells[0].statistics
    return statistics["part_start"], statistics["part_stop"]


def _batches(items: Iterator[_Prompt], size: int) -> Iterator[list[_Prompt]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
