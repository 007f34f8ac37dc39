"""One shard of the synthetic store: its layers as cells, and a ledger of what is in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from synthetic_boxes import Boxes, boxes_table, draw_boxes
from synthetic_labels import human_table, teacher_table
from synthetic_photos import TOO_DARK, Photos, ShardPlan, draw_photos, index_table

from manifests import schemas
from manifests.cells import write_cell
from manifests.image_tar import ImageTarWriter
from manifests.ledger import LedgerCounter
from manifests.manifest import Cell
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import category_counts, value_counts
from manifests.store import Store

VERSION = 2
"""Raised when the same arguments give another store."""


def make_shard(store: Store, plan: ShardPlan) -> ResultRecord:
    """Stores the shard's cells, unless that was done before; the ledger has inputs, too."""
    key = work_key(operation="synthetic", version=VERSION, inputs=[], config=asdict(plan))
    if record := find_result(store, key):
        return record
    photos = draw_photos(plan)
    boxes = draw_boxes(plan, photos)
    counter = LedgerCounter()
    cells = list(_cells(store, plan, photos, boxes, counter))
    record = ResultRecord(cells=tuple(cells), ledger=counter.ledger().rows)
    return publish_result(store, key, record)


def _cells(
    store: Store, plan: ShardPlan, photos: Photos, boxes: Boxes, counter: LedgerCounter
) -> Iterator[Cell]:
    images, offsets = _store_images(store, photos)
    shard = images.shard
    yield images
    index = write_cell(
        store, index_table(plan, photos, offsets), shard=shard, layer=schemas.IMAGE_INDEX,
        inputs=(shard,), statistics={"quarantined": int(photos.is_dark.sum())},
    )  # fmt: skip
    yield index
    table = boxes_table(plan, photos, boxes)
    boxes_cell = write_cell(
        store, table, shard=shard, layer=schemas.BOXES, inputs=(index.object_id,),
        statistics=category_counts(table["category"]),
    )  # fmt: skip
    yield boxes_cell
    _count_ingest(counter, photos, table)
    if plan.has_human:
        masks = human_table(plan, photos, boxes)
        yield write_cell(
            store, masks, shard=shard, layer=schemas.MASKS_HUMAN,
            inputs=(boxes_cell.object_id,), statistics=value_counts(masks["status"]),
        )  # fmt: skip
        drawn = pc.equal(masks["status"], schemas.OK)
        for name, count in value_counts(table["category"].filter(drawn)).items():
            counter.add_inputs(schemas.MASKS_HUMAN, name, count)
            counter.add_kept(schemas.MASKS_HUMAN, name, count)
    for position, teacher in enumerate(plan.teachers):
        masks = teacher_table(plan, photos, boxes, position)
        layer = schemas.masks_layer(teacher)
        yield write_cell(
            store, masks, shard=shard, layer=layer,
            inputs=(shard, index.object_id, boxes_cell.object_id),
            statistics=value_counts(masks["status"]),
        )  # fmt: skip
        _count_label(counter, layer, table["category"], masks)


def _store_images(store: Store, photos: Photos) -> tuple[Cell, list[int]]:
    with tempfile.TemporaryDirectory(prefix="maskmill-synthetic-") as folder:
        path = Path(folder) / "images.tar"
        with ImageTarWriter(path) as tar:
            offsets = [
                tar.add(image_id=image_id, extension="png", data=data)
                for image_id, data in zip(photos.ids, photos.data, strict=True)
            ]
        stored = store.put_file(path)
    cell = Cell(
        shard=stored.object_id, layer=schemas.IMAGES, object_id=stored.object_id,
        num_rows=len(photos.data), num_bytes=stored.num_bytes,
    )  # fmt: skip
    return cell, offsets


def _count_ingest(counter: LedgerCounter, photos: Photos, boxes: pa.Table) -> None:
    num_dark = int(photos.is_dark.sum())
    counter.add_inputs(schemas.IMAGES, count=len(photos.data))
    counter.add_kept(schemas.IMAGES, count=len(photos.data) - num_dark)
    counter.add_dropped(schemas.IMAGES, reason=f"quarantined_{TOO_DARK}", count=num_dark)
    for name, count in value_counts(boxes["category"]).items():
        counter.add_inputs(schemas.BOXES, name, count)
        counter.add_kept(schemas.BOXES, name, count)


def _count_label(
    counter: LedgerCounter, layer: str, categories: pa.ChunkedArray, masks: pa.Table
) -> None:
    for name, count in value_counts(categories).items():
        counter.add_inputs(layer, name, count)
    columns = [categories, masks["status"], pc.coalesce(masks["reason"], "")]
    grouped = pa.table(columns, names=["category", "status", "reason"])
    counts = grouped.group_by(["category", "status", "reason"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        category, count = row["category"], row["count_all"]
        if row["status"] == schemas.OK:
            counter.add_kept(layer, category, count)
        elif row["status"] == schemas.SKIPPED:
            counter.add_dropped(layer, category, reason=row["reason"], count=count)
        else:
            counter.add_failed(layer, category, reason=row["reason"], count=count)
