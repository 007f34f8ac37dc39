"""COCO export: what pycocotools reads is what the store holds, and nothing leaves the folder."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from pycocotools.coco import COCO

from manifests import rle, schemas
from manifests.commit import Category
from manifests.dataset import Dataset
from manifests.errors import RefError
from manifests.export import export
from manifests.export_plan import ExportOptions

WIDE = (30, 50)


def ring(size_hw: tuple[int, int] = WIDE) -> np.ndarray:
    """A mask with a hole and a part of its own."""
    mask = np.zeros(size_hw, dtype=np.uint8)
    mask[4:20, 6:30] = 1
    mask[8:14, 10:18] = 0
    mask[22:25, 33:41] = 1
    return mask


def run(dataset: Dataset, target: Path | str, **options: Any) -> dict[str, Any]:
    export(dataset, str(target), format="coco", options=ExportOptions(**options), ref="main")
    with fsspec.open(f"{target}/instances.json") as file:
        return json.load(file)


def coco_of(path: Path) -> COCO:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def a_dataset(builder: Any) -> Dataset:
    """Two shards: plain, crowd, group-of, dropped, quarantined, and an image without boxes."""
    builder.image("photos/a.jpg", size_hw=WIDE, source_image_id="41")
    builder.box("shoe", (6, 4, 41, 25), mask=ring(), score=0.5, flags=["occluded"])
    builder.box("hat", (0, 0, 5, 5), keep=False, reason="low_confidence")
    builder.box("shoe", (1.5, 2.25, 9.5, 7), teacher=None, keep=False, is_crowd=True)
    builder.image("photos/empty.jpg", source_image_id="42")
    builder.shard()
    builder.image("photos/b.jpg", size_hw=(40, 16), source_image_id="43")
    builder.box("hat", (2, 3, 9, 30), source_annotation_id="11")
    human = np.zeros((40, 16), dtype=np.uint8)
    human[5:9, 2:4] = 1
    builder.box(
        "hat",
        (0, 0, 16, 20),
        teacher=None,
        keep=False,
        is_group_of=True,
        layers={schemas.MASKS_HUMAN: _row(human)},
        source_annotation_id="12",
    )
    builder.image("photos/dark.jpg", source_image_id="44", quarantine="too_dark")
    builder.box("hat", (1, 1, 9, 9), source_annotation_id="13")
    builder.shard()
    return builder.commit(
        (
            Category(name="shoe", supercategory="wear", source_ids={"shop": "90"}),
            Category(name="hat", source_ids={"shop": "7"}),
        )
    )


def _row(mask: np.ndarray) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schemas.MASKS_SCHEMA.names)
    height, width = mask.shape
    shown = {"status": "ok", "height": height, "width": width, "candidates": []}
    return row | shown | {"counts": rle.encode(mask), "area_px": int(mask.sum())}


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_the_masks_of_the_store(
    builder: Any, tmp_path: Path, polygons: bool
) -> None:
    dataset = a_dataset(builder)
    run(dataset, tmp_path / "out", polygons=polygons)
    coco = coco_of(tmp_path / "out" / "instances.json")
    plain = coco.loadAnns(coco.getAnnIds(iscrowd=False))
    assert [entry["image_id"] for entry in plain] == [41, 43]
    assert (coco.annToMask(plain[0]) == ring()).all()
    assert coco.annToMask(plain[1]).shape == (40, 16)
    assert coco.annToMask(plain[1]).sum() == 7 * 27 == plain[1]["area"]
    assert isinstance(plain[0]["segmentation"], list) == polygons


def test_every_field_survives(builder: Any, tmp_path: Path) -> None:
    first = run(a_dataset(builder), tmp_path / "out")["annotations"][0]
    assert first.pop("maskmill_annotation_id")
    assert first.pop("segmentation")["size"] == [30, 50]
    assert first == {
        "id": 1,
        "image_id": 41,
        "category_id": 90,
        "iscrowd": 0,
        "bbox": [6, 4, 35, 21],
        "area": int(ring().sum()),
        "score": 0.875,
        "box_score": 0.5,
        "teacher": "mobile_sam",
        "flags": ["occluded"],
        "source": "shop",
        "source_annotation_id": "1",
    }


def test_crowd_and_group_of_survive(builder: Any, tmp_path: Path) -> None:
    run(a_dataset(builder), tmp_path / "out", polygons=True)
    coco = coco_of(tmp_path / "out" / "instances.json")
    crowd, group = coco.loadAnns(coco.getAnnIds(iscrowd=True))
    assert set(crowd["segmentation"]) == {"size", "counts"}  # COCO has crowds as RLE only
    assert crowd["bbox"] == [1.5, 2.25, 8, 4.75]
    expected = np.zeros(WIDE, dtype=np.uint8)
    expected[2:7, 1:10] = 1  # every pixel that the box touches
    assert (coco.annToMask(crowd) == expected).all()
    assert crowd["area"] == expected.sum()
    assert "teacher" not in crowd
    assert "is_group_of" not in crowd
    assert group["is_group_of"] is True
    assert group["teacher"] == "human"
    assert coco.annToMask(group).sum() == 8


def test_summary_accounts_for_every_image_and_box(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    summary = export(dataset, str(tmp_path / "out"), format="coco")
    assert (summary.num_images, summary.num_quarantined_images) == (3, 1)
    assert summary.num_annotations == 4
    assert summary.num_skipped == {"image_quarantined": 1, "low_confidence": 1}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert summary.num_files == len(files) == 2
    assert summary.num_bytes == sum(path.stat().st_size for path in files)


def test_quarantined_images_on_request(builder: Any, tmp_path: Path) -> None:
    data = run(a_dataset(builder), tmp_path / "out", include_quarantined=True)
    assert data["images"][-1]["quarantine"] == "too_dark"
    assert len(data["annotations"]) == 5


def test_same_commit_same_bytes(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    for name in ("one", "two"):
        run(dataset, tmp_path / name, images=True)
    one, two = (_files(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert len(one) == 5


def _files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_info_names_the_commit_and_no_clock(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    info = run(dataset, tmp_path / "out")["info"]
    assert info["maskmill_commit"] == dataset.commit_id
    assert info["maskmill_ref"] == "main"
    assert info["date_created"] == dataset.commit.time


def test_ids_count_from_1_where_sources_mix(builder: Any, tmp_path: Path) -> None:
    for source in ("left", "right"):
        builder.image("a.jpg", source=source, source_image_id="5")
        builder.box("hat", (1, 1, 9, 9), source_annotation_id="5")
        builder.shard()
    categories = (Category(name="hat", source_ids={"left": "3", "right": "4"}),)
    data = run(builder.commit(categories), tmp_path / "out", images=True)
    assert [image["id"] for image in data["images"]] == [1, 2]
    assert [image["file_name"] for image in data["images"]] == ["left/a.jpg", "right/a.jpg"]
    assert [image["original_file_name"] for image in data["images"]] == ["a.jpg", "a.jpg"]
    assert [entry["id"] for entry in data["annotations"]] == [1, 2]
    assert [entry["image_id"] for entry in data["annotations"]] == [1, 2]
    assert data["categories"][0]["id"] == 1
    assert (tmp_path / "out/images/left/a.jpg").is_file()
    assert (tmp_path / "out/images/right/a.jpg").is_file()


def test_different_ids_of_two_sources_are_no_ids_of_one(builder: Any, tmp_path: Path) -> None:
    for source, number in (("left", "7"), ("right", "8")):
        builder.image("a.jpg", source=source, source_image_id=number)
        builder.box("hat", (1, 1, 9, 9), source_annotation_id=number)
    builder.shard()
    data = run(builder.commit(), tmp_path / "out")
    assert [image["id"] for image in data["images"]] == [1, 2]
    assert [image["source_image_id"] for image in data["images"]] == ["7", "8"]
    assert [entry["id"] for entry in data["annotations"]] == [1, 2]


@pytest.mark.parametrize("odd", ["0", "-3", "x7", "007", "5", "9" * 30, "²"])
def test_odd_source_ids_are_replaced_all_or_none(builder: Any, tmp_path: Path, odd: str) -> None:
    builder.image("a.jpg", source_image_id="5")
    builder.image("b.jpg", source_image_id=odd)
    builder.shard()
    data = run(builder.commit(), tmp_path / "out")
    assert [image["id"] for image in data["images"]] == [1, 2]


def test_federated_flags_keep_lvis_names(builder: Any, tmp_path: Path) -> None:
    builder.image("a.jpg", not_exhaustive=["hat"], negative=["tie", "shoe"])
    builder.shard()
    data = run(builder.commit((Category(name="hat"), Category(name="shoe"))), tmp_path / "out")
    assert [c["name"] for c in data["categories"]] == ["hat", "shoe", "tie"]
    assert data["images"][0]["not_exhaustive_category_ids"] == [1]
    assert data["images"][0]["neg_category_ids"] == [2, 3]


def test_empty_dataset_loads(builder: Any, tmp_path: Path) -> None:
    data = run(builder.commit(), tmp_path / "out")
    assert data["images"] == data["annotations"] == data["categories"] == []
    assert not coco_of(tmp_path / "out" / "instances.json").imgs


def test_layer_is_exported_without_verdicts(builder: Any, tmp_path: Path) -> None:
    builder.image("a.jpg")
    builder.box("hat", (1, 1, 9, 9), keep=False)
    builder.shard(verdicts=False)
    dataset = builder.commit()
    assert len(run(dataset, tmp_path / "out", layer="masks/mobile_sam")["annotations"]) == 1
    with pytest.raises(RefError, match=r"run 'maskmill filter' first.*masks/mobile_sam"):
        run(dataset, tmp_path / "none")
    assert not (tmp_path / "none").exists()
