"""What a review of ingest found: files that never end, failures that were kept for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.fingerprint import FingerprintWorker, plan_fingerprints
from engine.image_root import ImageRoot
from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.label import LabelConfig
from engine.sources.protocol import SourceConfig
from manifests.cells import read_table
from manifests.dataset import Dataset
from manifests.errors import InputError, NothingToCommitError
from manifests.results import find_result
from manifests.store import Store
from tests.engine.conftest import INLINE, PhotoSet

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


def test_federated_lists_of_every_origin_are_kept(
    ingested: Ingest, photos: PhotoSet, more_photos: PhotoSet, make_jpeg: Callable[..., bytes],
    make_image: Callable[..., object],
) -> None:  # fmt: skip
    """A picture that two entries, or two sources, have: what either leaves open stays open."""
    photos.document["categories"] = [{"id": 7, "name": "shoe"}, {"id": 8, "name": "bag"}]
    same = make_jpeg(make_image(1))
    photos.add("a.jpg", [5, 5, 20, 20], content=same, not_exhaustive_category_ids=[8])
    photos.add("b.jpg", content=same, neg_category_ids=[8])
    more_photos.add("c.jpg", content=same, not_exhaustive_category_ids=[7])
    for photo_set, name, expected in (
        (photos, "set", (["bag"], ["bag"])),
        (more_photos, "more", (["bag", "shoe"], ["bag"])),
    ):
        dataset = ingested(photo_set, name=name)
        (shard,) = dataset.manifest.shards()
        (row,) = dataset.table(shard, "image_index").to_pylist()
        assert (row["not_exhaustive"], row["negative"]) == expected


def test_a_quote_in_the_path_of_temporary_files(
    ingested: Ingest, photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "o'brien"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    photos.add("a.jpg", [5, 5, 20, 20])
    assert ingested(photos).manifest.shards()


@pytest.mark.parametrize("field", ["annotations", "images", "option"])
def test_a_password_in_an_address_is_refused_before_a_commit_has_it(field: str) -> None:
    secret = "s3://key:hush@bucket/set"
    addresses = {name: secret if name == field else "x" for name in ("annotations", "images")}
    options = {"classes": secret} if field == "option" else {}
    with pytest.raises(InputError, match="holds a password") as caught:
        SourceConfig(format="open_images", name="set", options=options, **addresses)
    assert "hush" not in str(caught.value)


def test_a_file_name_that_is_not_utf8_is_counted(store: Store, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with open(os.fsencode(tmp_path) + b"/images/a\xff.jpg", "wb") as file:
        file.write(b"x")
    (tmp_path / "boxes.csv").write_text("file_name,label,x0,y0,x1,y1\n")
    source = SourceConfig(
        format="csv", name="set", annotations=str(tmp_path / "boxes.csv"),
        images=str(tmp_path / "images"),
    )  # fmt: skip
    commit_id = ingest(store, IngestConfig(source=source, pool=INLINE))
    assert failures(Dataset(store, commit_id)) == {"missing_file": 1}


def test_a_pipe_in_place_of_a_label_file_does_not_hang(store: Store, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("shoe\n")
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "labels" / "a.txt")
    source = SourceConfig(
        format="yolo", name="set", annotations=str(tmp_path), images=str(tmp_path)
    )
    commit_id = ingest(store, IngestConfig(source=source, pool=INLINE))
    assert failures(Dataset(store, commit_id)) == {"malformed_annotation_file": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImagePolicy(min_sharpness=float("nan")), "min_sharpness: expected a number"),
        (lambda: ImagePolicy(max_pixels=-1), "max_pixels: expected a number"),
        (lambda: LabelConfig(teacher="box", image_batch=0), "image_batch: expected at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_relative_image_root_is_the_same_folder_for_every_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ImageRoot("photos").url == str(tmp_path / "photos")
    assert ImageRoot("s3://bucket/photos").url == "s3://bucket/photos"


def test_failures_of_a_source_that_adds_nothing_are_told_once(
    store: Store, ingested: Ingest, photos: PhotoSet, more_photos: PhotoSet
) -> None:
    photos.add("a.jpg", [5, 5, 20, 20])
    ingested(photos)
    more_photos.add("a.jpg", [5, 5, 20, 20])
    more_photos.add("gone.jpg", [5, 5, 20, 20], content=b"")
    assert failures(ingested(more_photos)) == {"missing_file": 1}
    with pytest.raises(NothingToCommitError):
        ingest(store, more_photos.config())


def test_a_file_is_no_image_root(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text("{}")
    with pytest.raises(InputError, match="no such folder"):
        ImageRoot(str(tmp_path / "boxes.json")).check()
