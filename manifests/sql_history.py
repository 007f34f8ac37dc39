"""Tables for SQL that are no layers: the manifest, the history, what was taken down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import pyarrow as pa

from manifests.commit import Commit
from manifests.commit_reader import CommitReader
from manifests.dataset import Dataset
from manifests.digest import canonical_json
from manifests.log import in_order
from manifests.manifest import SCHEMA as MANIFEST_SCHEMA
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.schemas import REMOVED_SCHEMA

_COMMITS_SCHEMA = pa.schema(
    [
        pa.field("commit_id", pa.string()),
        pa.field("time", pa.string()),
        pa.field("author", pa.string()),
        pa.field("operation", pa.string()),
        pa.field("operation_version", pa.int64()),
        pa.field("message", pa.string()),
        pa.field("teacher", pa.string()),
        pa.field("weights_sha256", pa.string()),
        # Canonical JSON.
        pa.field("config", pa.string()),
        pa.field("config_digest", pa.string()),
        pa.field("manifest", pa.string()),
        pa.field("parents", pa.list_(pa.string())),
    ]
)


def _manifest(dataset: Dataset) -> pa.Table:
    return dataset.manifest.to_table()


def _commits(dataset: Dataset) -> pa.Table:
    heads = Refs(dataset.store).branches().items()
    at = [branch for branch, commit_id in heads if commit_id == dataset.commit_id]
    reader = CommitReader(dataset.store, branches=at)
    rows = [_row(*entry) for entry in in_order(reader, [dataset.commit_id])]
    return pa.Table.from_pylist(rows, schema=_COMMITS_SCHEMA)


def _row(commit_id: str, commit: Commit) -> dict[str, object]:
    made = commit.operation
    teacher = made.teacher or {}
    return {
        "commit_id": commit_id,
        "time": commit.time,
        "author": commit.author,
        "operation": made.name,
        "operation_version": made.version,
        "message": commit.message,
        "teacher": teacher.get("name"),
        "weights_sha256": teacher.get("weights_sha256"),
        "config": canonical_json(dict(made.config)).decode(),
        "config_digest": made.config_digest,
        "manifest": commit.manifest,
        "parents": list(commit.parents),
    }


def _removed(dataset: Dataset) -> pa.Table:
    removals = Removals.load(dataset.store, dataset.commit)
    return pa.Table.from_pylist([asdict(row) for row in removals.rows], schema=REMOVED_SCHEMA)


TABLES: Mapping[str, Callable[[Dataset], pa.Table]] = {
    "manifest": _manifest,
    "commits": _commits,
    "removed": _removed,
}
"""Name -> what makes the table."""

SCHEMAS: Mapping[str, pa.Schema] = {
    "manifest": MANIFEST_SCHEMA,
    "commits": _COMMITS_SCHEMA,
    "removed": REMOVED_SCHEMA,
}
"""Name -> its columns, the same keys as TABLES."""
