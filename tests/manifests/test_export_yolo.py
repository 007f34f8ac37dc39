"""YOLO export: labels lie where trainers look for them, and one ring holds the whole mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask

from manifests.commit import Category
from manifests.dataset import Dataset
from manifests.export import export

SIZE = (23, 41)


def mask_with_hole_and_parts() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[2:15, 3:20] = 1
    mask[5:9, 6:12] = 0
    mask[18:21, 30:37] = 1
    mask[0, 40] = 1
    return mask


def a_dataset(builder: Any) -> Dataset:
    builder.image("train/images/a.jpg", size_hw=SIZE)
    builder.box("shoe: 'left'", (3, 0, 41, 21), mask=mask_with_hole_and_parts())
    builder.box("hat", (0, 0, 9, 9), keep=False, reason="low_confidence")
    builder.box("hat", (0, 0, 9, 9), teacher=None, keep=False, is_crowd=True)
    builder.box("hat", (0, 0, 9, 9), teacher=None, keep=False, is_group_of=True)
    builder.box("hat", (0, 0, 9, 9), mask=np.zeros(SIZE, dtype=np.uint8))
    builder.image("b.jpg", size_hw=(40, 16))
    builder.shard()
    builder.image("c.png", size_hw=(30, 10), image_format="png")
    builder.box("hat", (1, 2, 9, 28))
    builder.image("dark.jpg", quarantine="too_dark")
    builder.shard()
    return builder.commit((Category(name="hat"), Category(name="shoe: 'left'")))


def rasterised(line: str, size_hw: tuple[int, int]) -> np.ndarray:
    relative = np.array(line.split()[1:], dtype=float).reshape(-1, 2)
    ring = (relative * [size_hw[1], size_hw[0]]).ravel().tolist()
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring], *size_hw)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A target beside the store."""
    return tmp_path / "out"


def labels_of(folder: Path) -> dict[str, list[str]]:
    files = sorted((folder / "labels" / "train").iterdir())
    return {path.name: path.read_text().splitlines() for path in files}


def test_one_line_holds_holes_and_parts(builder: Any, out: Path) -> None:
    export(a_dataset(builder), str(out), format="yolo")
    labels = labels_of(out)
    assert {name: len(lines) for name, lines in labels.items()} == {
        "b.txt": 0,
        "c.txt": 1,
        "train__images__a.txt": 1,
    }
    (line,) = labels["train__images__a.txt"]
    assert line.startswith("1 ")
    assert (rasterised(line, SIZE) == mask_with_hole_and_parts()).all()
    assert rasterised(labels["c.txt"][0], (30, 10)).sum() == 8 * 26
    assert max(float(word) for word in line.split()[1:]) <= 1
    assert all(len(word.split(".")[1]) == 6 for word in line.split()[1:])


def test_labels_lie_where_trainers_look(builder: Any, out: Path) -> None:
    export(a_dataset(builder), str(out), format="yolo")
    images = sorted(path for path in (out / "images").rglob("*") if path.is_file())
    assert len(images) == 3
    for image in images:
        # The rule that trainers use: the last /images/ becomes /labels/, any suffix .txt.
        head, tail = str(image).rsplit("/images/", 1)
        assert Path(f"{head}/labels/{tail}").with_suffix(".txt").is_file()


def test_summary_counts_what_yolo_cannot_say(builder: Any, out: Path) -> None:
    summary = export(a_dataset(builder), str(out), format="yolo")
    assert summary.num_skipped == {
        "crowd": 1,
        "empty_mask": 1,
        "group_of": 1,
        "low_confidence": 1,
    }
    assert summary.num_annotations == 2
    assert (summary.num_images, summary.num_quarantined_images) == (3, 1)


def test_data_yaml_is_yaml(builder: Any, out: Path) -> None:
    export(a_dataset(builder), str(out), format="yolo", ref="main")
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert data["names"] == {0: "hat", 1: "shoe: 'left'"}
    assert data["nc"] == 2
    assert (out / data["train"]).is_dir()


def test_images_whose_stems_clash_get_labels_of_their_own(builder: Any, out: Path) -> None:
    builder.image("a.jpg")
    builder.image("a.png", image_format="png")
    builder.image("A.jpg", source="other")
    builder.shard()
    export(builder.commit(), str(out), format="yolo")
    assert len(labels_of(out)) == 3
    assert len(list((out / "images/train").iterdir())) == 3


def test_empty_dataset(builder: Any, out: Path) -> None:
    summary = export(builder.commit(), str(out), format="yolo")
    assert (summary.num_images, summary.num_annotations) == (0, 0)
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {}


def test_same_commit_same_bytes(builder: Any, out: Path) -> None:
    dataset = a_dataset(builder)
    folders = [out / "one", out / "two"]
    for folder in folders:
        export(dataset, str(folder), format="yolo")
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders
    )
    assert one == two
    assert len(one) == 8
