"""Rejects: a row for everything that was not kept, from whichever step left it out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from manifests import schemas
from manifests.commit import Commit
from manifests.dataset import Dataset, operation
from manifests.parquet import table_to_parquet
from manifests.rejects import rejects
from tests.manifests.conftest import mask_row


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    tables = list(rejects(dataset))
    assert all(table.schema == schemas.REJECTS_SCHEMA for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_verdicts_say_why_each_box_was_dropped(builder: Any) -> None:
    builder.image("a.jpg", source_image_id="7")
    builder.box("shoe", (0, 0, 5, 5))
    builder.image("b.jpg", source_image_id="8")
    builder.box("bag", (0, 0, 2, 2), keep=False, reason="too_small", source_annotation_id="42")
    builder.shard()
    [row] = rows(builder.commit())
    assert row == {
        "layer": "verdicts", "outcome": "dropped", "reason": "too_small",
        "detail": "masks/mobile_sam", "source": "shop", "source_image_id": "8",
        "file_name": "b.jpg", "source_annotation_id": "42", "category": "bag",
    }  # fmt: skip


def test_without_verdicts_rows_without_a_mask_are_listed(builder: Any) -> None:
    builder.image("a.jpg")
    size = (12, 20)
    for status, reason in [("failed", "worker_died"), ("skipped", "crowd"), ("pending", None)]:
        row = mask_row(None, size, status=status, reason=reason)
        builder.box("shoe", (0, 0, 5, 5), layers={"masks/mobile_sam": row})
    builder.box("shoe", (0, 0, 5, 5))
    builder.box("bag", (0, 0, 5, 5), layers={"masks/human": mask_row(None, size)})
    builder.shard(verdicts=False)
    found = rows(builder.commit())
    assert [(row["layer"], row["outcome"], row["reason"]) for row in found] == [
        ("masks/mobile_sam", "failed", "worker_died"),
        ("masks/mobile_sam", "dropped", "crowd"),
        ("masks/mobile_sam", "dropped", "pending"),
    ]


def test_what_an_ingest_left_out_stays_listed_after_later_steps(builder: Any) -> None:
    parent = builder.commit()
    lost = dict.fromkeys(schemas.REJECTS_SCHEMA.names)
    lost |= {"layer": "images", "outcome": "failed", "reason": "truncated", "source": "shop"}
    table = pa.Table.from_pylist([lost], schema=schemas.REJECTS_SCHEMA)
    made = operation("test", version=1, config={})
    fields = {"manifest": parent.commit.manifest, "author": "t", "message": "m", "operation": made}
    ingest = Commit(
        parents=(parent.commit_id,), time="2026-11-23T20:00:01Z",
        rejects=builder.store.put_bytes(table_to_parquet(table)).object_id, **fields,
    ).save(builder.store)  # fmt: skip
    later = Commit(parents=(ingest,), time="2026-11-23T20:00:02Z", **fields).save(builder.store)
    assert rows(Dataset(builder.store, later)) == [lost]
    assert rows(parent) == []
