"""Tables as Parquet bytes and back, whole or some columns of them (`parquet_columns`).

Some columns cost little more than their own bytes, and are checked all the same (`parquet_sums`).
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.byte_ranges import ReadRange, SparseFile, coalesced, parquet_tail
from manifests.parquet_columns import Later, Selection, select_columns
from manifests.parquet_sums import (
    ROWS_A_GROUP,
    SUMS,
    Chunk,
    checked_sums,
    chunk_sum,
    chunks_of,
    room_for_sums,
    with_sums,
)

_NONE_LATER: Later = {}


def table_to_parquet(table: pa.Table) -> bytes:
    """Parquet bytes (zstd); a function of the rows and of the pyarrow version alone.

    (Of a map column its type as well, whose entries have a name: give it a schema's.)
    """
    sink = io.BytesIO()
    # One chunk a column, no metadata, and the names of lists' items as they come back from a file:
    # how a table was put together must not show in the bytes.
    schema = pa.schema(field.with_type(_as_read(field.type)) for field in table.schema)
    plain = table.combine_chunks().cast(schema)
    options = {"compression": "zstd", "compression_level": 3}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        writer.write_table(plain, row_group_size=ROWS_A_GROUP)
        writer.add_key_value_metadata({SUMS: room_for_sums(plain)})
    return with_sums(bytearray(sink.getvalue()))


def parquet_to_table(
    data: bytes, *, columns: list[str] | None = None, later: Later = _NONE_LATER
) -> pa.Table:
    """All columns or some, in this thread. The bytes must be known to be whole.

    Args:
        columns: names, of fields as well (see `parquet_columns`).
        later: those of them that are in here and not in the file come as nulls.

    pyarrow's reader threads can still be closing a file while the interpreter ends, which aborts
    the process (apache/arrow#34314, #33975); a cell is small enough for one thread.

    Raises:
        pyarrow.ArrowException, OSError: the bytes are not Parquet.
        ValueError: a column that is not there.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if columns is None:
        return file.read(use_threads=False).replace_schema_metadata(None)
    return _read(file, select_columns(file.metadata, columns, later))


def read_columns(
    read_range: ReadRange, num_bytes: int, *, columns: list[str], later: Later = _NONE_LATER
) -> pa.Table | None:
    """Some columns of a Parquet file of `num_bytes`, fetching little more than they need.

    Args:
        columns, later: as in `parquet_to_table`.

    Returns:
        None if the file has no sums (an older maskmill, or somebody else, wrote it), or if most of
        it would be fetched anyhow: then it is better read whole and checked against its name.

    Raises:
        pyarrow.ArrowException, OSError: it is damaged, or not Parquet.
        ValueError: a column that is not there.
    """
    tail_start, tail, footer = parquet_tail(read_range, num_bytes)
    sums = checked_sums(footer)
    if sums is None:
        return None
    metadata = pq.read_metadata(pa.BufferReader(tail))
    selection = select_columns(metadata, columns, later)
    wanted = [chunk for chunk in chunks_of(metadata, sums) if selection.needs(chunk.path)]
    spans = list(coalesced((chunk.start, chunk.stop) for chunk in wanted))
    if sum(stop - start for start, stop in spans) > num_bytes // 2:
        return None
    file = SparseFile(
        {**{start: read_range(start, stop - start) for start, stop in spans}, tail_start: tail},
        num_bytes,
    )
    for chunk in wanted:
        if chunk_sum(file.between(chunk.start, chunk.stop)) != chunk.sum:
            raise pa.ArrowInvalid(f"the bytes of column '{chunk.path}' are damaged")
    opened = pq.ParquetFile(pa.PythonFile(file, mode="r"), metadata=metadata, pre_buffer=False)
    return _read(opened, selection)


class CheckedRanges:
    """A Parquet file that somebody else reads by ranges: the footer and whole chunks are checked.

    Bytes of a chunk that is read in pieces, and files without sums, come unchecked.
    """

    def __init__(self, read_range: ReadRange, num_bytes: int) -> None:
        """Fetches the end of the file.

        Raises:
            pyarrow.ArrowException: the footer is damaged, or the file is not Parquet.
        """
        self._read_range = read_range
        self._tail_start, self._tail, footer = parquet_tail(read_range, num_bytes)
        self._sums = checked_sums(footer)
        self._footer_start = num_bytes - len(footer)
        self._chunks: tuple[Chunk, ...] | None = None

    def read(self, start: int, num_bytes: int) -> bytes:
        """Part of the file.

        Raises:
            pyarrow.ArrowException: a column chunk is damaged.
        """
        if start >= self._tail_start:
            data = self._tail[start - self._tail_start :][:num_bytes]
        else:
            data = self._read_range(start, num_bytes)
        if self._sums is not None and start < self._footer_start:
            self._check(self._sums, start, data)
        return data

    def _check(self, sums: bytes, start: int, data: bytes) -> None:
        if self._chunks is None:
            self._chunks = tuple(chunks_of(pq.read_metadata(pa.BufferReader(self._tail)), sums))
        view = memoryview(data)
        for chunk in self._chunks:
            is_whole = start <= chunk.start and chunk.stop <= start + len(data)
            if is_whole and chunk_sum(view[chunk.start - start : chunk.stop - start]) != chunk.sum:
                raise pa.ArrowInvalid(f"the bytes of column '{chunk.path}' are damaged")


def _read(file: pq.ParquetFile, selection: Selection) -> pa.Table:
    table = file.read(columns=list(selection.paths), use_threads=False)
    return selection.finish(table, file.metadata.num_rows)


def _as_read(type_: pa.DataType) -> pa.DataType:
    """The type with the items of lists called "element", which Parquet calls them."""
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_as_element(type_.value_field), type_.list_size)
    if pa.types.is_list(type_):
        return pa.list_(_as_element(type_.value_field))
    if pa.types.is_struct(type_):
        fields = [type_.field(number) for number in range(type_.num_fields)]
        return pa.struct([field.with_type(_as_read(field.type)) for field in fields])
    return type_


def _as_element(field: pa.Field) -> pa.Field:
    return field.with_name("element").with_type(_as_read(field.type))
