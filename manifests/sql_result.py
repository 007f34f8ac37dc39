"""What an SQL query answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from manifests.sql_errors import without_shards

_Value = TypeVar("_Value")
_NESTED = ("list", "struct", "array", "map", "union", "blob", "bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table or result; `type` as DuckDB writes it."""

    name: str
    type: str


class Run(Protocol):
    """Does work of DuckDB's; raises as `SqlSession.run`."""

    def __call__(self, work: Callable[[], _Value], /) -> _Value:
        """What the work gives."""


class SqlResult:
    """What a query answers; computed when it is asked for, and anew each time."""

    def __init__(self, relation: Any, run: Run) -> None:  # Any: duckdb has no types
        self._relation, self._run = relation, run
        self.columns: tuple[Column, ...] = tuple(
            Column(name=name, type=without_shards(str(kind)))
            for name, kind in zip(relation.columns, relation.types, strict=True)
        )

    def head(self, num_rows: int) -> pa.Table:
        """The first rows. Raises: as `SqlSession.query`."""
        table = self._run(lambda: self._relation.limit(num_rows).to_arrow_table())
        if "column_type" in table.column_names:  # DESCRIBE, SUMMARIZE
            types = [without_shards(str(name)) for name in table["column_type"].to_pylist()]
            place = table.column_names.index("column_type")
            table = table.set_column(place, "column_type", pa.array(types, pa.string()))
        return table

    def count(self) -> int:
        """How many rows there are; reads only what it must. Raises: as `SqlSession.query`."""
        [[count]] = self._run(lambda: self._relation.aggregate("count(*)").fetchall())
        return int(count)

    def batches(self, *, plain: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time.

        Args:
            plain: columns to give as text: JSON for lists and structs, escapes for bytes.

        Raises: as `SqlSession.query`.
        """
        reader = self._run(lambda: self._projected(plain).to_arrow_reader())
        try:
            while (batch := self._run(lambda: next(reader, None))) is not None:
                yield batch
        finally:
            reader.close()

    def schema(self, *, plain: Sequence[str] = ()) -> pa.Schema:
        """Of `batches`."""
        return self._run(lambda: self._projected(plain).limit(0).to_arrow_table().schema)

    def nested(self) -> tuple[str, ...]:
        """Columns that a CSV file cannot hold as they are."""
        kinds = zip(self.columns, self._relation.types, strict=True)
        return tuple(column.name for column, kind in kinds if kind.id in _NESTED)

    def _projected(self, plain: Sequence[str]) -> Any:  # Any: duckdb has no types
        columns = []
        for column, kind in zip(self.columns, self._relation.types, strict=True):
            quoted = '"' + column.name.replace('"', '""') + '"'
            value = quoted
            if kind.id == "enum":  # the shard: whoever reads the file wants plain text
                value = f"{quoted}::VARCHAR"
            elif column.name in plain and kind.id == "blob":
                # DuckDB escapes the backslash, which an RLE may hold.
                value = rf"replace({quoted}::VARCHAR, '\x5C', '\')"
            elif column.name in plain:
                value = f"to_json({quoted})::VARCHAR"
            columns.append(f"{value} AS {quoted}")
        return self._relation.project(", ".join(columns))
