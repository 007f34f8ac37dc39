"""Whether two contents are the same, down to a value, and how they are not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import layout, schemas
from manifests.commit import Category
from manifests.contents import Contents, compare
from manifests.ledger import Ledger, LedgerRow
from manifests.manifest import Manifest
from manifests.parquet import table_to_parquet
from manifests.removed import Removals, RemovedImage
from manifests.same_rows import row_difference
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder

_VALUES = st.one_of(st.none(), st.floats(width=32), st.just(math.nan))
_ROWS = st.lists(st.tuples(_VALUES, st.lists(st.binary(max_size=2), max_size=2)), max_size=6)
_SCHEMA = pa.schema([("signal", pa.float32()), ("parts", pa.list_(pa.binary()))])
_REMOVED = RemovedImage(
    image_id="1" * 32, file_name="a.jpg", source="shop", shard="2" * 64, successor=None,
    reason="not ours", author="me", time="2026-11-23T20:00:00Z",
)  # fmt: skip


def table(rows: list[tuple[Any, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(_SCHEMA.names, row, strict=True)) for row in rows], schema=_SCHEMA
    )


def spelled(value: object) -> str:
    return "nan" if value != value else repr(value)


@given(_ROWS, _ROWS)
def test_every_differing_row_is_counted(
    before: list[tuple[Any, Any]], after: list[tuple[Any, Any]]
) -> None:
    assert row_difference(table(before), table(before)) is None
    found = row_difference(table(before), table(after))
    if len(before) != len(after):
        assert found == f"{len(before)} rows became {len(after)}"
        return
    differs = [
        number
        for number, (old, new) in enumerate(zip(before, after, strict=True))
        if any(a != b and spelled(a) != spelled(b) for a, b in zip(old, new, strict=True))
    ]
    if not differs:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"{len(differs)} of {len(before)} rows, in ")
        assert found.endswith(f"the first is row {differs[0]}")


def test_other_columns_and_types_differ_and_metadata_do_not() -> None:
    rows = table([(1.0, [])])
    marked = rows.replace_schema_metadata({b"writer": b"another"})
    assert row_difference(rows, marked) is None
    wider = rows.cast(pa.schema([("signal", pa.float64()), _SCHEMA.field("parts")]))
    assert "signal float became signal double" in (row_difference(rows, wider) or "").replace(
        "columns ", ""
    ).replace(", parts list<item: binary>", "")
    assert row_difference(rows, rows.select(["signal"]))


@pytest.fixture
def made(builder: DatasetBuilder) -> tuple[Store, Contents]:
    """Contents of two shards."""
    for name in ("a", "b"):
        builder.image(f"{name}.jpg")
        builder.box("cat", (1, 1, 5, 5))
        builder.shard()
    dataset = builder.commit((Category(name="cat", source_ids={"shop": "7"}), Category(name="d")))
    row = LedgerRow(layer="boxes", category="cat", inputs=2, kept=2)
    return builder.store, replace(Contents.of(dataset), ledger=Ledger(rows=(row,)))


def test_the_same_contents_are_the_same_and_read_nothing(made: tuple[Store, Contents]) -> None:
    store, contents = made
    for object_id in {cell.object_id for cell in contents.manifest}:
        store.fs.rm_file(f"{store.root}/{layout.object_path(object_id)}")
    found = compare(store, contents, contents, given=contents.manifest)
    assert found.is_same
    assert (found.num_made, found.num_differing) == (0, 0)
    assert found.layers["boxes"] == {"given": 2}
    assert compare(store, contents, contents).layers["boxes"] == {"same": 2}


def test_cells_may_be_missing_extra_unreadable_or_about_others(
    made: tuple[Store, Contents],
) -> None:
    store, contents = made
    [first, second] = contents.manifest.shards()
    boxes = contents.manifest.get(first, "boxes")
    verdicts = contents.manifest.get(second, "verdicts")
    assert boxes
    assert verdicts
    manifest = contents.manifest.without(first, "verdicts").with_cells(
        [
            replace(boxes, layer="masks/new"),
            replace(boxes, object_id="0" * 64),
            replace(verdicts, inputs=("1" * 64,), statistics={"kept": 5}),
        ]
    )
    found = compare(store, contents, replace(contents, manifest=manifest))
    told = {(cell.fate, cell.layer): cell.detail for cell in found.cells}
    assert told[("missing", "verdicts")] == told[("extra", "masks/new")] == "1 rows"
    assert "the new cell cannot be read: object 000000000000 is missing" in told["differs", "boxes"]
    assert told[("differs", "verdicts")] == "computed from other objects, other statistics"
    assert not found.is_same
    assert found.num_differing == 4


def test_the_order_of_shards_counts(made: tuple[Store, Contents]) -> None:
    store, contents = made
    shards = contents.manifest.shards()
    cells = sorted(contents.manifest, key=lambda cell: -shards.index(cell.shard))
    found = compare(store, contents, replace(contents, manifest=Manifest(cells)))
    assert [cell.detail for cell in found.cells] == ["the order of the shards"]


def test_images_of_one_side_are_named_in_a_fixed_order(made: tuple[Store, Contents]) -> None:
    store, contents = made
    second = contents.manifest.shards()[1]
    fewer = Manifest(cell for cell in contents.manifest if cell.shard != second)
    found = compare(store, contents, replace(contents, manifest=fewer))
    assert [sentence.split(" (")[0] for sentence in found.images] == ["image b.jpg"]
    assert found.images[0].endswith("is missing")
    back = compare(store, replace(contents, manifest=fewer), contents)
    assert back.images[0].endswith("is extra")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("cat",), "category 'd' is missing"),
        (("cat", "d", "e"), "category 'e' is extra"),
        (("d", "cat"), "the categories are in another order"),
    ],
)
def test_categories(made: tuple[Store, Contents], names: tuple[str, ...], sentence: str) -> None:
    store, contents = made
    known = {category.name: category for category in contents.categories}
    categories = tuple(known.get(name, Category(name=name)) for name in names)
    found = compare(store, contents, replace(contents, categories=categories))
    assert found.categories == (sentence,)


def test_facts_beside_the_cells(made: tuple[Store, Contents]) -> None:
    store, contents = made
    row = replace(contents.ledger.rows[0], kept=1, dropped={"crowd": 1})
    extra = LedgerRow(layer="images", category="", inputs=1, kept=1)
    rejects = schemas.REJECTS_SCHEMA.empty_table()
    changed = replace(
        contents, ledger=Ledger(rows=(row, extra)), removals=Removals([_REMOVED]),
        rejects=store.put_bytes(table_to_parquet(rejects)).object_id,
    )  # fmt: skip
    found = compare(store, contents, changed)
    assert found.ledger == (
        "ledger of boxes, cat: kept 2 became 1, dropped {} became {'crowd': 1}",
        "ledger of images, (none): the row is extra",
    )
    assert found.rejects == ()  # a table without rows says what no table says
    [removal] = found.removals
    assert removal == "takedown of image 111111111111 from shard 222222222222 is extra"
    later = replace(_REMOVED, author="you", time="2027-01-01T00:00:00Z")
    again = replace(changed, removals=Removals([later]))
    assert compare(store, changed, again).is_same
