"""Cells: the same rows have the same bytes; what is not a table is said to be none."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import layout, schemas
from manifests.cells import read_cell, read_table, write_cell
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.parquet import table_to_parquet
from manifests.store import Store
from tests.manifests.older_cells import as_older

_TABLE = pa.table(
    {"name": ["a", None, "ü"], "box": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2))}
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_round_trip(store_url: str) -> None:
    store = Store(store_url)
    cell = write_cell(store, _TABLE, shard="s", layer="boxes", inputs=("i",), statistics={"n": 3})
    assert (cell.num_rows, cell.inputs, cell.statistics) == (3, ("i",), {"n": 3})
    assert cell.num_bytes == store.object_size(cell.object_id)
    assert read_table(store, cell.object_id).equals(_TABLE)
    assert read_table(store, cell.object_id, columns=["name"]).equals(_TABLE.select(["name"]))


def test_empty_table(store: Store) -> None:
    cell = write_cell(store, _TABLE.slice(0, 0), shard="s", layer="boxes")
    assert read_table(store, cell.object_id).schema == _TABLE.schema


@given(st.lists(st.integers(0, 3), max_size=5), st.integers(0, 2))
def test_bytes_do_not_show_how_a_table_was_put_together(cuts: list[int], skip: int) -> None:
    pieces, start = [], 0
    for stop in sorted(cuts):
        pieces.append(_TABLE.slice(start, stop - start))
        start = stop
    whole = pa.concat_tables([*pieces, _TABLE.slice(start)])
    assert table_to_parquet(whole) == table_to_parquet(_TABLE)
    longer = pa.concat_tables([_TABLE.slice(0, skip), _TABLE]).slice(skip)
    assert table_to_parquet(longer) == table_to_parquet(_TABLE)


def test_others_can_read_it(store: Store) -> None:
    cell = write_cell(store, _TABLE, shard="s", layer="boxes")
    path = f"{store.root}/{layout.object_path(cell.object_id)}"
    assert pq.read_table(path).equals(_TABLE)
    assert duckdb.read_parquet(path).fetchall()[0] == ("a", [1.0, 2.0])


def test_unknown_column_is_named(store: Store) -> None:
    cell = write_cell(store, _TABLE, shard="s", layer="boxes")
    with pytest.raises(ObjectDamagedError, match=r"cannot be read as a table: .*nope"):
        read_table(store, cell.object_id, columns=["nope"])


@pytest.mark.parametrize("bad", [b"", b"x", b"PAR1" + b"\xff" * 99 + b"PAR1"])
def test_another_object_is_not_a_table(store: Store, bad: bytes) -> None:
    with pytest.raises(ObjectDamagedError, match="cannot be read as a table"):
        read_table(store, store.put_bytes(bad).object_id)


def test_truncated_and_missing(store: Store) -> None:
    cell = write_cell(store, _TABLE, shard="s", layer="boxes")
    data = store.get_bytes(cell.object_id)
    store.overwrite(layout.object_path(cell.object_id), data[: len(data) // 2])
    with pytest.raises(ObjectDamagedError, match="do not hash to its name"):
        read_table(store, cell.object_id)
    with pytest.raises(ObjectMissingError):
        read_table(store, "9" * 64)


def _masks(*, num_rows: int) -> pa.Table:
    field = {one.name: None for one in schemas.MASK_FIELDS} | {"box_iou": 0.5, "num_holes": 2}
    row = {"status": "ok", "reason": None, "height": 9, "width": 9, **field, "candidates": [field]}
    return pa.Table.from_pylist([row] * num_rows, schema=schemas.MASKS_SCHEMA)


@pytest.mark.parametrize("is_older", [False, True])
def test_fields_of_candidates(store: Store, is_older: bool) -> None:
    table = as_older(_masks(num_rows=50)) if is_older else _masks(num_rows=50)
    cell = write_cell(store, table, shard="s", layer="masks/sam")
    names = ["num_holes", "box_iou", "candidates.num_holes", "candidates.box_iou"]
    found = read_cell(store, cell, columns=names)
    assert found.column_names == ["num_holes", "box_iou", "candidates"]
    holes = None if is_older else 2
    assert found["num_holes"].to_pylist() == [holes] * 50
    assert found["candidates"].to_pylist() == [[{"num_holes": holes, "box_iou": 0.5}]] * 50


def test_damaged_field_of_candidates(store: Store) -> None:
    cell = write_cell(store, _masks(num_rows=5000), shard="s", layer="masks/sam")
    data = bytearray(store.get_bytes(cell.object_id))
    for at in range(4, len(data) // 4):
        data[at] ^= 1
    store.overwrite(layout.object_path(cell.object_id), bytes(data))
    with pytest.raises(ObjectDamagedError, match="masks/sam"):
        read_cell(store, cell, columns=["area_px", "candidates.box_iou"])
