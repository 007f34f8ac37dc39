"""The ingest worker: one planned shard becomes its images tar, image_index, boxes and human masks.

Images are read ahead in threads; each is decoded fully once, turned upright, measured, and stored.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from engine.decode import EXTENSIONS, ImageRejectedError, UprightImage, read_upright
from engine.image_root import ImageRoot, UnsafeNameError, why_unreadable
from engine.ingest_config import ImagePolicy
from engine.measure import PhotoMeasures, measure
from engine.place_boxes import Placements
from engine.shard_tables import ShardTables
from engine.task import Progress
from manifests import schemas
from manifests.cells import read_table
from manifests.digest import content_id
from manifests.errors import JobError
from manifests.image_tar import ImageTarWriter
from manifests.manifest import Cell
from manifests.parquet import table_to_parquet
from manifests.results import ResultRecord, publish_result, work_key
from manifests.store import Store

VERSION = 1
_READERS = 4
_READ_AHEAD = 16
_PASSING = ("unreadable_file", "changed_during_ingest", "out_of_memory")
"""Reasons that are not in the bytes of an image: a network, a disk, a worker."""

Row = dict[str, Any]  # Any: one value of each column of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPayload:
    """One planned shard: `plan` is the object id of its PLAN table."""

    work_key: str
    plan: str
    num_images: int
    root: ImageRoot
    source: str
    box_unit: Literal["pixel", "relative"]
    policy: ImagePolicy
    start: int = 0
    stop: int | None = None
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"ingest {self.source} {self.plan[:12]}[{self.start}:{self.stop or ''}]"

    @property
    def num_items(self) -> int:
        return (self.num_images if self.stop is None else self.stop) - self.start

    def part(self, start: int, stop: int) -> Self:
        """See `engine.task.Payload.part`; a part only finds out which image breaks."""
        first, last = self.start + start, self.start + stop
        key = work_key(
            operation="ingest-part", version=VERSION, inputs=[self.work_key],
            config={"start": first, "stop": last},
        )  # fmt: skip
        return replace(self, work_key=key, start=first, stop=last)

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """See `engine.task.Payload.assembled`."""
        return replace(self, failures=dict(failures))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Photo:
    """An image that passed: what to store and where its source's boxes lie on it."""

    upright: UprightImage
    measures: PhotoMeasures
    placements: Placements


class PackWorker:
    """See `engine.task.Worker`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def run(self, payload: object) -> ResultRecord:
        """Packs the payload's images and publishes the shard's cells."""
        if not isinstance(payload, PackPayload):
            raise JobError(f"expected a PackPayload, got {type(payload).__name__}")
        self._progress = Progress()
        plan = read_table(self._store, payload.plan).to_pylist()[payload.start : payload.stop]
        tables = ShardTables(payload.source, payload.policy)
        is_passing = bool(payload.failures)
        with tempfile.TemporaryDirectory(prefix="maskmill-") as folder:
            path = Path(folder) / "images.tar"
            with ImageTarWriter(path) as tar:
                for position, photo in self._photos(payload, plan):
                    row = plan[position]
                    if isinstance(photo, ImageRejectedError):
                        is_passing |= photo.reason in _PASSING
                        tables.fail_image(row, photo)
                        continue
                    offset = tar.add(
                        image_id=row["image_id"], data=photo.upright.data,
                        extension=EXTENSIONS[photo.upright.format],
                    )  # fmt: skip
                    tables.add_image(row, photo.upright, photo.measures, offset)
                    tables.add_boxes(row, photo.placements, image_row=tables.num_images - 1)
                    self._progress = Progress(num_images=self._progress.num_images + 1)
            cells = self._store_cells(path, tables) if payload.stop is None else ()
        rejects = tables.rejects()
        record = ResultRecord(
            cells=cells,
            ledger=tables.counter.ledger().rows,
            rejects=self._store.put_bytes(table_to_parquet(rejects)).object_id
            if rejects.num_rows
            else None,
        )
        if is_passing and payload.stop is None:
            return record  # what failed for a passing reason is tried again by the next ingest
        return publish_result(self._store, payload.work_key, record)

    def _photos(
        self, payload: PackPayload, plan: list[Row]
    ) -> Iterator[tuple[int, _Photo | ImageRejectedError]]:
        """Photos in the order of the plan, read and decoded a few ahead."""
        ahead: deque[tuple[int, Future[_Photo]]] = deque()
        with ThreadPoolExecutor(_READERS) as readers:
            for position, row in enumerate(plan):
                failure = payload.failures.get(payload.start + position, "")
                ahead.append((position, readers.submit(_read_photo, payload, row, failure)))
                if len(ahead) > _READ_AHEAD:
                    yield _settled(*ahead.popleft())
            while ahead:
                yield _settled(*ahead.popleft())

    def _store_cells(self, path: Path, tables: ShardTables) -> tuple[Cell, ...]:
        if not tables.num_images:
            return ()
        stored = self._store.put_file(path)
        shard = stored.object_id
        images = Cell(
            shard=shard, layer=schemas.IMAGES, object_id=shard,
            num_rows=tables.num_images, num_bytes=stored.num_bytes,
        )  # fmt: skip
        return (images, *tables.write(self._store, shard))


def _read_photo(payload: PackPayload, row: Row, failure: str) -> _Photo:
    if failure:
        raise ImageRejectedError(failure, "the worker could not survive this image")
    try:
        data = payload.root.read(row["file_name"])
    except (OSError, UnsafeNameError) as error:
        raise ImageRejectedError("unreadable_file", why_unreadable(error)) from error
    if content_id(data) != row["image_id"]:
        raise ImageRejectedError("changed_during_ingest", "its bytes are not those of the plan")
    upright = read_upright(data, max_pixels=payload.policy.max_pixels)
    placements = Placements(upright, box_unit=payload.box_unit, policy=payload.policy)
    found = [placements.of(declared) for declared in (row, *row["annotations"])]
    if isinstance(found[0], ImageRejectedError) and all(
        isinstance(placement, ImageRejectedError) for placement in found
    ):
        raise found[0]  # no entry that declares this picture has its size right
    return _Photo(upright=upright, measures=measure(upright.rgb), placements=placements)


def _settled(position: int, future: Future[_Photo]) -> tuple[int, _Photo | ImageRejectedError]:
    try:
        return position, future.result()
    except ImageRejectedError as error:
        return position, error
