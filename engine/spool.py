"""A source on local disk in columns, so that 5M boxes can be joined and sorted in flat memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.image_root import is_safe_name
from engine.sources.protocol import (
    ANNOTATION_ENTRIES,
    CATEGORY_ENTRIES,
    IMAGE_ENTRIES,
    Source,
    SourceBatch,
)
from manifests.errors import InputError

log = logging.getLogger(__name__)

_SCHEMAS = {
    "images": IMAGE_ENTRIES,
    "categories": CATEGORY_ENTRIES,
    "annotations": ANNOTATION_ENTRIES,
}
_ENTRY = pa.field("entry", pa.int64(), nullable=False)


class Spool:
    """One scan of a source, as Parquet files in `folder` and views of a DuckDB connection.

    Views `images`, `categories` and `annotations` have the source's columns and `entry`, the
    position in the scan.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = duckdb.connect(str(folder / "spool.duckdb"))
        self.connection.execute(f"SET temp_directory = {quoted(str(folder / 'overflow'))}")
        self.connection.execute("SET memory_limit = '384MB'")
        self.connection.execute("SET threads = 2")
        self.connection.execute("SET enable_progress_bar = false")

    def fill(self, source: Source) -> None:
        """Scans the source once."""
        counts = dict.fromkeys(_SCHEMAS, 0)
        writers = {
            kind: pq.ParquetWriter(self._file(kind), schema.append(_ENTRY), compression="zstd")
            for kind, schema in _SCHEMAS.items()
        }
        try:
            for batch in source.scan():
                writers[batch.kind].write_table(_numbered(batch, counts[batch.kind]))
                counts[batch.kind] += batch.table.num_rows
        finally:
            for writer in writers.values():
                writer.close()
        log.info("scanned images=%(images)d annotations=%(annotations)d", counts)
        for kind in _SCHEMAS:
            self.connection.execute(
                f"CREATE VIEW {kind} AS"  # noqa: S608
                f" SELECT * FROM read_parquet({quoted(str(self._file(kind)))})"
            )

    def add(self, name: str, table: pa.Table) -> None:
        """Makes a small Arrow table a table of the connection."""
        self.connection.register(f"{name}_arrow", table)
        self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM {name}_arrow")  # noqa: S608
        self.connection.unregister(f"{name}_arrow")

    def run(self, sql: str, **values: str | int) -> None:
        """Executes a statement for its effect."""
        self.connection.execute(sql, values or None)

    def rows(self, sql: str, **values: str | int) -> list[tuple[Any, ...]]:  # Any: SQL values
        """All rows of a small answer."""
        return self.connection.execute(sql, values or None).fetchall()

    def table(self, sql: str, **values: str | int) -> pa.Table:
        """An answer as Arrow."""
        return self.connection.sql(sql, params=values or None).to_arrow_table()

    def category_names(self) -> dict[str, str]:
        """Source category id -> name.

        Raises:
            InputError: one id has two names.
        """
        for category, first, last in self.rows(
            "SELECT source_category_id, min(name), max(name) FROM categories GROUP BY 1"
            " HAVING min(name) <> max(name) ORDER BY 1"
        ):
            raise InputError(
                f"category id {category} is both '{first}' and '{last}'; give each id one name"
            )
        return dict(self.rows("SELECT DISTINCT source_category_id, name FROM categories"))

    def _file(self, kind: str) -> Path:
        return self.folder / f"{kind}.parquet"


def quoted(text: str) -> str:
    """An SQL string, for the few places that take no parameter."""
    return "'" + text.replace("'", "''") + "'"


def _numbered(batch: SourceBatch, start: int) -> pa.Table:
    """The batch in its schema, with entry numbers; unsafe file names become a defect here."""
    table = batch.table.cast(_SCHEMAS[batch.kind])
    if batch.kind == "images":
        names = table["file_name"].to_pylist()
        unsafe = pa.array([name is not None and not is_safe_name(name) for name in names])
        is_marked = pc.and_(unsafe, pc.is_null(table["defect"]))
        defects = pc.if_else(is_marked, pa.scalar("unsafe_file_name"), table["defect"])
        table = table.set_column(table.schema.get_field_index("defect"), "defect", defects)
    entries = pa.array(range(start, start + table.num_rows), type=pa.int64())
    return table.append_column(_ENTRY, entries)
