"""The demo set: what is written, what is bad in it on purpose, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from engine import demo
from engine.demo import DemoSet, build_demo_set
from engine.demo_boxes import ASTRONAUT, DEMO_IMAGES
from engine.ingest_config import ImagePolicy
from engine.measure import measure
from manifests.errors import InputError

OUTSIDE = "launch_pad.jpg"
TRUNCATED = "pagoda_truncated.jpg"
TURNED = "launch_phone.jpg"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    """The set in a fresh folder."""
    return build_demo_set(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def instances(built: DemoSet) -> dict[str, Any]:
    """Its COCO file."""
    return json.loads(built.annotations.read_text(encoding="utf-8"))


def displayed(path: Path) -> np.ndarray:
    """[H, W, 3] as a viewer shows it. Raises OSError if it cannot be decoded."""
    with Image.open(path) as photo:
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))


def test_is_coco_with_every_reference_resolved(built: DemoSet, instances: dict[str, Any]) -> None:
    images = {image["id"]: image for image in instances["images"]}
    categories = {category["id"] for category in instances["categories"]}
    licences = {licence["id"] for licence in instances["licenses"]}
    annotations = instances["annotations"]
    assert len(images) == built.num_images == len(list(built.images.iterdir()))
    assert len({a["id"] for a in annotations}) == len(annotations) == built.num_boxes
    assert {a["image_id"] for a in annotations} == set(images)
    assert {a["category_id"] for a in annotations} == categories
    assert {image["license"] for image in images.values()} == licences
    assert all(image["credit"] for image in images.values())


def test_sizes_are_those_of_the_displayed_pictures(
    built: DemoSet, instances: dict[str, Any]
) -> None:
    for image in instances["images"]:
        with Image.open(built.images / image["file_name"]) as photo:
            turned = photo.getexif().get(ExifTags.Base.Orientation) == 6
            size = photo.size[::-1] if turned else photo.size
        assert size == (image["width"], image["height"]), image["file_name"]


def test_boxes_lie_inside_but_for_the_one_that_should_not(instances: dict[str, Any]) -> None:
    images = {image["id"]: image for image in instances["images"]}
    outside = []
    for annotation in instances["annotations"]:
        image = images[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        assert width > 0
        assert height > 0
        if x < 0 or y < 0 or x + width > image["width"] or y + height > image["height"]:
            outside.append(image["file_name"])
    assert outside == [OUTSIDE]
    assert sum(annotation["iscrowd"] for annotation in instances["annotations"]) == 1


def test_same_bytes_each_time(built: DemoSet, tmp_path: Path) -> None:
    again = build_demo_set(tmp_path / "a" / "b")
    build_demo_set(tmp_path / "a" / "b")
    assert again.annotations.read_bytes() == built.annotations.read_bytes()
    for path in built.images.iterdir():
        assert (again.images / path.name).read_bytes() == path.read_bytes(), path.name


def test_bad_pictures_are_bad_in_the_way_they_should_be(built: DemoSet) -> None:
    quarantined, broken = {}, []
    for path in sorted(built.images.iterdir()):
        try:
            rgb = displayed(path)
        except OSError:
            broken.append(path.name)
            continue
        if reason := ImagePolicy().quarantine((rgb.shape[0], rgb.shape[1]), measure(rgb)):
            quarantined[path.name] = reason
    assert broken == [TRUNCATED]
    assert quarantined == {
        "astronaut_out_of_focus.jpg": "blurry",
        "coffee_in_the_dark.jpg": "too_dark",
    }


def test_the_turned_picture_is_turned_by_its_tag_alone(built: DemoSet) -> None:
    entry = next(image for image in DEMO_IMAGES if image.file_name == TURNED)
    with Image.open(built.images / TURNED) as stored:
        assert stored.size == entry.size_hw
        assert stored.getexif()[ExifTags.Base.Orientation] == 6
    with Image.open(built.images / OUTSIDE) as photo:
        original = np.asarray(photo.crop(entry.crop_xyxy), dtype=np.int16)
    assert abs(displayed(built.images / TURNED) - original).mean() < 3


def test_one_picture_is_there_twice(built: DemoSet) -> None:
    files = [path.read_bytes() for path in built.images.iterdir()]
    assert len(set(files)) == len(files) - 1
    first, again = (built.images / name for name in ("cat.png", "cat_again.png"))
    assert first.read_bytes() == again.read_bytes()


def test_says_what_to_install() -> None:
    photo = replace(ASTRONAUT, package="not_installed")
    with pytest.raises(InputError, match="run 'pip install not_installed'"):
        demo._read_photo(photo)


def test_says_which_photo_is_missing() -> None:
    photo = replace(ASTRONAUT, member="data/nobody.png")
    with pytest.raises(InputError, match=r"scikit-image lacks the demo photo data/nobody\.png"):
        demo._read_photo(photo)


def test_says_which_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written to .*file"):
        build_demo_set(tmp_path / "file")


def test_every_derivation_is_used() -> None:
    assert {image.derivation for image in DEMO_IMAGES} == set(demo._DERIVE)
