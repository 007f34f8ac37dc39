"""More boxes for images that are stored already: a picture that a second source has too.

The shard keeps its images and its id. Its image_index learns the new origins and federated lists,
its boxes get the new rows, and every masks layer is realigned: old rows are carried over, new ones
are `pending` until their teacher runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from engine.decode import UprightImage
from engine.ingest_config import ImagePolicy
from engine.mask_rows import MaskRow, absent_row, pending_row
from engine.place_boxes import Placements
from engine.shard_tables import ShardTables, Twin
from engine.task import Progress
from manifests import schemas
from manifests.cells import read_table, write_cell
from manifests.consequences import cell_lost, telling
from manifests.dataset import Dataset
from manifests.errors import JobError
from manifests.manifest import Cell
from manifests.older_cells import with_later_columns
from manifests.parquet import table_to_parquet
from manifests.results import ResultRecord, publish_result, work_key
from manifests.statistics import cell_statistics
from manifests.store import Store

VERSION = 2

Row = dict[str, Any]  # Any: one value of each column of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendPayload:
    """An existing shard's cells, and the PLAN rows to add to it."""

    work_key: str
    plan: str
    shard: str
    cells: tuple[Cell, ...]
    source: str
    box_unit: Literal["pixel", "relative"]
    policy: ImagePolicy

    @property
    def name(self) -> str:
        return f"extend {self.shard[:12]} with {self.source}"

    @property
    def num_items(self) -> int:
        return 1  # tables only: there is no image to single out

    def part(self, start: int, stop: int) -> Self:
        """See `engine.task.Payload.part`; never called for one item."""
        raise JobError(f"{self.name}: cannot be divided")

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """See `engine.task.Payload.assembled`: a shard that cannot be extended stops the job."""
        raise JobError(f"{self.name}: {', '.join(failures.values())}")

    @staticmethod
    def make(
        dataset: Dataset,
        shard: str,
        *,
        plan: str,
        source: str,
        shaping: Mapping[str, Any],  # Any: JSON
        box_unit: Literal["pixel", "relative"],
        policy: ImagePolicy,
    ) -> ExtendPayload:
        """The payload for one shard of a dataset."""
        cells = tuple(
            cell
            for cell in (dataset.manifest.get(shard, layer) for layer in dataset.manifest.layers())
            if cell and (cell.layer in _TABLES or cell.layer.startswith("masks/"))
        )
        key = work_key(
            operation="extend", version=VERSION, config=shaping,
            inputs=[plan, *(cell.object_id for cell in cells)],
        )  # fmt: skip
        return ExtendPayload(
            work_key=key, plan=plan, shard=shard, cells=cells, source=source,
            box_unit=box_unit, policy=policy,
        )  # fmt: skip


_TABLES = (schemas.IMAGE_INDEX, schemas.BOXES)


class ExtendWorker:
    """See `engine.task.Worker`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.progress = Progress()

    def run(self, payload: object) -> ResultRecord:
        """Writes the shard's changed cells; none if the source adds nothing to it."""
        if not isinstance(payload, ExtendPayload):
            raise JobError(f"expected an ExtendPayload, got {type(payload).__name__}")
        old = {cell.layer: _read(self._store, cell) for cell in payload.cells}
        plan = {row["image_id"]: row for row in read_table(self._store, payload.plan).to_pylist()}
        added = _new_rows(payload, plan, old)
        cells = tuple(self._write(payload, plan, old, added))
        rejects = added.rejects()
        record = ResultRecord(
            cells=cells,
            ledger=added.counter.ledger().rows,
            rejects=self._store.put_bytes(table_to_parquet(rejects)).object_id
            if rejects.num_rows
            else None,
        )
        return publish_result(self._store, payload.work_key, record)

    def _write(
        self,
        payload: ExtendPayload,
        plan: Mapping[str, Row],
        old: Mapping[str, pa.Table],
        added: ShardTables,
    ) -> Iterator[Cell]:
        before = {cell.layer: cell for cell in payload.cells}
        index = _with_origins(old[schemas.IMAGE_INDEX], plan)
        index_cell = before[schemas.IMAGE_INDEX]
        if not index.equals(old[schemas.IMAGE_INDEX]):
            index_cell = write_cell(
                self._store, index, shard=payload.shard, layer=schemas.IMAGE_INDEX,
                inputs=index_cell.inputs, statistics=index_cell.statistics,
            )  # fmt: skip
            yield index_cell
        new_boxes, new_human = added.box_tables()
        if not new_boxes.num_rows:
            return
        joined = pa.concat_tables([old[schemas.BOXES], new_boxes])
        # Stable: an image's new rows come after its old ones.
        order = np.argsort(joined["image_row"].to_numpy(), kind="stable")
        boxes = joined.take(order)
        boxes_cell = write_cell(
            self._store, boxes, shard=payload.shard, layer=schemas.BOXES,
            inputs=(index_cell.object_id,), statistics=cell_statistics(schemas.BOXES, boxes),
        )  # fmt: skip
        yield boxes_cell
        layers = _masks_layers(old, new_boxes, new_human, index)
        for layer, (old_rows, new_rows) in layers.items():
            table = pa.concat_tables([old_rows, new_rows]).take(order)
            yield write_cell(
                self._store, table, shard=payload.shard, layer=layer,
                inputs=(boxes_cell.object_id,), statistics=cell_statistics(layer, table),
            )  # fmt: skip


def _read(store: Store, cell: Cell) -> pa.Table:
    lost = cell_lost(shard=cell.shard, layer=cell.layer, object_id=cell.object_id)
    with telling(lost, who="the shard"):
        table = read_table(store, cell.object_id)
    is_masks = cell.layer.startswith(schemas.masks_layer(""))
    return with_later_columns(table, schemas.MASKS_SCHEMA) if is_masks else table


def _new_rows(
    payload: ExtendPayload, plan: Mapping[str, Row], old: Mapping[str, pa.Table]
) -> ShardTables:
    tables = ShardTables(payload.source, payload.policy)
    known_ids = frozenset(old[schemas.BOXES]["annotation_id"].to_pylist())
    twins = _twins(old[schemas.BOXES])
    for image_row, entry in enumerate(old[schemas.IMAGE_INDEX].to_pylist()):
        if row := plan.get(entry["image_id"]):
            tables.add_boxes(
                row,
                _placements(entry, payload),
                image_row=image_row,
                known_ids=known_ids,
                known_twins=twins.get(image_row, frozenset()),
            )
    return tables


def _twins(boxes: pa.Table) -> dict[int, frozenset[Twin]]:
    found: dict[int, set[Twin]] = {}
    rows = boxes.select(["image_row", "category", "box_xyxy"]).to_pylist()
    for row in rows:
        key = (row["category"], np.array(row["box_xyxy"], dtype=np.float32).tobytes())
        found.setdefault(row["image_row"], set()).add(key)
    return {image_row: frozenset(keys) for image_row, keys in found.items()}


def _placements(entry: Row, payload: ExtendPayload) -> Placements:
    """As for a fresh image; its pixels are not needed, only the sizes the index recorded."""
    size_hw = (entry["height"], entry["width"])
    exif = [name for name in entry["transforms"] if name.startswith("exif_")]
    orientation = int(exif[0].removeprefix("exif_")) if exif else 1
    raw_hw = size_hw[::-1] if orientation >= 5 else size_hw
    sized = UprightImage(
        rgb=np.broadcast_to(np.uint8(0), (*size_hw, 3)), data=b"", format=entry["format"],
        transforms=(), orientation=orientation, raw_size_hw=(raw_hw[0], raw_hw[1]),
    )  # fmt: skip
    return Placements(sized, box_unit=payload.box_unit, policy=payload.policy)


def _with_origins(index: pa.Table, plan: Mapping[str, Row]) -> pa.Table:
    rows = index.to_pylist()
    for row in rows:
        added = plan.get(row["image_id"], {})
        for origin in added.get("origins", []):
            if origin not in row["origins"]:
                row["origins"].append(origin)
        for column in ("not_exhaustive", "negative"):
            row[column] = sorted({*row[column], *(added.get(column) or [])})
    return pa.Table.from_pylist(rows, schema=schemas.IMAGE_INDEX_SCHEMA)


def _masks_layers(
    old: Mapping[str, pa.Table], new_boxes: pa.Table, new_human: pa.Table, index: pa.Table
) -> dict[str, tuple[pa.Table, pa.Table]]:
    """Layer -> (its old rows, its rows for the new boxes)."""
    layers = {name: table for name, table in old.items() if name.startswith("masks/")}
    if schemas.OK in new_human["status"].to_pylist() and schemas.MASKS_HUMAN not in layers:
        layers[schemas.MASKS_HUMAN] = _filled(absent_row, old[schemas.BOXES], index)
    pending = _filled(pending_row, new_boxes, index)
    return {
        name: (table, new_human if name == schemas.MASKS_HUMAN else pending)
        for name, table in layers.items()
    }


def _filled(make_row: Callable[..., MaskRow], boxes: pa.Table, index: pa.Table) -> pa.Table:
    sizes = list(zip(index["height"].to_pylist(), index["width"].to_pylist(), strict=True))
    image_rows = boxes["image_row"].to_pylist()
    rows = [make_row(None, size_hw=sizes[image_row]) for image_row in image_rows]
    return pa.Table.from_pylist(rows, schema=schemas.MASKS_SCHEMA)
