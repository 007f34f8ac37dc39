"""What a review of ingest found: files that never end, failures that were kept for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.fingerprint import FingerprintWorker, plan_fingerprints
from engine.image_root import ImageRoot
from manifests.cells import read_table
from manifests.dataset import Dataset
from manifests.results import find_result
from manifests.store import Store
from tests.engine.conftest import PhotoSet

Ingest = Callable[..., Dataset]


def failures(dataset: Dataset) -> dict[str, int]:
    (images,) = [row for row in dataset.commit.ledger.totals() if row.layer == "images"]
    return dict(images.failed)


def test_a_pipe_or_a_folder_in_place_of_an_image_is_a_counted_failure(
    ingested: Ingest, photos: PhotoSet
) -> None:
    photos.add("good.jpg", [5, 5, 20, 20])
    photos.add("pipe.jpg", [5, 5, 20, 20], content=b"")
    photos.add("folder.jpg", [5, 5, 20, 20], content=b"")
    os.mkfifo(photos.images / "pipe.jpg")
    (photos.images / "folder.jpg").mkdir()
    assert failures(ingested(photos)) == {"unreadable_file": 2}


def test_a_failure_to_read_is_not_kept_for_the_next_ingest(store: Store, tmp_path: Path) -> None:
    """A worker that had no access, or no such folder, must not decide for those that have it."""
    (tmp_path / "a.jpg").mkdir()
    (payload,) = plan_fingerprints(ImageRoot(str(tmp_path)), [(0, "a.jpg")])
    record = FingerprintWorker(store).run(payload)
    table = read_table(store, record.cells[0].object_id)
    assert table["failure"].to_pylist() == ["unreadable_file"]
    assert find_result(store, payload.work_key) is None


@pytest.mark.parametrize("is_missing_for_the_driver", [True, False])
def test_a_missing_file_is_final_only_where_the_driver_misses_it_too(
    store: Store, tmp_path: Path, is_missing_for_the_driver: bool
) -> None:
    photo = tmp_path / "a.jpg"
    if not is_missing_for_the_driver:
        photo.write_bytes(b"something")
    (payload,) = plan_fingerprints(ImageRoot(str(tmp_path)), [(0, "a.jpg")])
    photo.unlink(missing_ok=True)
    FingerprintWorker(store).run(payload)
    is_kept = find_result(store, payload.work_key) is not None
    assert is_kept == is_missing_for_the_driver
