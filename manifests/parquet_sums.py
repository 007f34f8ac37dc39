"""Digests of a Parquet file's footer and column chunks, kept in that footer (`maskmill.sums`).

Some columns can then be fetched by range and be checked before anything parses them: pyarrow may
end the process on a damaged footer, and Parquet's own page checksums leave headers out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

SUMS = "maskmill.sums"
ROWS_A_GROUP = 2**20
_FOOTER_HEX, _CHUNK_HEX = 64, 32
# As thrift writes a string behind another: a field header and the length, then the text itself.
_SUMS_FOUND = re.compile(rb"maskmill\.sums.{2,4}?([0-9a-f]{64,})", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One leaf column of one row group: its path in the schema, its bytes, and their digest."""

    path: str
    start: int
    stop: int
    sum: bytes


def room_for_sums(table: pa.Table) -> str:
    """What a table's file holds in the digests' place until they are known."""
    return "0" * (_FOOTER_HEX + _CHUNK_HEX * _num_chunks(table))


def _num_chunks(table: pa.Table) -> int:
    num_groups: int = max(1, -(-table.num_rows // ROWS_A_GROUP))  # an empty table has a group too
    return num_groups * sum(_num_leaves(field.type) for field in table.schema)


def _num_leaves(type_: pa.DataType) -> int:
    """Column chunks that one column becomes: a struct has one for each of its fields."""
    if not pa.types.is_nested(type_):
        return 1
    num_fields: int = type_.num_fields
    return sum(_num_leaves(type_.field(number).type) for number in range(num_fields))


def chunk_sum(data: bytes | memoryview) -> bytes:
    """The digest of a column chunk's bytes, as hex."""
    return hashlib.sha256(data).hexdigest()[:_CHUNK_HEX].encode()


def _footer_sum(footer: bytes | bytearray, place: tuple[int, int]) -> bytes:
    """Of the footer without the digest itself."""
    start = place[0]
    blank = bytes(footer[:start]) + b"0" * _FOOTER_HEX + bytes(footer[start + _FOOTER_HEX :])
    return hashlib.sha256(blank).hexdigest().encode()


def with_sums(data: bytearray) -> bytes:
    """The file with the room for its digests filled in."""
    footer_start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    found = _SUMS_FOUND.search(data, footer_start)
    metadata = pq.read_metadata(pa.BufferReader(bytes(data)))
    if found is None:
        raise pa.ArrowInvalid("the footer has no room for digests")
    blank = bytes(found.group(1))
    view = memoryview(bytes(data))
    sums = b"".join(chunk_sum(view[c.start : c.stop]) for c in chunks_of(metadata, blank))
    start, stop = found.span(1)
    data[start + _FOOTER_HEX : stop] = sums
    footer = data[footer_start:]
    place = (start - footer_start, stop - footer_start)
    data[start : start + _FOOTER_HEX] = _footer_sum(footer, place)
    return bytes(data)


def checked_sums(footer: bytes) -> bytes | None:
    """The digests in a footer, after the footer's own; None if it has none."""
    found = _SUMS_FOUND.search(footer)
    if found is None:
        return None
    sums = found.group(1)
    if _footer_sum(footer, found.span(1)) != sums[:_FOOTER_HEX]:
        raise pa.ArrowInvalid("its footer is damaged")
    return sums


def chunks_of(metadata: pq.FileMetaData, sums: bytes) -> Iterator[Chunk]:
    """Every column chunk in the order of the file."""
    at = _FOOTER_HEX
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page:
                start = min(start, chunk.dictionary_page_offset)
            yield Chunk(
                path=chunk.path_in_schema,
                start=start,
                stop=start + chunk.total_compressed_size,
                sum=sums[at : at + _CHUNK_HEX],
            )
            at += _CHUNK_HEX
