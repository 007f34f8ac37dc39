"""A query's result as a local CSV or Parquet file, or as values for JSON."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.errors import InputError
from manifests.sql_result import SqlResult

_PRINTABLE = range(32, 127)


def write_csv(result: SqlResult, path: Path) -> int:
    """Writes all rows as CSV with a header, lists and structs as JSON; returns how many.

    The file appears whole or not at all, and replaces one that is there.

    Raises:
        InputError: the file cannot be written there, or as `SqlSession.query`.
        StoreError: a cell is missing or damaged.
    """
    import pyarrow.csv as pc

    options = pc.WriteOptions(quoting_style="needed")
    plain = result.nested()
    return _write(
        result, path, plain,
        lambda file, schema: pc.CSVWriter(file, schema, write_options=options),
    )  # fmt: skip


def write_parquet(result: SqlResult, path: Path) -> int:
    """Writes all rows as Parquet (zstd); returns how many. Whole or not at all.

    Raises: as `write_csv`.
    """
    import pyarrow.parquet as pq

    return _write(
        result, path, (),
        lambda file, schema: pq.ParquetWriter(file, schema, compression="zstd"),
    )  # fmt: skip


def json_rows(table: pa.Table) -> list[dict[str, Any]]:  # Any: JSON
    """Rows as JSON values: bytes as text with escapes, what JSON has no word for as null."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _write(
    result: SqlResult,
    path: Path,
    plain: tuple[str, ...],
    open_writer: Callable[[Any, pa.Schema], Any],  # Any: a file and pyarrow's writers
) -> int:
    num_rows = 0
    schema = result.schema(plain=plain)
    with _whole(path) as temporary, temporary.open("xb") as file, open_writer(file, schema) as to:
        for batch in result.batches(plain=plain):
            to.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place in the end."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise InputError(f"{path} {what}; give the name of a file in a folder that is there")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; give another file"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:  # Any: whatever Arrow gives, JSON
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return _escaped(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def _escaped(data: bytes) -> str:
    r"""Printable ASCII, as an RLE is, stays as it is; other bytes become \xNN."""
    return "".join(chr(byte) if byte in _PRINTABLE else f"\\x{byte:02X}" for byte in data)
