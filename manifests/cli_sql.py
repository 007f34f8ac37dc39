"""How `maskmill sql` shows tables and rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.cli_log import width
from manifests.console import print_table, say, show
from manifests.errors import InputError
from manifests.sql_output import json_rows, write_csv, write_parquet

if TYPE_CHECKING:
    from manifests.sql import SqlSession
    from manifests.sql_result import Column, SqlResult

_MOST_ROWS = 1_000_000
_LONGEST_CELL = 60
_SHARD_DIGITS = 12
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
            "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")  # fmt: skip


def show_tables(session: SqlSession, *, as_json: bool) -> None:
    """Every table that can be asked, with its columns."""
    tables = session.tables()
    commit_id = session.dataset.commit_id

    def human() -> None:
        say(f"tables of {commit_id[:12]}; shard and row join those of layers")
        for table in tables:
            layer = f"   layer {table.layer}" if table.layer else ""
            rows = "" if table.num_rows is None else f"   {_rows(table.num_rows)}"
            say(f"\n{table.table}{rows}{layer}")
            say(_wrapped([f"{column.name} {_short_type(column)}" for column in table.columns]))

    show({"commit_id": commit_id, "tables": tables}, as_json=as_json, human=human)


def write_files(
    result: SqlResult, csv: Path | None, parquet: Path | None, *, as_json: bool
) -> None:
    """Writes the files that were asked for and says so."""
    written = {str(path): write(result, path) for path, write in
               ((csv, write_csv), (parquet, write_parquet)) if path}  # fmt: skip

    def human() -> None:
        for path, count in written.items():
            say(f"wrote {_rows(count)} to {path}")

    files = [{"file": path, "num_rows": count} for path, count in written.items()]
    show({"files": files}, as_json=as_json, human=human)


def show_json(result: SqlResult, limit: int) -> None:
    """All rows, or the first `limit`, as one JSON value.

    Raises:
        InputError: more rows than one JSON value should hold.
    """
    wanted = limit or _MOST_ROWS
    rows = result.head(wanted + 1)
    if not limit and rows.num_rows > wanted:
        raise InputError(
            f"the result has {result.count():,} rows, too many for one JSON value; give --limit, "
            "or write it with --parquet or --csv"
        )
    num_rows = rows.num_rows if rows.num_rows <= wanted else result.count()
    body = {
        "columns": result.columns,
        "rows": json_rows(rows.slice(0, wanted)),
        "num_rows": num_rows,
    }
    show(body, as_json=True, human=lambda: None)


def print_rows(result: SqlResult, limit: int) -> None:
    """A table, or a block a row where the table would be wider than the terminal."""
    limit = limit or _MOST_ROWS
    table = result.head(limit + 1)
    shown = table.slice(0, limit)
    title = _rows(shown.num_rows)
    if table.num_rows > limit:
        title = f"the first {limit:,} of {_rows(result.count())}; --limit 0 prints all"
    rows = [[_text(value) for value in row.values()] for row in json_rows(shown)]
    names = [column.name for column in result.columns]
    if _natural_width(names, rows) <= width():
        right = [column.name for column in result.columns if column.type.startswith(_NUMBERS)]
        print_table(title, names, rows, right=right)
    else:
        say(title)
        _print_blocks(names, rows)


def _print_blocks(names: list[str], rows: list[list[str]]) -> None:
    longest = max(map(len, names))
    for number, row in enumerate(rows, 1):
        say(f"-- row {number} " + "-" * 20)
        for name, value in zip(names, row, strict=True):
            say(f"{name:<{longest}}  {value}")


def _text(value: Any) -> str:  # Any: JSON
    """A value for people: shortened, numbers as they are."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split())
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):  # the id of a shard or object
        return text[:_SHARD_DIGITS]
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _natural_width(names: list[str], rows: list[list[str]]) -> int:
    columns = zip(names, *rows, strict=True)
    return sum(max(map(len, column)) + 2 for column in columns)


def _wrapped(parts: list[str]) -> str:
    lines, line = [], "   "
    for part in parts:
        if len(line) + len(part) > width() - 2:
            lines.append(line)
            line = "   "
        line += f" {part},"
    return "\n".join([*lines, line]).rstrip(",")


def _short_type(column: Column) -> str:
    """Names of a struct's fields say more than a long type does."""
    return column.type if len(column.type) <= 40 else f"{column.type[:36]} ...)"


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")
