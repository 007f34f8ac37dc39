"""DuckDB's errors in one sentence, and which statements are refused."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import duckdb

from manifests.errors import InputError, MaskmillError, ObjectDamagedError, StoreError
from manifests.sql_files import CellFiles, cell_url
from manifests.sql_tables import MISALIGNED

_UNKNOWN_TABLE = re.compile(r"Table with name \"?(?P<name>.+?)\"? does not exist")
_ENUM = re.compile(r"ENUM\('[^)]*'\)")
_REFUSED = (
    "only one statement that reads is run, such as SELECT, WITH, FROM, PIVOT, DESCRIBE or "
    "SUMMARIZE: {what} is refused; a ref's tables never change, write a result with --csv or "
    "--parquet"
)
# MULTI is what a PIVOT becomes.
_READING = ("SELECT", "MULTI")


class UnknownTableError(InputError):
    """A query names a table that has not been made; carries its name."""

    def __init__(self, table: str) -> None:
        super().__init__(f"there is no table {table}")
        self.table = table


def only_select(connection: Any, text: str) -> str:  # Any: duckdb has no types
    """A query that reads, as a subquery: there, DuckDB lets no part of it write.

    Raises:
        InputError: it is not one statement that reads.
        duckdb.Error: it is not SQL.
    """
    statements = connection.extract_statements(text)
    if not statements:
        raise InputError("the query is empty; give one such as 'select count(*) from boxes'")
    if len(statements) > 1:
        raise InputError(_REFUSED.format(what=f"{len(statements)} statements in one"))
    kind = str(statements[0].type.name)
    # Without what may follow a statement: a semicolon, and comments behind it.
    ends = [len(text), *reversed([match.start() for match in re.finditer(";", text)])]
    for end in ends if kind in _READING else ():
        select = f"SELECT * FROM (\n{text[:end]}\n)"  # noqa: S608  parsed above as one statement
        if _is_one_statement(connection, select):
            return select
    raise InputError(_REFUSED.format(what=kind))


def _is_one_statement(connection: Any, text: str) -> bool:  # Any: duckdb has no types
    try:
        return len(connection.extract_statements(text)) == 1
    except duckdb.ParserException:
        return False


def explanation(error: Exception, files: CellFiles, *, who: str, memory: str) -> MaskmillError:
    """What an error of DuckDB's, or of pyarrow's reading its result, means.

    Args:
        error: the error.
        files: what DuckDB reads; its own failure is the better reason.
        who: the commit that is asked.
        memory: what DuckDB may use.
    """
    if files.failure:
        return files.failure
    text = without_shards(" ".join(str(error).split("\n\nLINE")[0].split()))
    detail = text.partition("Error: ")[2] or text
    if match := _UNKNOWN_TABLE.search(detail):
        return UnknownTableError(match["name"])
    if "file system operations are disabled" in detail:
        return InputError(
            "the query reads or writes a file or an address, which is refused: only the tables of "
            f"{who} can be read"
        )
    if "must be at the top level" in detail:
        return InputError(_REFUSED.format(what="a statement that writes inside of WITH"))
    if isinstance(error, duckdb.OutOfMemoryException) or detail.startswith("failed to allocate"):
        return InputError(
            f"the query needs more than {memory} of memory; allow it more with --memory, or ask "
            "for fewer columns"
        )
    if MISALIGNED in detail:
        return ObjectDamagedError(f"{detail}; 'maskmill fsck --full' says which")
    if cell := files.cell_of(detail):
        return files.lost(cell, ObjectDamagedError(detail.replace(cell_url(cell.object_id), "it")))
    if isinstance(error, duckdb.InternalException):
        return InputError(f"DuckDB cannot run this: {detail[:200]}; ask it another way")
    if isinstance(error, duckdb.IOException):
        return StoreError(f"the query could not go on: {detail}; see to it and run again")
    return InputError(f"the query is wrong{_position(error)}: {detail[:1].lower()}{detail[1:]}")


def without_shards(text: str) -> str:
    """DuckDB spells the type of `shard` with every shard's id in it."""
    return _ENUM.sub("ENUM", text)


def _position(error: Exception) -> str:
    """` at line 2, column 8`, from the caret under DuckDB's copy of the line."""
    if not isinstance(error, duckdb.ParserException):
        return ""  # the others point into the query as it was wrapped
    for line, below in pairwise(str(error).splitlines()):
        if match := re.match(r"LINE (\d+): ", line):
            return f" at line {match[1]}, column {below.index('^') - match.end() + 1}"
    return ""
