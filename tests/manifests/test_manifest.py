"""Manifests: order, replacement, round trip, stable bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import layout
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.manifest import SCHEMA, Cell, Manifest
from manifests.store import Store

_IDS = st.text("0123456789abcdef", min_size=64, max_size=64)
_CELLS = st.builds(
    Cell,
    shard=st.sampled_from("zyx"),
    layer=st.sampled_from(["images", "boxes", "masks/é"]),
    object_id=_IDS,
    num_rows=st.integers(0, 2**62),
    num_bytes=st.integers(0, 2**62),
    inputs=st.lists(_IDS, max_size=2).map(tuple),
    statistics=st.dictionaries(st.text(max_size=3), st.integers(-(2**62), 2**62), max_size=3),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _cell(shard: str, layer: str, number: int = 0) -> Cell:
    return Cell(shard=shard, layer=layer, object_id=f"{number:064d}", num_rows=1, num_bytes=1)


@given(st.lists(_CELLS, max_size=8))
def test_table_round_trip(cells: list[Cell]) -> None:
    manifest = Manifest(cells)
    table = manifest.to_table()
    assert table.schema.equals(SCHEMA)
    assert list(Manifest.from_table(table)) == list(manifest)


@given(st.lists(_CELLS, min_size=2, max_size=8))
def test_part_of_a_table_gives_part_of_the_cells(cells: list[Cell]) -> None:
    table = Manifest(cells).to_table()
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert list(Manifest.from_table(pieces)) == list(Manifest(cells))
    assert list(Manifest.from_table(table.slice(1))) == list(Manifest(list(Manifest(cells))[1:]))


def test_names_of_counts_are_held_once_however_many_cells_have_them() -> None:
    cells = [
        Cell(shard=shard, layer="boxes", object_id="0" * 64, num_rows=1, num_bytes=1,
             statistics={"category:shoe": 1})
        for shard in ("a", "b")
    ]  # fmt: skip
    first, second = Manifest.from_table(Manifest(cells).to_table())
    [one], [other] = first.statistics, second.statistics
    assert one is other


def test_saved_round_trip_and_same_bytes(store: Store) -> None:
    cells = [_cell("s2", "boxes", 1), _cell("s2", "images", 2), _cell("s1", "images", 3)]
    object_id = Manifest(cells).save(store)
    assert list(Manifest.load(store, object_id)) == cells
    assert Manifest([cells[1], cells[0], cells[2]]).save(store) == object_id
    assert Manifest.load(store, Manifest().save(store)).shards() == ()


def test_order_is_that_of_ingest_then_layer() -> None:
    manifest = Manifest([_cell("z", "images"), _cell("a", "images"), _cell("z", "boxes")])
    assert manifest.shards() == ("z", "a")
    assert manifest.layers() == ("boxes", "images")
    assert [(cell.shard, cell.layer) for cell in manifest] == [
        ("z", "boxes"),
        ("z", "images"),
        ("a", "images"),
    ]
    assert [cell.shard for cell in manifest.of_layer("images")] == ["z", "a"]
    assert len(manifest) == 3


def test_cells_are_added_replaced_and_left_out() -> None:
    old = Manifest([_cell("a", "images", 1), _cell("a", "boxes", 2)])
    new = old.with_cells([_cell("a", "boxes", 3), _cell("b", "images", 4)])
    assert len(old) == 2
    assert old.get("a", "boxes") == _cell("a", "boxes", 2)
    assert new.get("a", "boxes") == _cell("a", "boxes", 3)
    assert new.shards() == ("a", "b")
    assert new.without("b", "images").shards() == ("a",)
    assert new.get("b", "boxes") is None
    assert new.get("nowhere", "boxes") is None


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "bad",
    [
        *(b"", b"PAR1", b"{}", b"PAR1" + b"\xff" * 60 + b"PAR1"),
        _parquet(pa.table({"a": [1]})),
        _parquet(pa.table({"shard": ["a"], "layer": ["b"]})),
        _parquet(Manifest([_cell("a", "b")]).to_table())[:-9],
    ],
)
def test_another_object_is_not_a_manifest(store: Store, bad: bytes) -> None:
    object_id = store.put_bytes(bad).object_id
    with pytest.raises(ObjectDamagedError, match=f"object {object_id[:12]} is not a manifest"):
        Manifest.load(store, object_id)


def test_damaged_and_missing(store: Store) -> None:
    object_id = Manifest([_cell("a", "b")]).save(store)
    store.overwrite(layout.object_path(object_id), b"PAR1")
    with pytest.raises(ObjectDamagedError, match="do not hash to its name"):
        Manifest.load(store, object_id)
    with pytest.raises(ObjectMissingError):
        Manifest.load(store, "9" * 64)
