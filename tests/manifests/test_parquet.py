"""Parquet bytes: the same for the same rows, and readable in parts that are checked."""

from __future__ import annotations

import io
import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import schemas
from manifests.parquet import parquet_to_table, read_columns, table_to_parquet

_ROWS = 3000
_LATER = {"holes": pa.int32(), "weight": pa.float32()}


def _table() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "counts": pa.array([rng.bytes(200) for _ in range(_ROWS)]),
            "status": pa.array([f"s{n % 5}" for n in range(_ROWS)]),
            "box": pa.array(rng.random((_ROWS, 4)).tolist(), pa.list_(pa.float32(), 4)),
            "more": pa.array([[{"a": 1, "b": b"x"}]] * _ROWS),
            "iou": rng.random(_ROWS, dtype=np.float32),
        }
    )


class _Bytes:
    """A file that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.num_read = data, 0

    def __call__(self, start: int, num_bytes: int) -> bytes:
        found = self.data[start : start + num_bytes]
        self.num_read += len(found)
        return found

    def columns(self, *columns: str) -> pa.Table | None:
        return read_columns(self, len(self.data), columns=list(columns), later=_LATER)


def _nested() -> pa.Table:
    """Lists of 0 to 2 structs, some null, with large and small fields, and dotted names beside."""
    rng = np.random.default_rng(6)
    lists = [
        None if n % 7 == 0 else [
            {
                "counts": rng.bytes(200), "iou": float(rng.random()), "area": n if n % 5 else None,
                "tight": rng.random(4).tolist(),
            }
            for _ in range(n % 3)
        ]
        for n in range(_ROWS)
    ]  # fmt: skip
    struct = pa.struct(
        {"counts": pa.binary(), "iou": pa.float32(), "area": pa.int64(),
         "tight": pa.list_(pa.float32(), 4)}
    )  # fmt: skip
    return pa.table(
        {
            "status": pa.array([f"s{n % 5}" for n in range(_ROWS)]),
            "more": pa.array(lists, pa.list_(struct)),
            "one": pa.array([{"a": n, "b": rng.bytes(300)} for n in range(_ROWS)]),
            "sam": rng.random(_ROWS, dtype=np.float32),
            "sam.1": rng.random(_ROWS, dtype=np.float32),
        }
    )


def _only(lists: list[list[dict[str, object]] | None], *names: str) -> list[object]:
    return [
        None if found is None else [{name: one.get(name) for name in names} for one in found]
        for found in lists
    ]


def test_columns_are_those_of_the_whole() -> None:
    table = _table()
    file = _Bytes(table_to_parquet(table))
    for names in (["status"], ["iou", "status"], ["box"], ["status", "more"]):
        found = file.columns(*names)
        assert found is not None
        assert found.select(names).equals(table.select(names))


@pytest.mark.parametrize(
    "names", [["area"], ["iou", "area"], ["tight", "iou"], ["holes"], ["holes", "area"]]
)
@pytest.mark.parametrize("by_ranges", [True, False])
def test_fields_of_a_list_of_structs(names: list[str], by_ranges: bool) -> None:
    table = _nested()
    file = _Bytes(table_to_parquet(table))
    columns = ["weight", *(f"more.{name}" for name in names), "status"]
    found = (
        file.columns(*columns)
        if by_ranges
        else parquet_to_table(file.data, columns=columns, later=_LATER)
    )
    assert found is not None
    assert found.column_names == ["weight", "more", "status"]
    assert [field.name for field in found.schema.field("more").type.value_type] == names
    assert found["more"].to_pylist() == _only(table["more"].to_pylist(), *names)
    assert found["status"].equals(table["status"])
    assert found["weight"].null_count == _ROWS
    assert file.num_read < len(file.data) / 4


def test_fields_of_a_struct_and_of_a_column_named_as_a_whole() -> None:
    table = _nested()
    data = table_to_parquet(table)
    found = parquet_to_table(data, columns=["one.a", "more.iou", "more"])
    assert found["one"].to_pylist() == [{"a": n} for n in range(_ROWS)]
    assert found["more"].to_pylist() == table["more"].to_pylist()


def test_a_dot_in_the_name_of_a_column() -> None:
    table = _nested()
    file = _Bytes(table_to_parquet(table))
    for names in (["sam"], ["sam.1"], ["sam.1", "sam"]):
        found = file.columns(*names)
        assert found is not None
        assert found.equals(table.select(names))


def test_fields_of_no_rows_and_of_no_structs() -> None:
    schema = schemas.MASKS_SCHEMA
    row = {field.name: None for field in schema} | {"status": "failed", "height": 1, "width": 1}
    rows = pa.Table.from_pylist([row | {"candidates": []}] * 3, schema=schema)
    for table in (schema.empty_table(), rows):
        found = parquet_to_table(table_to_parquet(table), columns=["candidates.box_iou"])
        assert found["candidates"].to_pylist() == [[]] * table.num_rows
        assert found.schema.field("candidates").nullable is False


def test_unknown_fields_are_named() -> None:
    data = table_to_parquet(_nested())
    with pytest.raises(ValueError, match="no field 'nope' in column 'more'; it has counts, iou"):
        parquet_to_table(data, columns=["more.nope"])
    with pytest.raises(ValueError, match=r"no column 'status\.nope'; there are status, more"):
        parquet_to_table(data, columns=["status.nope"])


def test_few_columns_cost_few_bytes() -> None:
    file = _Bytes(table_to_parquet(_table()))
    file.columns("iou")
    assert file.num_read < len(file.data) / 4


def test_a_column_that_is_most_of_the_file_is_left_to_the_whole_read() -> None:
    assert _Bytes(table_to_parquet(_table())).columns("counts") is None


def test_files_of_others_are_left_to_the_whole_read() -> None:
    sink = io.BytesIO()
    pq.write_table(_table(), sink)
    assert _Bytes(sink.getvalue()).columns("iou") is None


def test_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'nope'; there are counts, status"):
        _Bytes(table_to_parquet(_table())).columns("nope")


def test_empty_and_several_groups() -> None:
    empty = _Bytes(table_to_parquet(schemas.MASKS_SCHEMA.empty_table())).columns("status")
    assert empty is not None
    assert empty.num_rows == 0
    large = pa.table({"wanted": np.zeros(2**20 + 5, np.int8), "other": np.arange(2**20 + 5)})
    found = _Bytes(table_to_parquet(large)).columns("wanted")
    assert found is not None
    assert found.num_rows == large.num_rows


@pytest.mark.parametrize(
    ("table", "names"),
    [(_table(), ["status", "box", "iou"]), (_nested(), ["more.iou", "more.tight", "sam.1"])],
)
def test_one_flipped_bit_is_never_silent(table: pa.Table, names: list[str]) -> None:
    """Anywhere in the file: either nobody needs the byte, or the read is refused."""
    rng = random.Random(7)
    data = table_to_parquet(table)
    right = parquet_to_table(data, columns=names)
    footer = int.from_bytes(data[-8:-4], "little") + 8
    spots = [rng.randrange(len(data)) for _ in range(200)]
    spots += [len(data) - 1 - rng.randrange(footer) for _ in range(400)]
    refused = 0
    for spot in spots:
        bent = bytearray(data)
        bent[spot] ^= 1 << rng.randrange(8)
        try:
            found = _Bytes(bytes(bent)).columns(*names)
        except (pa.ArrowException, OSError, ValueError):
            refused += 1
            continue
        assert found is None or found.equals(right), spot
    assert refused > 350


@pytest.mark.parametrize("length", [0, 3, 11, 200, 5000])
def test_truncated(length: int) -> None:
    data = table_to_parquet(_table())[:length]
    with pytest.raises((pa.ArrowException, OSError)):
        _Bytes(data).columns("iou")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3000), max_size=5))
def test_bytes_do_not_show_how_a_table_was_put_together(cuts: list[int]) -> None:
    table = _table()
    edges = sorted({0, *cuts, table.num_rows})
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    joined = pa.concat_tables(pieces or [table]).replace_schema_metadata({"who": "knows"})
    data = table_to_parquet(table)
    assert table_to_parquet(joined) == data
    assert table_to_parquet(parquet_to_table(data)) == data
