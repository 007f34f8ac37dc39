"""WebDataset export: the library reads it, images are the stored bytes, tars are deterministic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import webdataset
from pycocotools import mask as coco_mask

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export import export
from manifests.export_plan import ExportOptions
from manifests.schemas import IMAGE_INDEX

SIZE = (23, 41)


def a_dataset(builder: Any, *, num_images: int = 5) -> Dataset:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[2:15, 3:20] = 1
    for number in range(num_images):
        is_png = number % 2 == 1
        builder.image(f"{number}.jpg", size_hw=SIZE, image_format="png" if is_png else "jpeg")
        if number == 0:
            builder.box("shoe", (3, 2, 20, 15), mask=mask)
            builder.box("hat", (0, 0, 9, 9), teacher=None, keep=False, is_crowd=True)
        if number == 2:
            builder.shard()
    builder.image("dark.jpg", quarantine="too_dark")
    builder.box("hat", (0, 0, 9, 9))
    builder.shard()
    return builder.commit()


def samples(folder: Path) -> Iterator[dict[str, Any]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    yield from webdataset.WebDataset(urls, shardshuffle=False)


def test_webdataset_reads_images_and_masks(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    out = tmp_path / "out"
    summary = export(dataset, str(out), format="webdataset")
    read = list(samples(out))
    rows = [
        row for s in dataset.manifest.shards() for row in dataset.table(s, IMAGE_INDEX).to_pylist()
    ]
    rows = [row for row in rows if not row["quarantine"]]
    assert [sample["__key__"] for sample in read] == [row["image_id"] for row in rows]
    for sample, row in zip(read, rows, strict=True):
        suffix = {"jpeg": "jpg", "png": "png"}[row["format"]]
        assert len(sample[suffix]) == row["size"]
        assert sample[suffix][:4] in (b"\xff\xd8\xff\xe0", b"\x89PNG")
        assert json.loads(sample["json"])["maskmill_image_id"] == row["image_id"]
    shoe, crowd = json.loads(read[0]["json"])["annotations"]
    assert coco_mask.decode(shoe["segmentation"]).sum() == 13 * 17 == shoe["area"]
    assert shoe["segmentation"]["size"] == [23, 41]
    assert (shoe["category"], crowd["category"]) == ("shoe", "hat")
    assert (crowd["iscrowd"], crowd["area"]) == (1, 81)
    assert json.loads(read[1]["json"])["annotations"] == []
    assert (summary.num_images, summary.num_annotations) == (5, 2)
    assert summary.num_skipped == {"image_quarantined": 1}
    categories = json.loads((out / "categories.json").read_text())
    assert {entry["name"]: entry["id"] for entry in categories} == {"hat": 1, "shoe": 2}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"max_tar_images": 2}, [2, 2, 1]), ({"max_tar_bytes": 1}, [1] * 5), ({}, [5])],
)
def test_tars_are_cut_at_the_limits(
    builder: Any, tmp_path: Path, limits: dict[str, int], expected: list[int]
) -> None:
    dataset = a_dataset(builder)
    export(dataset, str(tmp_path / "out"), format="webdataset", options=ExportOptions(**limits))
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in tars] == [f"{n:06d}.tar" for n in range(len(expected))]
    counts = [len(list(webdataset.WebDataset(str(path), shardshuffle=False))) for path in tars]
    assert counts == expected


def test_overwriting_leaves_no_tar_of_the_older_export(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    for target in (str(tmp_path / "out"), f"memory://{tmp_path.name}-wds"):
        for limit in (1, 10):
            options = ExportOptions(max_tar_images=limit, overwrite=True)
            export(dataset, target, format="webdataset", options=options)
        files, root = fsspec.core.url_to_fs(target)
        assert len(files.glob(f"{root}/*.tar")) == 1


def test_same_commit_same_bytes_here_and_far(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    urls = [str(tmp_path / "one"), str(tmp_path / "two"), f"memory://{tmp_path.name}-same"]
    found = []
    for url in urls:
        export(dataset, url, format="webdataset", options=ExportOptions(max_tar_images=2))
        files, root = fsspec.core.url_to_fs(url)
        found.append({path.rsplit("/", 1)[-1]: files.cat(path) for path in files.find(root)})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5


def test_empty_dataset_has_no_tars(builder: Any, tmp_path: Path) -> None:
    summary = export(builder.commit(), str(tmp_path / "out"), format="webdataset")
    assert (summary.num_images, summary.num_files) == (0, 2)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 byte and 1 image, got 5 and 0"):
        ExportOptions(max_tar_bytes=5, max_tar_images=0)
