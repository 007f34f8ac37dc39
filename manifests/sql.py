"""SQL over the layers of one commit: DuckDB reads the cells, column by column, and writes nothing.

Tables are made when a query names them, so that a damaged layer hurts only who asks for it. DuckDB
can open the commit's own cells and no other file or address, knows no extension but those it
carries, and its settings are locked before the query is seen.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.sql_errors import UnknownTableError, explanation, only_select
from manifests.sql_files import PROTOCOL, CellFiles, cell_url
from manifests.sql_history import SCHEMAS, TABLES
from manifests.sql_result import Column, SqlResult
from manifests.sql_tables import (
    ANNOTATIONS,
    RESERVED,
    TableNames,
    annotations_view,
    layer_view,
    shard_type,
)

_Value = TypeVar("_Value")
DEFAULT_MEMORY = "768MB"
_MEMORY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?\s*[KMGT]i?B", re.IGNORECASE)
# A store that is far away is waited for: more requests at once, not more work.
_FAR_AWAY: Mapping[str, int] = {"threads": 16, "async_threads": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """A table that can be asked; `layer` is None for those that are no layer.

    `num_rows` is None where counting would mean to read the history.
    """

    table: str
    layer: str | None
    num_rows: int | None
    columns: tuple[Column, ...]


class SqlSession:
    """A connection over one commit. Use it as a context manager: it has a folder on disk."""

    def __init__(self, dataset: Dataset, *, memory: str = DEFAULT_MEMORY) -> None:
        """Opens nothing of the store yet.

        Args:
            dataset: the commit.
            memory: what DuckDB may use before it spills to disk, e.g. `4GB`.

        Raises:
            InputError: `memory` is no size.
        """
        if not _MEMORY.fullmatch(memory):
            raise InputError(f"memory: expected a size such as 768MB or 4GB, got {memory!r}")
        self.dataset, self._memory = dataset, memory
        self._names = TableNames(dataset.manifest.layers())
        self._files = CellFiles(
            dataset.store,
            (cell for cell in dataset.manifest if cell.layer != schemas.IMAGES),
            who=f"commit {dataset.commit_id[:12]}",
        )
        self._made: set[str] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="maskmill-sql-")
        self._thread = ThreadPoolExecutor(1)
        self._connection = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        self._connection.close()
        self._folder.cleanup()

    def tables(self) -> tuple[TableInfo, ...]:
        """Every table with its columns, the layers' first.

        Raises:
            StoreError: a layer's first cell cannot be read.
        """
        manifest = self.dataset.manifest
        rows = {
            layer: sum(cell.num_rows for cell in manifest.of_layer(layer))
            for layer in manifest.layers()
        }
        named = [(table, layer, rows[layer]) for table, layer in self._names.tables().items()]
        boxes = rows.get(schemas.BOXES, 0)
        found = [self._info(*entry) for entry in named]
        if boxes:
            found.append(self._info(ANNOTATIONS, None, boxes))
        return (*found, *map(self._declared, SCHEMAS))

    def query(self, text: str) -> SqlResult:
        """A query's result, not computed yet.

        Raises:
            InputError: no SQL, an unknown table or column, or a statement that writes.
            StoreError: a cell that it needs is missing or damaged.
        """
        self._files.failure = None  # of the query before
        select = self.run(lambda: only_select(self._connection, text))
        while True:
            try:
                relation = self.run(lambda: self._connection.sql(select))
            except UnknownTableError as error:
                self._make(error.table)
            else:
                return SqlResult(relation, self.run)

    def run(self, work: Callable[[], _Value]) -> _Value:
        """Work of DuckDB's, in a thread of its own: here, Ctrl-C can end it.

        Raises:
            InputError, StoreError: see `query`.
        """
        future = self._thread.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            self._connection.interrupt()
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # pyarrow's: of its readers
            raise explanation(
                error, self._files, who=self._files.who, memory=self._memory
            ) from error

    # -- connection ------------------------------------------------------------------------------

    def _connect(self) -> Any:  # Any: duckdb has no types
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory,
            "temp_directory": self._folder.name,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
            # DuckDB 2.0.0 fails on a LIMIT behind a condition on `shard` while planning this one.
            "disabled_optimizers": "late_materialization",
        }
        if self.dataset.store.protocol not in ("file", "memory"):
            config.update(_FAR_AWAY)
        connection = duckdb.connect(":memory:", config=config)
        connection.register_filesystem(self._files)
        if shards := self.dataset.manifest.shards():
            connection.execute(shard_type(shards))
        # In this order: what is locked can no longer be set.
        connection.execute(f"SET allowed_directories = ['{PROTOCOL}://']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    # -- tables ----------------------------------------------------------------------------------

    def _info(self, table: str, layer: str | None, num_rows: int) -> TableInfo:
        columns = self.query(f"FROM {table}").columns
        return TableInfo(table=table, layer=layer, num_rows=num_rows, columns=columns)

    def _declared(self, table: str) -> TableInfo:
        """A table that is no layer, without reading a long history for it."""
        empty = SCHEMAS[table].empty_table()
        relation = self.run(lambda: self._connection.from_arrow(empty))
        columns = SqlResult(relation, self.run).columns
        return TableInfo(table=table, layer=None, num_rows=None, columns=columns)

    def _make(self, table: str) -> None:
        """Makes the view that a query names.

        Raises:
            InputError: there is no such table, or several could be meant.
            StoreError: its first cell cannot be read.
        """
        name = table.lower()
        layer = None if name in RESERVED else self._names.layer(table)
        if table in self._made or (layer is None and name not in RESERVED):
            there = ", ".join([*self._names.tables(), *RESERVED])
            raise InputError(f"there is no table {table}; tables here: {there}")
        if layer is not None:
            self._execute(layer_view(table, self.dataset.manifest.of_layer(layer)))
        elif name == ANNOTATIONS:
            self._make_annotations()
        else:
            self._connection.register(name, TABLES[name](self.dataset))
        self._made.add(table)

    def _make_annotations(self) -> None:
        manifest = self.dataset.manifest
        has_candidates = False
        if verdicts := manifest.of_layer(schemas.VERDICTS):
            urls = [cell_url(cell.object_id) for cell in verdicts]
            [[largest]] = self._execute("SELECT max(candidate) FROM read_parquet(?)", urls)
            has_candidates = bool(largest)
        self._execute(annotations_view(manifest, has_candidates=has_candidates))

    def _execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:  # Any: values
        def execute() -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = self._connection.execute(
                statement, list(parameters)
            ).fetchall()
            return rows

        return self.run(execute)
