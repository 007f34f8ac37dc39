"""Tables as Parquet bytes and back, whole or some columns of them.

The footer holds a digest of every column chunk and one of itself (`maskmill.sums`), so that some
columns can be fetched by range and still be checked before anything parses them: pyarrow may end
the process on a damaged footer, and Parquet's own page checksums leave headers out.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

_SUMS = "maskmill.sums"
_FOOTER_HEX, _CHUNK_HEX = 64, 32
# As thrift writes a string behind another: a field header and the length, then the text itself.
_SUMS_FOUND = re.compile(rb"maskmill\.sums.{2,4}?([0-9a-f]{64,})", re.DOTALL)
_ROWS_A_GROUP = 2**20
_FOOTER_GUESS = 64 * 2**10
_MAGIC = b"PAR1"
# Two ranges closer than this are cheaper as one request.
_GAP_BYTES = 256 * 2**10

ReadRange = Callable[[int, int], bytes]
"""(start, number of bytes) -> those bytes."""

Later = Mapping[str, pa.DataType]
"""Columns that files of older versions lack, with their types."""
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
        writer.write_table(plain, row_group_size=_ROWS_A_GROUP)
        room = _FOOTER_HEX + _CHUNK_HEX * _num_chunks(plain)
        writer.add_key_value_metadata({_SUMS: "0" * room})
    return _with_sums(bytearray(sink.getvalue()))


def parquet_to_table(
    data: bytes, *, columns: list[str] | None = None, later: Later = _NONE_LATER
) -> pa.Table:
    """All columns or some, in this thread. The bytes must be known to be whole.

    Columns of `later` that are asked for and not there come as nulls of their type.

    pyarrow's reader threads can still be closing a file while the interpreter ends, which aborts
    the process (apache/arrow#34314, #33975); a cell is small enough for one thread.

    Raises:
        pyarrow.ArrowException, OSError: the bytes are not Parquet.
        ValueError: a column that is not there.
    """
    return _read(pq.ParquetFile(pa.BufferReader(data), pre_buffer=False), columns, later)


def read_columns(
    read_range: ReadRange, num_bytes: int, *, columns: list[str], later: Later = _NONE_LATER
) -> pa.Table | None:
    """Some columns of a Parquet file of `num_bytes`, fetching little more than they need.

    Columns of `later` that are asked for and not there come as nulls of their type.

    Returns:
        None if the file has no sums (an older maskmill, or somebody else, wrote it), or if most of
        it would be fetched anyhow: then it is better read whole and checked against its name.

    Raises:
        pyarrow.ArrowException, OSError: it is damaged, or not Parquet.
        ValueError: a column that is not there.
    """
    tail_start, tail, footer = _tail(read_range, num_bytes)
    sums = _checked_sums(footer)
    if sums is None:
        return None
    metadata = pq.read_metadata(pa.BufferReader(tail))
    wanted = [chunk for chunk in _chunks(metadata, sums) if chunk.column in columns]
    spans = list(_coalesced((chunk.start, chunk.stop) for chunk in wanted))
    if sum(stop - start for start, stop in spans) > num_bytes // 2:
        return None
    file = _SparseFile(
        {**{start: read_range(start, stop - start) for start, stop in spans}, tail_start: tail},
        num_bytes,
    )
    for chunk in wanted:
        if _chunk_sum(file.between(chunk.start, chunk.stop)) != chunk.sum:
            raise pa.ArrowInvalid(f"the bytes of column '{chunk.column}' are damaged")
    opened = pq.ParquetFile(pa.PythonFile(file, mode="r"), metadata=metadata, pre_buffer=False)
    return _read(opened, columns, later)


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
        self._tail_start, self._tail, footer = _tail(read_range, num_bytes)
        self._sums = _checked_sums(footer)
        self._footer_start = num_bytes - len(footer)
        self._chunks: tuple[_Chunk, ...] | None = None

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
            self._chunks = tuple(_chunks(pq.read_metadata(pa.BufferReader(self._tail)), sums))
        view = memoryview(data)
        for chunk in self._chunks:
            is_whole = start <= chunk.start and chunk.stop <= start + len(data)
            if is_whole and _chunk_sum(view[chunk.start - start : chunk.stop - start]) != chunk.sum:
                raise pa.ArrowInvalid(f"the bytes of column '{chunk.column}' are damaged")


def _read(file: pq.ParquetFile, columns: list[str] | None, later: Later) -> pa.Table:
    have = file.schema_arrow.names
    absent = [name for name in columns or () if name not in have]
    if missing := [name for name in absent if name not in later]:
        raise ValueError(f"no column '{min(missing)}'; there are {', '.join(have)}")
    there = columns and [name for name in columns if name in have]
    table = file.read(columns=there, use_threads=False).replace_schema_metadata(None)
    for name in absent:
        table = table.append_column(name, pa.nulls(file.metadata.num_rows, later[name]))
    return table


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


# -- sums ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """One column of one row group: where its bytes are, and their digest."""

    column: str
    start: int
    stop: int
    sum: bytes


def _num_chunks(table: pa.Table) -> int:
    num_groups: int = max(1, -(-table.num_rows // _ROWS_A_GROUP))  # an empty table has a group too
    return num_groups * sum(_num_leaves(field.type) for field in table.schema)


def _num_leaves(type_: pa.DataType) -> int:
    """Column chunks that one column becomes: a struct has one for each of its fields."""
    if not pa.types.is_nested(type_):
        return 1
    num_fields: int = type_.num_fields
    return sum(_num_leaves(type_.field(number).type) for number in range(num_fields))


def _chunk_sum(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest()[:_CHUNK_HEX].encode()


def _footer_sum(footer: bytes | bytearray, place: tuple[int, int]) -> bytes:
    """Of the footer without the digest itself."""
    start = place[0]
    blank = bytes(footer[:start]) + b"0" * _FOOTER_HEX + bytes(footer[start + _FOOTER_HEX :])
    return hashlib.sha256(blank).hexdigest().encode()


def _with_sums(data: bytearray) -> bytes:
    """The file with the room for its digests filled in."""
    footer_start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    found = _SUMS_FOUND.search(data, footer_start)
    metadata = pq.read_metadata(pa.BufferReader(bytes(data)))
    if found is None:
        raise pa.ArrowInvalid("the footer has no room for digests")
    blank = bytes(found.group(1))
    view = memoryview(bytes(data))
    sums = b"".join(_chunk_sum(view[c.start : c.stop]) for c in _chunks(metadata, blank))
    start, stop = found.span(1)
    data[start + _FOOTER_HEX : stop] = sums
    footer = data[footer_start:]
    place = (start - footer_start, stop - footer_start)
    data[start : start + _FOOTER_HEX] = _footer_sum(footer, place)
    return bytes(data)


def _checked_sums(footer: bytes) -> bytes | None:
    """The digests in a footer, after the footer's own; None if it has none."""
    found = _SUMS_FOUND.search(footer)
    if found is None:
        return None
    sums = found.group(1)
    if _footer_sum(footer, found.span(1)) != sums[:_FOOTER_HEX]:
        raise pa.ArrowInvalid("its footer is damaged")
    return sums


def _chunks(metadata: pq.FileMetaData, sums: bytes) -> Iterator[_Chunk]:
    """Every column chunk in the order of the file."""
    at = _FOOTER_HEX
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page:
                start = min(start, chunk.dictionary_page_offset)
            yield _Chunk(
                column=chunk.path_in_schema.split(".", 1)[0],
                start=start,
                stop=start + chunk.total_compressed_size,
                sum=sums[at : at + _CHUNK_HEX],
            )
            at += _CHUNK_HEX


# -- ranges --------------------------------------------------------------------------------------


def _tail(read_range: ReadRange, num_bytes: int) -> tuple[int, bytes, bytes]:
    """Where the last bytes begin, these bytes, and the footer that they hold."""
    start = max(0, num_bytes - _FOOTER_GUESS)
    tail = read_range(start, num_bytes - start)
    if tail[-4:] != _MAGIC or len(tail) < 12:
        raise pa.ArrowInvalid("it does not end as Parquet does")
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > num_bytes:
        raise pa.ArrowInvalid("its footer is longer than the file")
    if needed > len(tail):
        start = num_bytes - needed
        tail = read_range(start, needed)
    return start, tail, tail[-needed:]


def _coalesced(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same bytes and small gaps between them, in fewer spans."""
    begin = end = -1
    for start, stop in sorted(spans):
        if begin < 0:
            begin, end = start, stop
        elif start - end <= _GAP_BYTES:
            end = max(end, stop)
        else:
            yield begin, end
            begin, end = start, stop
    if begin >= 0:
        yield begin, end


class _SparseFile(io.RawIOBase):
    """A file of which only some pieces are known: start -> bytes."""

    def __init__(self, pieces: dict[int, bytes], num_bytes: int) -> None:
        self._pieces, self._num_bytes, self._at = pieces, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1, /) -> memoryview:
        """The bytes at the position. Raises OSError where nothing is known."""
        stop = self._num_bytes if size < 0 else min(self._at + size, self._num_bytes)
        found = self.between(self._at, stop)
        self._at = stop
        return found

    def between(self, start: int, stop: int) -> memoryview:
        """The bytes [start, stop). Raises OSError where nothing is known."""
        for begin, piece in self._pieces.items():
            if begin <= start and stop <= begin + len(piece):
                return memoryview(piece)[start - begin : stop - begin]
        raise OSError(f"nothing is known of bytes {start} to {stop}")
