"""Which images a student saw, from what its checkpoint says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manifests.dataset import Dataset
from manifests.schemas import IMAGE_INDEX
from manifests.store import Store
from student.checkpoint import DataVersion, Student
from student.config import SourceConfig
from student.evaluation.taught_images import taught_images
from tests.student.evaluation.colours import Album, ColourSegmenter, student_that_sees

_BOX = ("red", 8, 16, 40, 60)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Seven images, the fourth of them of the source quarantined."""
    album = Album(tmp_path / "album")
    for _ in range(7):
        album.add(_BOX)
    album.document["images"][3] |= {"file_name": "dark.png"}
    return album.ingested(str(tmp_path / "store"))


def _student(*data: tuple[str, str], mix: tuple[SourceConfig, ...] = ()) -> Student:
    student = student_that_sees(ColourSegmenter())
    config = replace(student.config, data=replace(student.config.data, mix=mix))
    versions = tuple(DataVersion(store=store, commit=commit) for store, commit in data)
    return replace(student, config=config, data=versions)


def _usable(dataset: Dataset) -> list[str]:
    return [
        row["image_id"]
        for shard in dataset.manifest.shards()
        for row in dataset.table(shard, IMAGE_INDEX).to_pylist()
        if row["quarantine"] is None
    ]


def test_without_a_mix_all_images_count(dataset: Dataset) -> None:
    student = _student((dataset.store.url, dataset.commit_id))
    assert taught_images(student, dataset.store) == set(_usable(dataset))


def test_a_part_is_counted_as_training_counts_it(dataset: Dataset) -> None:
    mix = (SourceConfig(ref="main", skip_images=1, max_images=3),)
    home = (dataset.store.url, "0" * 64)  # replaced by the mix, and not even there
    student = _student(home, (dataset.store.url, dataset.commit_id), mix=mix)
    assert taught_images(student, dataset.store) == set(_usable(dataset)[1:4])


def test_a_ref_that_the_mix_replaces_does_not_count(dataset: Dataset) -> None:
    """And one that is in the mix does, whatever it is called there."""
    gone, here = (dataset.store.url, "0" * 64), (dataset.store.url, dataset.commit_id)
    other = (str(dataset.store.url) + "/", dataset.commit_id)  # the same place, named otherwise
    mix = (SourceConfig(ref="a"), SourceConfig(ref="b"))
    assert taught_images(_student(gone, here, other, mix=mix), dataset.store) == set(
        _usable(dataset)
    )
    assert taught_images(_student(gone, here, mix=mix), dataset.store) is None


def test_data_in_another_store_are_opened(dataset: Dataset, tmp_path: Path) -> None:
    elsewhere = Store(str(tmp_path / "elsewhere"))
    student = _student((dataset.store.url, dataset.commit_id))
    assert taught_images(student, elsewhere) == set(_usable(dataset))


def test_data_that_are_gone_leave_the_question_open(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    student = _student((dataset.store.url + "-gone", dataset.commit_id))
    assert taught_images(student, dataset.store) is None
    assert "cannot tell which images" in caplog.text
