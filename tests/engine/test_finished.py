"""A clone has no result records, and still nothing that is finished is done again in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from engine.filter import FilterConfig, filter_masks
from engine.finished import record_known_masks
from engine.label import VERSION, LabelConfig, label, plan_label
from engine.policy import Policy
from engine.pool import PoolConfig
from manifests import layout
from manifests.dataset import Dataset
from manifests.errors import NothingToCommitError, ObjectMissingError
from manifests.results import find_result
from manifests.store import Store
from manifests.transfer import clone, push
from teachers.protocol import TeacherIdentity

Ingest = Callable[..., Dataset]
_BOX = asdict(TeacherIdentity(name="box", version=1))
_CONFIG = LabelConfig(teacher="box", pool=PoolConfig(executor="inline"))


@pytest.fixture
def copy(photos: Any, ingested: Ingest, tmp_path: Path) -> Store:
    """A clone of a labelled store of two shards, from which nobody can read a picture."""
    for name in "abc":
        photos.add(f"{name}.jpg", [10, 5, 20, 30], [1, 1, 9, 9])
    store = ingested(photos, shard_images=2).store
    label(store, _CONFIG)
    there = Store(str(tmp_path / "copy"))
    clone(store, there)
    for shard in Dataset.open(there).manifest.shards():
        there.remove(layout.object_path(shard))
    assert not Path(there.root, "results").exists()
    return there


def records(store: Store, identity: dict[str, Any] = _BOX) -> list[Any]:
    work = plan_label(Dataset.open(store), "box", identity)
    return [find_result(store, item.work_key) for item in work]


def test_a_fixture_cannot_be_labelled_with_anything_else(copy: Store) -> None:
    with pytest.raises(Exception, match="cannot be labelled"):
        label(copy, replace(_CONFIG, teacher="grabcut"))


def test_nothing_is_drawn_again(copy: Store, store: Store) -> None:
    with pytest.raises(NothingToCommitError):
        label(copy, _CONFIG)
    assert records(copy) == records(store) != [None, None]


def test_only_new_shards_are_drawn(
    copy: Store, store: Store, more_photos: Any, make_jpeg: Any, make_image: Any, ingested: Ingest
) -> None:
    more_photos.add("d.jpg", [3, 3, 9, 9], content=make_jpeg(make_image(77)))
    ingested(more_photos, "more")
    push(store, copy)
    made = Dataset(copy, label(copy, _CONFIG))
    [totals] = made.commit.ledger.totals()
    assert (totals.inputs, totals.kept) == (7, 7)


def test_filter_finds_what_it_would_write(copy: Store, store: Store) -> None:
    config = FilterConfig(policy=replace(Policy.load("default"), teachers=("box",)))
    filter_masks(store, config)
    push(store, copy)
    with pytest.raises(NothingToCommitError):
        filter_masks(copy, config)


@pytest.mark.parametrize("difference", [{"version": 2}, {"config": {"x": 1}}])
def test_masks_of_other_settings_prove_nothing(copy: Store, difference: dict[str, Any]) -> None:
    identity = _BOX | difference
    dataset = Dataset.open(copy)
    # As a merge may leave it: current cells, drawn by another teacher of that name.
    record_known_masks(
        dataset, plan_label(dataset, "box", _BOX), identity=identity, version=VERSION
    )
    record_known_masks(
        dataset, plan_label(dataset, "box", _BOX), identity=_BOX, version=VERSION + 1
    )
    assert records(copy) == [None, None]


def test_a_command_that_works_apart_has_its_own_records(copy: Store) -> None:
    """`reproduce` starts from what the commit before has, as the first time."""
    apart = Store(copy.url, "apart")
    dataset = Dataset.open(apart)
    work = plan_label(dataset, "box", _BOX)
    record_known_masks(dataset, work, identity=_BOX, version=VERSION)
    assert all(find_result(apart, item.work_key) for item in work)
    assert records(copy) == [None, None]


def test_records_that_are_there_are_left(store: Store, copy: Store) -> None:
    dataset = Dataset.open(store)
    lost = [cell.object_id for cell in dataset.manifest.of_layer("boxes")]
    for object_id in lost:
        store.remove(layout.object_path(object_id))  # nothing has to be read
    record_known_masks(dataset, plan_label(dataset, "box", _BOX), identity=_BOX, version=VERSION)
    assert None not in records(store)


def test_damage_is_told(copy: Store) -> None:
    for cell in Dataset.open(copy).manifest.of_layer("boxes"):
        copy.remove(layout.object_path(cell.object_id))
    with pytest.raises(ObjectMissingError, match="of boxes is missing"):
        label(copy, _CONFIG)
