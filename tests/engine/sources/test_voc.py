"""VOC: coordinates from 1, flags, broken files, and no entities."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import InputError

Write = Callable[..., Path]
Scan = Callable[..., Any]
OBJECT = (
    "<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
    "<bndbox><xmax>{x1}</xmax><xmin>1</xmin><ymin>1.5</ymin><ymax>3</ymax></bndbox>"
    "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part></object>"
)
IMAGE = (
    "<annotation><folder>../..</folder><filename>a.jpg</filename>"
    "<size><width>4</width><height>3</height><depth>3</depth></size>{objects}</annotation>"
)
GOOD = IMAGE.format(objects=OBJECT.format(name="cat", x1=4))


def test_a_good_file(scan: Scan, write: Write) -> None:
    folder = write({"VOC/Annotations/a.xml": GOOD})
    found = scan("voc", folder / "VOC")
    (image,), (row,) = found.images, found.annotations
    assert (image["source_image_id"], image["file_name"]) == ("a", "a.jpg")
    assert (image["height"], image["width"]) == (3, 4)
    assert row["box_xyxy"] == [0, 0.5, 4, 3]
    assert (row["source_category_id"], row["flags"]) == ("cat", ["truncated"])
    assert found.categories == [{"source_category_id": "cat", "name": "cat", "supercategory": None}]
    assert scan("voc", folder / "VOC/Annotations") == found


def test_coordinates_from_zero(scan: Scan, write: Write) -> None:
    found = scan("voc", write({"a.xml": GOOD}), one_based=False)
    assert found.annotations[0]["box_xyxy"] == [1, 1.5, 4, 3]


def test_bad_objects_cost_only_themselves(scan: Scan, write: Write) -> None:
    objects = [
        OBJECT.format(name="cat", x1="wide"),
        OBJECT.format(name="", x1=4),
        "<object><name>dog</name></object>",
        "<object/>",
        OBJECT.format(name="cat", x1="nan"),
    ]
    found = scan("voc", write({"a.xml": IMAGE.format(objects="".join(objects))}))
    assert found.defects() == [
        "malformed_box", "missing_category_id", "malformed_box", "missing_category_id", None,
    ]  # fmt: skip


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>\n <x", "line 2, column 2"),
        ("", "no element found"),
        (GOOD[:-20], "broken at line 1"),
        ("<html/>", "expected <annotation>, got <html>"),
        (BOMB + GOOD.replace("cat", "&b;"), "declares a document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">' + GOOD, "declares a document type"),
        (GOOD.replace("cat", "&undefined;"), "undefined entity"),
        (b"\xff\xfe\x00\xd8", "broken at line"),
        ('<?xml version="1.0" encoding="nonsense"?>' + GOOD, ""),
    ],
)
def test_a_broken_file_costs_only_its_image(
    scan: Scan,
    write: Write,
    text: str | bytes,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write({"a.xml": GOOD, "b.xml": text, "c.xml": GOOD})
    with caplog.at_level(logging.WARNING):
        found = scan("voc", folder)
    assert [row["defect"] for row in found.images] == [None, "malformed_annotation_file", None]
    assert len(found.annotations) == 2
    assert "b.xml" in caplog.text
    assert reason in caplog.text


def test_an_image_set_limits_and_orders(scan: Scan, write: Write) -> None:
    folder = write(
        {
            "Annotations/a.xml": GOOD,
            "Annotations/b.xml": GOOD,
            "Annotations/c.xml": GOOD,
            "ImageSets/Main/train.txt": "c  1\na -1\nlost\n../../etc/passwd\n\nc\n",
            "other.txt": "b\n",
        }
    )
    found = scan("voc", folder, image_set="train")
    assert {row["source_image_id"]: row["defect"] for row in found.images} == {
        "c": None,
        "a": None,
        "lost": "missing_annotation_file",
        "../../etc/passwd": "missing_annotation_file",
    }
    other = scan("voc", folder, image_set=str(folder / "other.txt"))
    assert [row["source_image_id"] for row in other.images] == ["b"]
    with pytest.raises(InputError, match=r"no file at .*ImageSets/Main/vall\.txt"):
        scan("voc", folder, image_set="vall")


def test_an_image_without_a_name_or_size(scan: Scan, write: Write) -> None:
    text = "<annotation><size><width>0</width><height>x</height></size></annotation>"
    (image,) = scan("voc", write({"a.xml": text})).images
    assert image["defect"] == "malformed_image_entry"
    assert (image["height"], image["width"]) == (None, None)


def test_a_folder_without_files(scan: Scan, write: Write) -> None:
    with pytest.raises(InputError, match=r"no \.xml file below"):
        scan("voc", write({"a.txt": ""}))
    with pytest.raises(InputError, match="no folder at"):
        scan("voc", "/nonexistent")
