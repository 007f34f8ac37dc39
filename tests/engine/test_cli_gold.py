"""`maskmill gold`: photos go out, masks come back, and what is said about it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from manifests import rle
from manifests.dataset import Dataset
from manifests.store import Store
from tests.command_line import Maskmill
from tests.engine.confidence.drawing import drawn, human_rows, read, save
from tests.engine.conftest import PhotoSet


@pytest.fixture
def ready(maskmill: Maskmill, photos: PhotoSet) -> Maskmill:
    """Four photos with two boxes each, drawn by a teacher."""
    for number in range(4):
        photos.add(f"{number}.jpg", [10, 5, 20, 30], [40, 10, 20, 20])
    photos.config()
    maskmill("init")
    maskmill("ingest", "coco", photos.folder / "boxes.json", photos.images, "--inline")
    maskmill("label", "box", "--inline")
    return maskmill


def test_there_and_back_for_people(ready: Maskmill, tmp_path: Path) -> None:
    out = tmp_path / "out"
    went = ready("gold", "propose", out, "--count", 3)
    assert went.code == 0
    assert "wrote 3 images" in went.out
    assert "with 6 boxes, of which 6 have a mask to correct" in went.out
    assert "there is no confidence layer" in went.err
    answers = save(drawn(read(out)), tmp_path / "answers.json")
    came = ready("gold", "import", answers)
    assert came.code == 0
    assert "3 images were answered: 6 boxes got their first human mask" in came.out
    assert "masks/human" in came.out
    again = ready("gold", "import", answers)
    assert again.code == 0
    assert "nothing changed" in again.err
    rest = ready("gold", "propose", tmp_path / "rest")
    assert "only 1 images are left to propose, 50 were asked for" in rest.err


def test_there_and_back_in_json(ready: Maskmill, tmp_path: Path) -> None:
    out = tmp_path / "out"
    went = ready("gold", "propose", out, "--count", 2, "--certify", 0, "--json").json
    assert went["num_images"] == 2
    assert went["has_confidence"] is False
    assert [row["image_id"] for row in went["images"]] == sorted(
        path.stem for path in (out / "images").iterdir()
    )
    proposal = read(out)
    proposal["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 35, 10, 30]]
    answers = save(proposal, tmp_path / "answers.json")
    came = ready("gold", "import", answers, "--json", "--message", "round 1")
    assert came.json["is_new"] is True
    assert came.json["not_used"] == {"unchanged": 2}
    assert "2 masks were not used" in came.err
    assert {row["layer"]: row["kept"] for row in came.json["ledger"]} == {
        "answers": 2, "masks/human": 2,
    }  # fmt: skip
    again = ready("gold", "import", answers, "--json")
    assert again.json == {"commit_id": came.json["commit_id"], "is_new": False}
    assert ready("log", "--limit", "1", "--json").json[0]["message"] == "round 1"
    taken = ready("gold", "import", answers, "--accept-unchanged", "--json").json
    assert (taken["num_new"], taken["num_replaced"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["propose", "{out}", "--count", "0"], "count: expected at least 1"),
        (["propose", "{out}", "--certify", "99"], "certify: expected from 0 to the 50 images"),
        (["propose", "{out}", "--format", "voc"], "format 'voc': expected one of coco"),
        (["propose", "{photos}"], "is not empty"),
        (["propose", "{out}", "--ref", "nope"], "nope"),
        (["import", "{photos}/none.json"], "no file at"),
        (["import", "{photos}/boxes.json"], "none of its 4 drawn images|can be used"),
        (["import", "{photos}/boxes.json", "--min-box-iou", "0"], "min_box_iou: expected above 0"),
    ],
)
def test_refusals_are_one_sentence(
    ready: Maskmill, photos: PhotoSet, tmp_path: Path, arguments: list[str], message: str
) -> None:
    import re

    words = [word.format(out=tmp_path / "out", photos=photos.folder) for word in arguments]
    answer = ready("gold", *words)
    assert answer.code in (3, 5)
    assert re.search(message, answer.err)
    assert answer.err.count("\n") == 1
    assert ready("gold", *words, "--json").json["error"]["exit_code"] == answer.code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["propose", "import"])
def test_help_has_examples(maskmill: Maskmill, command: str) -> None:
    answer = maskmill("gold", command, "--help")
    assert f"maskmill gold {command}" in answer.out
    assert "--json" in answer.out


@pytest.fixture
def balloons(tmp_path: Path) -> Path:
    """A few real photos: boxes.json to be ingested, masks.json to be drawn from."""
    default = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("MASKMILL_SHARED", default)) / "data" / "balloon_dev"
    if not folder.is_dir():
        pytest.skip(f"no development photos at {folder}: set MASKMILL_SHARED")
    for name in ("boxes", "masks"):
        document = json.loads((folder / f"{name}.json").read_text())
        document["images"] = document["images"][:6]
        ids = {image["id"] for image in document["images"]}
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "photos").symlink_to(folder / "images")
    return tmp_path


@pytest.mark.shared_data
def test_true_masks_of_real_photos_come_home(
    maskmill: Maskmill, balloons: Path, tmp_path: Path
) -> None:
    """People draw just what the photos' true masks say; those of `ingest` are the same bytes."""
    maskmill("init")
    ingested = maskmill(
        "ingest", "coco", balloons / "boxes.json", balloons / "photos", "--inline", "--json"
    )
    assert ingested.code == 0
    assert maskmill("gold", "propose", tmp_path / "out", "--json").json["num_images"] == 6
    rows = {
        row["image_id"]: row for row in json.loads((tmp_path / "out/proposal.json").read_text())
    }
    truth = json.loads((balloons / "masks.json").read_text())
    ids = {Path(image["file_name"]).name: image["id"] for image in truth["images"]}
    masks: dict[Any, list[Any]] = {}
    for entry in truth["annotations"]:
        masks.setdefault(entry["image_id"], []).append(entry["segmentation"])
    answers = read(tmp_path / "out")
    answers["annotations"] = []
    for image in answers["images"]:
        name = rows[Path(image["file_name"]).stem]["original_file_name"]
        for segmentation in masks[ids[Path(name).name]][::-1]:
            number = len(answers["annotations"]) + 1
            answers["annotations"].append(
                {"id": number, "image_id": image["id"], "category_id": 1, "iscrowd": 0,
                 "segmentation": segmentation}
            )  # fmt: skip
    came = maskmill("gold", "import", save(answers, tmp_path / "answers.json"), "--json").json
    assert came["not_used"] == {}
    dataset = Dataset.open(Store(str(tmp_path / "store")))
    wanted = {str(entry["id"]): entry["segmentation"] for entry in truth["annotations"]}
    found = human_rows(dataset)
    assert len(found) == len(wanted) == came["num_new"]
    for row in found:
        segmentation = wanted[row["source_annotation_id"]]
        size_hw = row["height"], row["width"]
        assert row["counts"] == rle.from_segmentation(segmentation, size_hw=size_hw)
