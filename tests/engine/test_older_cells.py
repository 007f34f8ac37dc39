"""The steps of the job on a dataset whose masks and verdicts an older version wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.report import ReportOptions, write_report
from manifests import schemas
from manifests.dataset import Dataset
from manifests.fsck import FsckOptions, fsck
from manifests.store import Store
from tests.engine.conftest import INLINE, PhotoSet
from tests.manifests.older_cells import made_older

_POLICY = Policy(name="p", teachers=("box",), rules={"min_box_iou": 0.5})
_HUMAN = {"segmentation": [[10, 5, 30, 5, 30, 35, 10, 35]]}


@pytest.fixture
def older(store: Store, photos: PhotoSet, more_photos: PhotoSet) -> Dataset:
    """Photos with a human mask, labelled and filtered by an older version; a second source has
    another box for one of them."""
    image = photos.add("a.jpg", [0, 0, 40, 40])
    photos.annotate(image, [10, 5, 20, 30], **_HUMAN)
    photos.add("b.jpg", [1, 2, 30, 30])
    ingest(store, photos.config("one"))
    label(store, LabelConfig(teacher="box", pool=INLINE))
    filter_masks(store, FilterConfig(policy=_POLICY))
    made_older(store)
    image = more_photos.add("a.jpg", [50, 5, 20, 20])
    more_photos.annotate(image, [40, 30, 20, 20], segmentation=[[40, 30, 60, 30, 60, 50, 40, 50]])
    return Dataset.open(store)


def _table(store: Store, layer: str) -> tuple[list[str], list[str | None]]:
    dataset = Dataset.open(store)
    [shard] = dataset.manifest.shards()
    table = dataset.table(shard, layer)
    return table.column_names, table["status"].to_pylist()


def test_more_boxes_are_drawn_and_the_old_masks_carried_over(
    store: Store, older: Dataset, more_photos: PhotoSet
) -> None:
    assert "num_holes" not in older.table(older.manifest.shards()[0], "masks/box").column_names
    ingest(store, replace(more_photos.config("two")))
    for layer, statuses in (
        ("masks/box", ["ok", "ok", "pending", "pending", "ok"]),
        ("masks/human", ["absent", "ok", "absent", "ok", "absent"]),
    ):
        assert _table(store, layer) == (schemas.MASKS_SCHEMA.names, statuses)
    label(store, LabelConfig(teacher="box", pool=INLINE))
    dataset = Dataset.open(store)
    [shard] = dataset.manifest.shards()
    drawn = dataset.table(shard, "masks/box", columns=["status", "num_holes"])
    assert drawn["status"].to_pylist() == ["ok"] * 5
    assert drawn["num_holes"].to_pylist() == [None, None, 0, 0, None]
    filter_masks(store, FilterConfig(policy=_POLICY))
    verdicts = Dataset.open(store).table(shard, "verdicts", columns=["keep", "weight"])
    assert verdicts["weight"].to_pylist() == [1.0] * 5
    assert not fsck(store, FsckOptions(full=True, quarantine=False)).findings


def test_older_masks_are_judged_again(store: Store, older: Dataset) -> None:
    strict = replace(_POLICY, rules={"max_components": 1, "min_box_iou": 0.99})
    filter_masks(store, FilterConfig(policy=strict))
    dataset = Dataset.open(store)
    verdicts = dataset.table(dataset.manifest.shards()[0], "verdicts")
    assert verdicts.column_names == schemas.VERDICTS_SCHEMA.names


def test_report(store: Store, older: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(older, path, options=ReportOptions())
    assert "masks/box" in path.read_text()
