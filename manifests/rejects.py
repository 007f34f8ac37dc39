"""Every image and box of a commit that did not become a kept mask, one row each, with its reason.

Rows of an ingest that never came in, then what became of the boxes that did: their verdicts, or,
without verdicts, the rows for which a teacher has no mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.cells import read_table
from manifests.consequences import rejects_lost, telling
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError
from manifests.history import HistoryEntry, history
from manifests.store import Store

_BOX_COLUMNS = ["category", "image_row", "source", "source_annotation_id"]
_IMAGE_COLUMNS = ["file_name", "source_image_id"]
_MASKS = schemas.masks_layer("")


def rejects(dataset: Dataset) -> Iterator[pa.Table]:
    """Tables with REJECTS_SCHEMA, small enough to hold one at a time.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store has lost something.
    """
    for entry in history(dataset.store, dataset.commit_id):
        if entry.commit.rejects:
            yield rejects_table(dataset.store, entry)
    for shard in dataset.manifest.shards():
        yield from _of_shard(dataset, shard)


def rejects_table(store: Store, entry: HistoryEntry) -> pa.Table:
    """REJECTS_SCHEMA: what one ingest did not keep; none for a commit without such a table.

    Raises:
        ObjectMissingError, ObjectDamagedError: the table cannot be read.
    """
    object_id = entry.commit.rejects
    if object_id is None:
        return schemas.REJECTS_SCHEMA.empty_table()
    with telling(rejects_lost(object_id), who=f"commit {entry.commit_id[:12]}"):
        table = read_table(store, object_id)
        try:
            return table.cast(schemas.REJECTS_SCHEMA)
        except (pa.ArrowException, ValueError) as error:
            raise ObjectDamagedError(f"it is not a table of rejects: {error}") from error


def _of_shard(dataset: Dataset, shard: str) -> Iterator[pa.Table]:
    if dataset.manifest.get(shard, schemas.VERDICTS):
        verdicts = dataset.table(shard, schemas.VERDICTS, columns=["keep", "reason", "teacher"])
        is_out, outcome = pc.invert(verdicts["keep"]), pa.scalar("dropped")
        yield _rows(
            dataset, shard, schemas.VERDICTS, is_out,
            outcome=outcome, reason=verdicts["reason"], detail=verdicts["teacher"],
        )  # fmt: skip
        return
    for layer in dataset.manifest.layers():
        if layer.startswith(_MASKS) and dataset.manifest.get(shard, layer):
            masks = dataset.table(shard, layer, columns=["status", "reason"])
            status = masks["status"]
            is_out = pc.invert(pc.is_in(status, pa.array([schemas.OK, schemas.ABSENT])))
            failed = pc.equal(status, schemas.FAILED)
            yield _rows(
                dataset, shard, layer, is_out, outcome=pc.if_else(failed, "failed", "dropped"),
                reason=pc.coalesce(masks["reason"], status), detail=pa.nulls(1, pa.string())[0],
            )  # fmt: skip


def _rows(
    dataset: Dataset,
    shard: str,
    layer: str,
    is_out: pa.ChunkedArray,
    **columns: pa.ChunkedArray | pa.Scalar,
) -> pa.Table:
    boxes = dataset.table(shard, schemas.BOXES, columns=_BOX_COLUMNS)
    images = dataset.table(shard, schemas.IMAGE_INDEX, columns=_IMAGE_COLUMNS)
    for name, column in columns.items():
        is_one = isinstance(column, pa.Scalar)
        full = pa.repeat(column, boxes.num_rows) if is_one else column
        boxes = boxes.append_column(name, full)
    boxes = boxes.append_column("layer", pa.repeat(layer, boxes.num_rows)).filter(is_out)
    of_images = images.take(boxes["image_row"])
    for name in _IMAGE_COLUMNS:
        boxes = boxes.append_column(name, of_images[name])
    return boxes.select(schemas.REJECTS_SCHEMA.names).cast(schemas.REJECTS_SCHEMA)
