"""SQL over agreement and confidence, and over cells of older and newer versions side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.manifest import Cell
from manifests.sql import SqlSession
from tests.manifests.computed_cells import computed_cell, confidence_table, shares
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.damage import blob
from tests.manifests.older_cells import as_older

_BOX = (2.0, 2.0, 9.0, 9.0)
_HW = (12, 20)


@pytest.fixture
def dataset(builder: DatasetBuilder) -> Dataset:
    """Three shards of two boxes each: all layers, no verdicts, boxes alone."""
    others = [mask_row(blob(2), _HW, num_holes=7)]
    candidates = [{f.name: other[f.name] for f in schemas.MASK_FIELDS} for other in others]
    drawn = mask_row(blob(1), _HW, num_holes=3, candidates=candidates)
    for name, layers in (("a", {"masks/sam": drawn}), ("b", {"masks/sam": drawn}), ("c", {})):
        builder.image(f"{name}.jpg")
        builder.box("shoe", _BOX, teacher="sam" if layers else None, layers=layers, candidate=1)
        builder.box("hat", _BOX, teacher="sam" if layers else None, layers=layers)
        builder.shard(verdicts=name == "a")
    return builder.commit()


def _with(dataset: Dataset, *cells: Cell) -> Dataset:
    manifest = dataset.manifest.with_cells(cells).save(dataset.store)
    return Dataset(dataset.store, replace(dataset.commit, manifest=manifest).save(dataset.store))


def _ask(dataset: Dataset, query: str) -> list[tuple[Any, ...]]:
    with SqlSession(dataset) as session:
        return [tuple(row.values()) for row in session.query(query).head(99).to_pylist()]


def _made(dataset: Dataset, number: int, layer: str, table: pa.Table) -> Cell:
    return computed_cell(dataset, dataset.manifest.shards()[number], layer, table, "c" * 64)


def test_annotations_have_a_confidence_for_every_row(dataset: Dataset) -> None:
    found = _with(
        dataset,
        _made(dataset, 0, "confidence", confidence_table({"sam": [0.75, None], "b.1": [0.5] * 2})),
        _made(dataset, 1, "confidence", confidence_table({"box": [0.25, 0.125]})),
    )
    query = (
        "SELECT category, confidence, keep, weight, num_holes FROM annotations ORDER BY shard, row"
    )
    assert _ask(found, query) == [
        ("shoe", 0.75, True, None, 7), ("hat", 0.5, True, None, 3),
        ("shoe", 0.25, None, None, None), ("hat", 0.125, None, None, None),
        ("shoe", None, None, None, None), ("hat", None, None, None, None),
    ]  # fmt: skip
    assert _ask(dataset, "SELECT DISTINCT confidence FROM annotations") == [(None,)]


def test_shards_that_know_other_teachers_are_one_table(dataset: Dataset) -> None:
    found = _with(
        dataset,
        _made(
            dataset, 0, "confidence", confidence_table({"sam": [0.75, None], "sam.1": [0.5] * 2})
        ),
        _made(dataset, 1, "confidence", confidence_table({"box": [0.25, 0.125]})),
        _made(dataset, 0, "agreement", pa.table(shares({"box|sam": [1.0, None]}))),
        _made(dataset, 1, "agreement", pa.table(shares({"a|b.1": [0.5, 0.5]}))),
    )
    query = 'SELECT teacher, candidate, sam, "sam.1", box FROM confidence ORDER BY shard, row'
    assert _ask(found, query) == [
        ("masks/sam", 0, 0.75, 0.5, None), ("masks/sam", 1, None, 0.5, None),
        ("masks/box", 0, None, None, 0.25), ("masks/box", 0, None, None, 0.125),
    ]  # fmt: skip
    query = 'SELECT row, "box|sam", "a|b.1" FROM agreement ORDER BY shard, row'
    assert _ask(found, query) == [(0, 1, None), (1, None, None), (0, None, 0.5), (1, None, 0.5)]
    with SqlSession(found) as session:
        tables = {table.table: table for table in session.tables()}
    assert (tables["confidence"].num_rows, tables["agreement"].num_rows) == (4, 4)


@pytest.mark.parametrize("older", [{0}, {1}, {0, 1}])
def test_cells_of_older_versions_have_nulls(dataset: Dataset, older: set[int]) -> None:
    def rewritten(number: int, layer: str) -> Cell:
        shard = dataset.manifest.shards()[number]
        table = as_older(dataset.table(shard, layer))
        return write_cell(dataset.store, table, shard=shard, layer=layer)

    cells = [rewritten(number, "masks/sam") for number in sorted(older)]
    found = _with(dataset, *cells, *([rewritten(0, "verdicts")] if 0 in older else []))
    holes = [None if number in older else 3 for number in (0, 0, 1, 1)]
    of_candidates = [None if number in older else 7 for number in (0, 0, 1, 1)]
    query = "SELECT num_holes, candidates[1].num_holes, area_px FROM masks_sam ORDER BY shard, row"
    area = int(blob(1).sum())
    assert _ask(found, query) == [
        (own, other, area) for own, other in zip(holes, of_candidates, strict=True)
    ]
    query = "SELECT num_holes, weight, area_px > 0 FROM annotations WHERE keep ORDER BY row"
    assert _ask(found, query) == [(of_candidates[0], None, True), (holes[1], None, True)]


def test_no_cell_is_opened_to_find_its_columns(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = type(dataset.store).read_range

    def counted(self: Any, object_id: str, **more: Any) -> bytes:
        opened.append(object_id)
        data: bytes = read(self, object_id, **more)
        return data

    monkeypatch.setattr(type(dataset.store), "read_range", counted)
    with SqlSession(dataset) as session:
        assert len(session.query("SELECT * FROM masks_sam").columns) == 22
        assert session.query("FROM verdicts").columns
    assert opened == []
