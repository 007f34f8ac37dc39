"""Merges, reverts and takedowns come out the same when they are made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.ingest import ingest
from engine.reproduce import reproduce
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.find_images import Wanted, find_images
from manifests.gc import GcOptions, collect_garbage
from manifests.merge import create_branch, merge_into, revert
from manifests.store import Store
from manifests.takedown import take_down
from tests.engine.conftest import PhotoSet, jpeg, make_photo


@pytest.fixture
def merged(store: Store, photos: PhotoSet, more_photos: PhotoSet) -> Store:
    """Two branches with a picture in common, merged into main."""
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 40, 40])
    photos.add("b.jpg", [1, 2, 30, 30])
    more_photos.add("c.jpg", [4, 4, 30, 20], content=jpeg(make_photo(77)))
    more_photos.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
    create_branch(store, "side", "main")
    ingest(store, photos.config("one"))
    ingest(store, replace(more_photos.config("two"), branch="side"))
    merge_into(store, "main", "side")
    return store


def test_merge(merged: Store) -> None:
    assert reproduce(merged, "main").is_same


def test_revert(merged: Store) -> None:
    revert(merged, "main", "main")
    assert reproduce(merged, "main").is_same


def test_takedown_after_its_images_are_gone(merged: Store) -> None:
    found = find_images(Dataset.open(merged), Wanted(file_names=("b.jpg",)))
    take_down(merged, "main", found, reason="asked")
    assert collect_garbage(merged, GcOptions(grace_s=0)).num_taken_down == 1
    assert reproduce(merged, "main").is_same


def test_a_configuration_that_lacks_something(merged: Store) -> None:
    from engine.remake_history import remake_merge, remake_revert, remake_takedown

    start = Dataset.open(merged)
    for remake in (remake_merge, remake_revert):
        with pytest.raises(InputError, match=r"commit x: expected '\w+' in its configuration"):
            remake(start, {}, "commit x")
    with pytest.raises(InputError, match="expected 'reason'"):
        remake_takedown(start, {}, start.commit, "commit x")
