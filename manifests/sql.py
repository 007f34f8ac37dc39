"""SQL over the layers of one commit: DuckDB reads the cells, column by column, and writes nothing.

Tables are made when a query names them, so that a damaged layer hurts only who asks for it. DuckDB
can open the commit's own cells and no other file or address, knows no extension but those it
carries, and its settings are locked before the query is seen.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from manifests import schemas
from manifests.dataset import Dataset
from manifests.digest import canonical_json
from manifests.errors import InputError, MaskmillError, ObjectDamagedError, StoreError
from manifests.history import history
from manifests.removed import Removals
from manifests.sql_files import PROTOCOL, CellFiles, cell_url
from manifests.sql_tables import (
    ANNOTATIONS,
    MISALIGNED,
    RESERVED,
    TableNames,
    annotations_view,
    layer_view,
    shard_type,
)

DEFAULT_MEMORY = "768MB"
_UNKNOWN_TABLE = re.compile(r"Table with name \"?(?P<name>.+?)\"? does not exist")
_ENUM = re.compile(r"ENUM\('[^)]*'\)")
_MEMORY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?\s*[KMGT]i?B", re.IGNORECASE)
# A store that is far away is waited for: more requests at once, not more work.
_FAR_AWAY = {"threads": 16, "async_threads": 32}
_REFUSED = (
    "only one statement that reads is run, such as SELECT, WITH, FROM, PIVOT, DESCRIBE or "
    "SUMMARIZE: {what} is refused; a ref's tables never change, write a result with --csv or "
    "--parquet"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table or result; `type` as DuckDB writes it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """A table that can be asked; `layer` is None for those that are no layer."""

    table: str
    layer: str | None
    num_rows: int
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
        self._connection = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        for table in RESERVED[1:]:
            [[count]] = self.query(f"SELECT count(*) AS n FROM {table}").head(1).columns  # noqa: S608
            found.append(self._info(table, None, count.as_py()))
        return tuple(found)

    def query(self, text: str) -> SqlResult:
        """A query's result, not computed yet.

        Raises:
            InputError: no SQL, an unknown table or column, or a statement that writes.
            StoreError: a cell that it needs is missing or damaged.
        """
        select = self._only_select(text)
        while True:
            try:
                with self.explained():
                    return SqlResult(self, self._connection.sql(select))
            except _UnknownTableError as error:
                self._make(error.table)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns DuckDB's errors into one sentence.

        Raises:
            InputError, StoreError: see `query`.
        """
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # pyarrow's: of its readers
            raise self._explanation(error) from error

    # -- connection ------------------------------------------------------------------------------

    def _connect(self) -> Any:  # Any: duckdb has no types
        config = {
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
            config |= _FAR_AWAY
        connection = duckdb.connect(":memory:", config=config)
        connection.register_filesystem(self._files)
        if shards := self.dataset.manifest.shards():
            connection.execute(shard_type(shards))
        # In this order: what is locked can no longer be set.
        connection.execute(f"SET allowed_directories = ['{PROTOCOL}://']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def _only_select(self, text: str) -> str:
        """The query as a subquery: there, no part of it may write.

        Raises:
            InputError: it is not one statement that reads.
        """
        with self.explained():
            statements = self._connection.extract_statements(text)
        if not statements:
            raise InputError("the query is empty; give one such as 'select count(*) from boxes'")
        kinds = [str(statement.type.name) for statement in statements]
        if len(kinds) > 1:
            raise InputError(_REFUSED.format(what=f"{len(kinds)} statements in one"))
        # MULTI is a PIVOT, or else fails as a subquery.
        if kinds[0] not in ("SELECT", "MULTI"):
            raise InputError(_REFUSED.format(what=kinds[0]))
        ends = [len(text), *(match.start() for match in re.finditer(";", text))][::-1]
        for end in [ends[-1], *ends[:-1]]:  # a semicolon at the end, and comments after it
            select = f"SELECT * FROM (\n{text[:end]}\n)"  # noqa: S608  parsed above as one statement
            if self._is_one_statement(select):
                return select
        raise InputError(_REFUSED.format(what=kinds[0]))

    def _is_one_statement(self, text: str) -> bool:
        try:
            return len(self._connection.extract_statements(text)) == 1
        except duckdb.ParserException:
            return False

    # -- tables ----------------------------------------------------------------------------------

    def _info(self, table: str, layer: str | None, num_rows: int) -> TableInfo:
        columns = self.query(f"FROM {table}").columns
        return TableInfo(table=table, layer=layer, num_rows=num_rows, columns=columns)

    def _make(self, table: str) -> None:
        """Makes the view that a query names.

        Raises:
            InputError: there is no such table, or several could be meant.
            StoreError: its first cell cannot be read.
        """
        others: Mapping[str, Callable[[], None]] = {
            ANNOTATIONS: self._make_annotations,
            "manifest": self._make_manifest,
            "commits": self._make_commits,
            "removed": self._make_removed,
        }
        name = table.lower()
        layer = None if name in others else self._names.layer(table)
        if table in self._made or (layer is None and name not in others):
            there = ", ".join([*self._names.tables(), *RESERVED])
            raise InputError(f"there is no table {table}; tables here: {there}")
        self._made.add(table)
        if layer is None:
            others[name]()
            return
        with self.explained():
            self._connection.execute(layer_view(table, self.dataset.manifest.of_layer(layer)))

    def _make_annotations(self) -> None:
        manifest = self.dataset.manifest
        has_candidates = False
        if verdicts := manifest.of_layer(schemas.VERDICTS):
            urls = [cell_url(cell.object_id) for cell in verdicts]
            with self.explained():
                [largest] = self._connection.execute(
                    "SELECT max(candidate) FROM read_parquet(?)", [urls]
                ).fetchone()
            has_candidates = bool(largest)
        statement = annotations_view(manifest, has_candidates=has_candidates)
        with self.explained():
            self._connection.execute(statement)

    def _make_manifest(self) -> None:
        table = self.dataset.manifest.to_table()
        columns = "* REPLACE (shard::shard_id AS shard)" if table.num_rows else "*"
        self._connection.register("manifest_cells", table)
        self._connection.execute(f"CREATE VIEW manifest AS SELECT {columns} FROM manifest_cells")  # noqa: S608

    def _make_commits(self) -> None:
        rows = [
            {
                "commit_id": entry.commit_id,
                "time": entry.commit.time,
                "author": entry.commit.author,
                "operation": entry.commit.operation.name,
                "operation_version": entry.commit.operation.version,
                "message": entry.commit.message,
                "teacher": (entry.commit.operation.teacher or {}).get("name"),
                "weights_sha256": (entry.commit.operation.teacher or {}).get("weights_sha256"),
                "config": canonical_json(dict(entry.commit.operation.config)).decode(),
                "config_digest": entry.commit.operation.config_digest,
                "manifest": entry.commit.manifest,
                "parents": list(entry.commit.parents),
            }
            for entry in history(self.dataset.store, self.dataset.commit_id)
        ]
        self._connection.register("commits", pa.Table.from_pylist(rows, schema=_COMMITS_SCHEMA))

    def _make_removed(self) -> None:
        removals = Removals.load(self.dataset.store, self.dataset.commit)
        rows = [asdict(row) for row in removals.rows]
        table = pa.Table.from_pylist(rows, schema=schemas.REMOVED_SCHEMA)
        self._connection.register("removed", table)

    # -- errors ----------------------------------------------------------------------------------

    def _explanation(self, error: Exception) -> MaskmillError:
        if self._files.failure:
            return self._files.failure
        text = _without_shards(" ".join(str(error).split("\n\nLINE")[0].split()))
        detail = text.partition("Error: ")[2] or text
        if match := _UNKNOWN_TABLE.search(detail):
            return _UnknownTableError(match["name"])
        if isinstance(error, duckdb.PermissionException):
            return InputError(
                "the query reads or writes a file or an address, which is refused: only the "
                f"tables of commit {self.dataset.commit_id[:12]} can be read"
            )
        if "must be at the top level" in detail:
            return InputError(_REFUSED.format(what="a statement that writes inside of WITH"))
        if isinstance(error, duckdb.OutOfMemoryException):
            return InputError(
                f"the query needs more than {self._memory} of memory; allow it more with --memory, "
                "or ask for fewer columns"
            )
        if MISALIGNED in detail:
            return ObjectDamagedError(f"{detail}; 'maskmill fsck' says which")
        if cell := self._files.cell_of(detail):
            return self._files.lost(
                cell, ObjectDamagedError(detail.replace(cell_url(cell.object_id), "it"))
            )
        if isinstance(error, duckdb.InternalException):
            return InputError(f"DuckDB cannot run this: {detail[:200]}; ask it another way")
        if isinstance(error, duckdb.IOException):
            return StoreError(f"the query could not go on: {detail}")
        return InputError(f"the query is wrong{_position(error)}: {_lowered(detail)}")


class SqlResult:
    """What a query answers; computed when it is asked for, and anew each time."""

    def __init__(self, session: SqlSession, relation: Any) -> None:  # Any: duckdb has no types
        self._session, self._relation = session, relation
        self.columns: tuple[Column, ...] = tuple(
            Column(name=name, type=_without_shards(str(kind)))
            for name, kind in zip(relation.columns, relation.types, strict=True)
        )

    def head(self, num_rows: int) -> pa.Table:
        """The first rows. Raises: as `SqlSession.query`."""
        with self._session.explained():
            table: pa.Table = self._relation.limit(num_rows).to_arrow_table()
        if "column_type" in table.column_names:  # DESCRIBE, SUMMARIZE
            types = [_without_shards(str(name)) for name in table["column_type"].to_pylist()]
            place = table.column_names.index("column_type")
            table = table.set_column(place, "column_type", pa.array(types, pa.string()))
        return table

    def count(self) -> int:
        """How many rows there are; reads only what it must. Raises: as `SqlSession.query`."""
        with self._session.explained():
            return int(self._relation.aggregate("count(*)").fetchall()[0][0])

    def batches(self, *, plain: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time.

        Args:
            plain: columns to give as text: JSON for lists and structs, escapes for bytes.

        Raises: as `SqlSession.query`.
        """
        with self._session.explained(), self._projected(plain).to_arrow_reader() as reader:
            yield from reader

    def schema(self, *, plain: Sequence[str] = ()) -> pa.Schema:
        """Of `batches`."""
        with self._session.explained():
            return self._projected(plain).limit(0).to_arrow_table().schema

    def nested(self) -> tuple[str, ...]:
        """Columns that a CSV file cannot hold as they are."""
        kinds = zip(self.columns, self._relation.types, strict=True)
        return tuple(column.name for column, kind in kinds if kind.id in _NESTED)

    def _projected(self, plain: Sequence[str]) -> Any:  # Any: duckdb has no types
        columns = []
        for column, kind in zip(self.columns, self._relation.types, strict=True):
            quoted = '"' + column.name.replace('"', '""') + '"'
            if kind.id == "enum":  # the shard: whoever reads the file wants plain text
                columns.append(f"{quoted}::VARCHAR AS {quoted}")
            elif column.name in plain:
                # DuckDB escapes the backslash, which an RLE may hold.
                text = (
                    rf"replace({quoted}::VARCHAR, '\x5C', '\')"
                    if kind.id == "blob"
                    else f"to_json({quoted})::VARCHAR"
                )
                columns.append(f"{text} AS {quoted}")
            else:
                columns.append(quoted)
        return self._relation.project(", ".join(columns))


class _UnknownTableError(InputError):
    def __init__(self, table: str) -> None:
        super().__init__(f"there is no table {table}")
        self.table = table


_NESTED = ("list", "struct", "array", "map", "union", "blob", "bit")
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


def _without_shards(text: str) -> str:
    """DuckDB spells the type of `shard` with every shard's id in it."""
    return _ENUM.sub("ENUM", text)


def _lowered(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}"


def _position(error: Exception) -> str:
    """` at line 2, column 8`, from the caret under DuckDB's copy of the line."""
    lines = str(error).splitlines()
    for line, below in pairwise(lines):
        match = re.match(r"LINE (\d+): ", line)
        if (
            match
            and isinstance(error, duckdb.ParserException)
            and below.strip() == "^" * below.count("^")
        ):
            return f" at line {match[1]}, column {below.index('^') - match.end() + 1}"
    return ""
