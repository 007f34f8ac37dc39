"""The predict worker: read, decode in threads, find segments in batches, one Parquet object."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.decode import ImageRejectedError, read_upright
from engine.image_root import ImageRoot, UnsafeNameError
from engine.task import Progress
from manifests.cells import read_table, write_cell
from manifests.digest import sha256_hex
from manifests.errors import JobError
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.schemas import PREDICTIONS_SCHEMA
from manifests.store import Store
from teachers.predictor import PredictedSegment, Predictor

log = logging.getLogger(__name__)

LAYER = "predictions"
_READERS = 4
_PASSING = frozenset({"missing_file", "unreadable_file", "out_of_memory"})
"""Reasons that are not in the bytes of a photo: a network, a right, a worker without the folder."""

Row = dict[str, Any]  # Any: one value of each column of PREDICTIONS_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictPayload:
    """Some photos below one root.

    Attributes:
        work_key: see `engine.task.Payload`.
        root: the folder or bucket.
        names: the photos, below it.
        is_part: of another payload, which asks for its record.
        parts: work keys of finished parts.
        failures: position in `names` -> ledger word, for photos that cannot be done.
    """

    work_key: str
    root: str
    names: tuple[str, ...]
    is_part: bool = False
    parts: tuple[str, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"predict {self.names[0]} and {len(self.names) - 1} more"

    @property
    def num_items(self) -> int:
        return len(self.names)

    def part(self, start: int, stop: int) -> Self:
        """See `engine.task.Payload.part`."""
        key = work_key(
            operation="predict-part", version=1, inputs=[self.work_key],
            config={"start": start, "stop": stop},
        )  # fmt: skip
        return replace(self, work_key=key, names=self.names[start:stop], is_part=True)

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """See `engine.task.Payload.assembled`."""
        return replace(self, parts=tuple(parts), failures=dict(failures))


class PredictWorker:
    """See `engine.task.Worker`; keeps its predictor between payloads and nothing else."""

    def __init__(self, store: Store, predictor: Predictor, *, image_batch: int) -> None:
        self._store, self._predictor, self._image_batch = store, predictor, image_batch
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def run(self, payload: object) -> ResultRecord:
        """Predicts the payload's photos and publishes their rows."""
        if not isinstance(payload, PredictPayload):
            kind = type(payload).__name__
            raise JobError(f"predict worker: expected a PredictPayload, got {kind}")
        self._progress = Progress()
        rows = self._finished(payload)
        todo = [index for index, row in enumerate(rows) if row is None]
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(todo), self._image_batch):
                batch = todo[start : start + self._image_batch]
                photos = list(readers.map(lambda index: _read(payload, index), batch))
                for index, row in zip(batch, self._rows(payload, batch, photos), strict=True):
                    rows[index] = row
                self._count(batch, rows)
        table = pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)
        shard = sha256_hex(payload.work_key.encode())
        cell = write_cell(self._store, table, shard=shard, layer=LAYER)
        record = ResultRecord(cells=(cell,))
        if not payload.is_part and not _PASSING.isdisjoint(table["reason"].to_pylist()):
            return record  # what failed for a passing reason is tried again by the next run
        return publish_result(self._store, payload.work_key, record)

    def _finished(self, payload: PredictPayload) -> list[Row | None]:
        rows: list[Row | None] = [None] * len(payload.names)
        for index, reason in payload.failures.items():
            rows[index] = failed_row(payload.names[index], reason)
        places = {name: index for index, name in enumerate(payload.names)}
        for key in payload.parts:
            record = find_result(self._store, key)
            if record is None:
                raise JobError(f"{payload.name}: a finished part has gone; run again")
            for row in read_table(self._store, record.cells[0].object_id).to_pylist():
                rows[places[row["file_name"]]] = row
        return rows

    def _rows(
        self, payload: PredictPayload, batch: Sequence[int], photos: Sequence[_Photo]
    ) -> Iterator[Row]:
        good = [photo.rgb for photo in photos if photo.rgb is not None]
        found = iter(self._predict(good))
        for index, photo in zip(batch, photos, strict=True):
            name = payload.names[index]
            if photo.rgb is None:
                yield failed_row(name, photo.reason)
            else:
                yield _row(name, photo.rgb, next(found))

    def _predict(self, photos: list[NDArray[np.uint8]]) -> list[list[PredictedSegment]]:
        """Out of memory halves the batch and tries again."""
        if not photos:
            return []
        try:
            return self._predictor.predict(photos)
        except MemoryError:
            if len(photos) == 1:
                raise
            log.warning("out of memory with %d images together, halving", len(photos))
            middle = len(photos) // 2
            return self._predict(photos[:middle]) + self._predict(photos[middle:])

    def _count(self, batch: Sequence[int], rows: Sequence[Row | None]) -> None:
        now = self._progress
        masks = sum(len(row["segments"]) for index in batch if (row := rows[index]) is not None)
        self._progress = replace(
            now, num_images=now.num_images + len(batch), num_masks=now.num_masks + masks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Photo:
    """A decoded photo, or a ledger word that says why not."""

    rgb: NDArray[np.uint8] | None = None
    reason: str = ""


def _read(payload: PredictPayload, index: int) -> _Photo:
    try:
        data = ImageRoot(payload.root).read(payload.names[index])
    except FileNotFoundError:
        return _Photo(reason="missing_file")
    except UnsafeNameError:
        return _Photo(reason="unsafe_name")
    except OSError as error:
        log.warning("%s: %s", payload.names[index], error)
        return _Photo(reason="unreadable_file")
    try:
        return _Photo(rgb=read_upright(data).rgb)
    except ImageRejectedError as error:
        return _Photo(reason=error.reason)


def failed_row(name: str, reason: str) -> Row:
    """A photo without a prediction."""
    return {"file_name": name, "height": None, "width": None, "reason": reason, "segments": []}


def _row(name: str, rgb: NDArray[np.uint8], segments: Sequence[PredictedSegment]) -> Row:
    height, width = rgb.shape[:2]
    records = [
        {
            "text": segment.text,
            "score": segment.score,
            "box_xyxy": list(segment.box_xyxy),
            "counts": segment.counts,
            "query": segment.query,
        }
        for segment in segments
    ]
    return {
        "file_name": name, "height": height, "width": width, "reason": None, "segments": records,
    }  # fmt: skip
