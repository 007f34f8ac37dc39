"""YOLO: where images and labels lie, what a line may hold, and nothing opened outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from manifests.errors import InputError, SourceSyntaxError

Write = Callable[..., Path]
Scan = Callable[..., Any]
LINE = "1 .5 .5 .2 .4\n"
YAML = "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
FILES = {
    "data.yaml": YAML,
    "images/train/a.jpg": "",
    "images/train/deep/b.PNG": "",
    "images/val/c.webp": "",
    "images/val/readme.md": "",
    "labels/train/a.txt": LINE,
    "labels/val/c.txt": LINE * 2,
}


def names(found: Any) -> list[str]:
    return [row["file_name"] for row in found.images]


def box_of(found: Any, index: int = 0) -> list[float]:
    return [round(number, 6) for number in found.annotations[index]["box_xyxy"]]


def test_a_data_yaml(scan: Scan, write: Write) -> None:
    folder = write(FILES)
    found = scan("yolo", folder / "data.yaml", folder)
    assert names(found) == ["images/train/a.jpg", "images/train/deep/b.PNG", "images/val/c.webp"]
    assert [row["source_category_id"] for row in found.categories] == ["0", "1"]
    assert [row["name"] for row in found.categories] == ["cat", "dog"]
    assert [row["source_image_id"] for row in found.annotations] == [
        "images/train/a.jpg", "images/val/c.webp", "images/val/c.webp",
    ]  # fmt: skip
    assert box_of(found) == [0.4, 0.3, 0.6, 0.7]
    assert found.annotations[0]["source_category_id"] == "1"
    assert scan("yolo", folder, folder) == found
    assert names(scan("yolo", folder, folder / "images")) == [
        "train/a.jpg", "train/deep/b.PNG", "val/c.webp",
    ]  # fmt: skip


def test_another_filesystem(scan: Scan) -> None:
    memory = fsspec.filesystem("memory")
    for name, text in FILES.items():
        memory.pipe(f"/yolo_set/{name}", text.encode())
    found = scan("yolo", "memory://yolo_set", "memory://yolo_set", split="val")
    assert names(found) == ["images/val/c.webp"]
    assert len(found.annotations) == 2


@pytest.mark.parametrize(
    "train", ["../train/images", "./train/images", "train/images/", "[train/images]", "list.txt"]
)
def test_the_ways_to_name_a_part(scan: Scan, write: Write, train: str) -> None:
    folder = write(
        {
            "data.yaml": f"train: {train}\nnames: [cat, dog]\n",
            "list.txt": "./train/images/a.jpg\n\n",
            "train/images/a.jpg": "",
            "train/labels/a.txt": LINE,
        }
    )
    found = scan("yolo", folder, folder)
    assert names(found) == ["train/images/a.jpg"]
    assert box_of(found) == [0.4, 0.3, 0.6, 0.7]


def test_plain_folders(scan: Scan, write: Write) -> None:
    folder = write({**FILES, "classes.txt": "cat\ndog\n", "labels/classes.txt": "cat\ndog\n"})
    (folder / "data.yaml").unlink()
    found = scan("yolo", folder, folder)
    assert len(found.annotations) == 3
    assert names(scan("yolo", folder, folder, split="val")) == ["images/val/c.webp"]
    elsewhere = scan("yolo", folder / "labels", folder / "images")
    assert names(elsewhere) == ["train/a.jpg", "train/deep/b.PNG", "val/c.webp"]
    assert len(elsewhere.annotations) == 3


def test_lines(scan: Scan, write: Write) -> None:
    lines = [
        "1 .5 .5 .2 .4 0.75",
        "0 0.1 0.2 0.9 0.2 0.5 0.8",
        "0.0 .5 .5 1 1",
        "0 .5 .5 nan 1",
        "99 .5 .5 1 1",
    ]
    folder = write({**FILES, "labels/train/a.txt": "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"})
    found = scan("yolo", folder, folder, split="train")
    first, polygon, whole, nan, unknown = found.annotations
    assert first["score"] == 0.75
    assert polygon["box_xyxy"] == [0.1, 0.2, 0.9, 0.8]
    assert json.loads(polygon["segmentation"]) == [[0.1, 0.2, 0.9, 0.2, 0.5, 0.8]]
    assert whole["source_category_id"] == "0"
    assert nan["box_xyxy"][0] != nan["box_xyxy"][0]
    assert unknown["source_category_id"] == "99"
    assert set(found.defects()) == {None}


@pytest.mark.parametrize(
    "line", ["x", "cat .5 .5 1 1", "0", "0 1 2 3", "0.5 1 1 1 1", "0 .5 .5 1 a", "0 1 2 3 4 5 6 7",
             "inf .5 .5 1 1", "0,.5,.5,1,1", "\x00\x01"],
)  # fmt: skip
def test_a_bad_line_costs_only_itself(scan: Scan, write: Write, line: str) -> None:
    folder = write({**FILES, "labels/train/a.txt": f"{LINE}{line}\n{LINE}"})
    found = scan("yolo", folder, folder, split="train")
    assert found.defects() == [None, "malformed_label_line", None]
    assert found.annotations[1]["source_image_id"] == "images/train/a.jpg"


def test_labels_without_an_image_are_counted(scan: Scan, write: Write) -> None:
    folder = write({**FILES, "labels/train/lost.txt": LINE})
    found = scan("yolo", folder, folder, split="train")
    assert [row["source_image_id"] for row in found.annotations] == [
        "images/train/a.jpg", "labels/train/lost.txt",
    ]  # fmt: skip


def test_a_list_cannot_lead_outside(scan: Scan, write: Write) -> None:
    folder = write(
        {
            "set/data.yaml": "train: list.txt\nnames: [cat, dog]\n",
            "set/list.txt": "images/a.jpg\n../secret/images/x.jpg\n/etc/passwd\n",
            "set/images/a.jpg": "",
            "set/labels/a.txt": LINE,
            "secret/labels/x.txt": LINE,
        }
    )
    found = scan("yolo", folder / "set", folder / "set")
    assert names(found) == ["images/a.jpg", "../secret/images/x.jpg", "/etc/passwd"]
    assert len(found.annotations) == 1


@pytest.mark.parametrize("train", ["/etc", "../../etc", "nowhere", "images/../../secret"])
def test_a_part_outside_is_refused(scan: Scan, write: Write, train: str) -> None:
    folder = write(
        {
            "set/data.yaml": f"train: {train}\nnames: [a]\n",
            "secret/a.jpg": "",
            "set/images/b.jpg": "",
        }
    )
    with pytest.raises(InputError, match="expected a folder or list at"):
        scan("yolo", folder / "set", folder / "set")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\nb: }", "line 2, column 2"),
        ("a: !!python/object:os.system x", "line 1, column 4"),
        ("- a", "expected keys with values"),
        ("", "expected keys with values .*got NoneType"),
        ("train: images/train", "expected 'names' with the class names, got None"),
        ("train: images/train\nnames: {x: y}", "expected names by class number, got 'x'"),
        ("names: [a]", "expected one of the keys train, val, test, found none"),
    ],
)
def test_a_bad_data_yaml(scan: Scan, write: Write, text: str, message: str) -> None:
    folder = write({**FILES, "data.yaml": text})
    with pytest.raises(InputError, match=message) as caught:
        scan("yolo", folder, folder)
    assert isinstance(caught.value, SourceSyntaxError) == ("column" in message)


def test_what_is_missing_is_said(scan: Scan, write: Write) -> None:
    folder = write(FILES)
    with pytest.raises(InputError, match="no split 'tset', expected one of train, val"):
        scan("yolo", folder, folder, split="tset")
    with pytest.raises(InputError, match=r"image root .* expected it to contain"):
        scan("yolo", folder, folder / "labels")
    with pytest.raises(InputError, match="no folder at"):
        scan("yolo", folder / "nowhere", folder)
    (folder / "data.yaml").unlink()
    with pytest.raises(InputError, match=r"in data\.yaml or classes\.txt, found neither"):
        scan("yolo", folder, folder)
