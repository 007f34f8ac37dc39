"""Tables as Parquet bytes and back."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq


def table_to_parquet(table: pa.Table) -> bytes:
    """Parquet bytes (zstd); a function of the rows and of the pyarrow version alone."""
    sink = io.BytesIO()
    # One chunk a column: how a table was put together must not show in the bytes.
    pq.write_table(table.combine_chunks(), sink, compression="zstd", compression_level=3)
    return sink.getvalue()


def parquet_to_table(data: bytes, *, columns: list[str] | None = None) -> pa.Table:
    """All columns or some, in this thread.

    pyarrow's reader threads can still be closing a file while the interpreter ends, which aborts
    the process (apache/arrow#34314, #33975); a cell is small enough for one thread.

    Raises:
        pyarrow.ArrowException, OSError: the bytes are not Parquet.
        ValueError: a column that is not there.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
    if missing:
        raise ValueError(
            f"no column '{missing[0]}'; there are {', '.join(file.schema_arrow.names)}"
        )
    return file.read(columns=columns, use_threads=False)
