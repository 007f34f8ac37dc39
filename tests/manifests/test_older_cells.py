"""Everything works on cells that older versions wrote, alone and beside newer ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests import schemas
from manifests.blame import blame
from manifests.checkout import checkout
from manifests.dataset import Dataset
from manifests.diff import diff
from manifests.diff_result import VerdictChanges
from manifests.export import export
from manifests.kept import KeptOptions, kept_shards
from manifests.merge import create_branch, merge_into
from manifests.older_cells import with_later_columns
from manifests.refs import Refs
from manifests.sql import SqlSession
from manifests.status import status
from manifests.takedown import take_down
from tests.manifests.conftest import mask_row
from tests.manifests.damage import look, three_masks
from tests.manifests.older_cells import as_older, made_older
from tests.manifests.steps import Steps

_MASKS = schemas.MASKS_SCHEMA


def _rows() -> list[dict[str, Any]]:
    drawn = three_masks() | {"num_holes": 3, "edge_alignment": 0.5}
    return [drawn, mask_row(None, (12, 20)), drawn]


@pytest.mark.parametrize("slices", [slice(0, 3), slice(1, 3), slice(0, 0), slice(2, 3)])
def test_rows_in_the_present_schema(slices: slice) -> None:
    table = pa.Table.from_pylist(_rows(), schema=_MASKS)
    older = as_older(table).slice(slices.start, slices.stop - slices.start)
    found = with_later_columns(older, _MASKS)
    assert found.schema.names == _MASKS.names
    assert found.schema.types == _MASKS.types
    later = set(schemas.LATER_COLUMNS)
    for before, after in zip(_rows()[slices], found.to_pylist(), strict=True):
        assert {k: v for k, v in after.items() if k not in {*later, "candidates"}} == {
            k: v for k, v in before.items() if k not in {*later, "candidates"}
        }
        assert all(after[name] is None for name in later & set(after))
        for one, other in zip(before["candidates"], after["candidates"], strict=True):
            assert other == one | dict.fromkeys(later & set(other))
    assert pa.concat_tables([found, table]).num_rows == found.num_rows + 3


def test_rows_that_lack_nothing_stay_as_they_are() -> None:
    table = pa.Table.from_pylist(_rows(), schema=_MASKS)
    more = table.append_column("newer", pa.array([1, 2, 3]))
    assert with_later_columns(more, _MASKS).equals(more)


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Two shards; the masks and verdicts of the first are as an older version wrote them."""
    steps = Steps(str(tmp_path / "store"))
    steps.ingest({"a.jpg": ["shoe", "hat"], "b.jpg": ["bag"]}, human=["hat"])
    steps.ingest({"c.jpg": ["shoe"]}, source="more", human=["shoe"])
    steps.label("sam")
    steps.filter("loose", "sam")
    Refs(steps.store).create_tag("new", steps.dataset().commit_id)
    made_older(steps.store, shards=slice(0, 1))
    assert len({table.num_columns for table in _tables(steps.dataset())}) == 2
    return steps


def _tables(dataset: Dataset) -> list[pa.Table]:
    return [dataset.table(shard, "masks/sam") for shard in dataset.manifest.shards()]


def test_fsck_status_and_exports(steps: Steps, tmp_path: Path) -> None:
    dataset = steps.dataset()
    assert not look(steps.store).findings
    assert status(dataset).todo == ()
    kept = [shard.annotations.num_rows for shard in kept_shards(dataset, KeptOptions())]
    assert kept == [3, 1]
    for name in ("coco", "yolo", "webdataset"):
        assert export(dataset, str(tmp_path / name), format=name).num_annotations == 4
    checkout(dataset, tmp_path / "folder", ref="main")
    with SqlSession(dataset) as session:
        [[count]] = [
            row.values()
            for row in session.query(
                "SELECT count(*) FROM annotations WHERE keep AND num_holes IS NULL"
            ).head(1).to_pylist()
        ]  # fmt: skip
    assert count == 4


def test_no_mask_and_no_verdict_differs(steps: Steps) -> None:
    found = diff(steps.dataset("new"), steps.dataset())
    assert not found.masks
    assert found.verdicts == VerdictChanges()


def test_blame_finds_who_drew(steps: Steps) -> None:
    for annotation in steps.ids():
        found = blame(steps.dataset(), annotation)
        assert found.masks[1].drawn.operation == "label"
        assert found.verdict is not None
        assert found.verdict.since.operation == "filter"
        assert found.verdict.weight is None


def test_takedown(steps: Steps) -> None:
    dataset = steps.dataset()
    shard = dataset.manifest.shards()[0]
    image_id = dataset.table(shard, "image_index")["image_id"].to_pylist()[0]
    take_down(steps.store, "main", {shard: [image_id]}, reason="asked")
    assert not look(steps.store).findings
    assert [table.num_rows for table in _tables(steps.dataset())] == [1, 1]


def test_a_merge_of_boxes_that_came_on_both_sides(steps: Steps) -> None:
    shard = steps.dataset().manifest.shards()[0]
    create_branch(steps.store, "side", "new")
    steps.more_boxes(shard, "belt", branch="side")
    steps.label("sam", branch="side")
    steps.more_boxes(shard, "sock")
    merge_into(steps.store, "main", "side")
    dataset = steps.dataset()
    assert dataset.table(shard, "boxes").num_rows == 5
    masks = dataset.table(shard, "masks/sam")
    assert masks.schema.names == _MASKS.names
    assert sorted(masks["status"].to_pylist()) == ["ok"] * 4 + ["pending"]
    assert not [found for found in look(steps.store).findings if found.severity == "damage"]


def test_a_cell_of_each_version_is_no_conflict_where_one_side_is_older(steps: Steps) -> None:
    create_branch(steps.store, "side", "new")
    steps.ingest({"d.jpg": ["hat"]}, source="side", branch="side")
    merge_into(steps.store, "main", "side")
    assert len(steps.dataset().manifest.shards()) == 3
    assert not look(steps.store).findings
