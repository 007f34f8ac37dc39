"""Open Images: column order, flags, federated labels, and rows that do not parse."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import InputError

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
CAT = "a1,xclick,/m/cat,1,0.1,0.5,0.2,0.6,1,0,0,-1,1\n"
DOGS = "b2,activemil,/m/dog,1,0,1,0,1,0,0,1,0,0\n"

Write = Callable[..., Path]
Scan = Callable[..., Any]


def test_boxes(scan: Scan, write: Write) -> None:
    folder = write(
        {"boxes.csv": HEADER + CAT + DOGS, "classes.csv": "/m/cat,Cat\n/m/dog,\"Dog, hot\"\n"}
    )  # fmt: skip
    found = scan("open_images", folder / "boxes.csv", classes=str(folder / "classes.csv"))
    assert [row["name"] for row in found.categories] == ["Cat", "Dog, hot"]
    assert [row["file_name"] for row in found.images] == ["a1.jpg", "b2.jpg"]
    cat, dogs = found.annotations
    assert cat["box_xyxy"] == [0.1, 0.2, 0.5, 0.6]
    assert cat["flags"] == ["occluded", "inside"]
    assert (cat["is_group_of"], dogs["is_group_of"]) == (False, True)
    assert (cat["score"], cat["source_annotation_id"], dogs["flags"]) == (None, None, None)
    assert found.defects() == [None, None]


def test_labels_name_themselves_without_descriptions(scan: Scan, write: Write) -> None:
    folder = write({"boxes.csv": HEADER + CAT + DOGS + CAT})
    found = scan("open_images", folder / "boxes.csv", extension="png")
    assert [row["name"] for row in found.categories] == ["/m/cat", "/m/dog"]
    assert found.images[0]["file_name"] == "a1.png"


def test_columns_count_by_name_and_extra_ones_are_skipped(scan: Scan, write: Write) -> None:
    def moved(line: str) -> str:
        return ",".join(reversed([*line.strip().split(","), "extra"])) + "\n"

    folder = write({"a.csv": HEADER + CAT, "b.csv": "\ufeff" + moved(HEADER) + moved(CAT)})
    assert scan("open_images", folder / "b.csv") == scan("open_images", folder / "a.csv")


def test_image_labels_gather_wherever_their_rows_stand(scan: Scan, write: Write) -> None:
    labels = "ImageID,Source,LabelName,Confidence\n"
    folder = write(
        {
            "boxes.csv": HEADER + CAT + DOGS,
            "labels.csv": labels + "a1,v,/m/dog,0\nb2,v,/m/dog,1\na1,v,/m/cat,1\na1,v,/m/ant,0.0\n",
            "images.csv": "ImageID,Subset\na1,train\nc3,train\n",
        }
    )
    found = scan(
        "open_images",
        folder / "boxes.csv",
        image_labels=str(folder / "labels.csv"),
        images_csv=str(folder / "images.csv"),
    )
    # The first entry of an image is the one that counts.
    assert found.image("a1")["negative"] == ["/m/ant", "/m/dog"]
    assert found.image("b2")["negative"] == []
    assert found.image("c3")["negative"] is None


def test_broken_rows_are_counted(scan: Scan, write: Write) -> None:
    rows = [
        CAT.replace("0.5", "wide"),
        CAT.replace("0.5", ""),
        CAT.replace("a1", ""),
        CAT.replace("/m/cat", ""),
        "too,few\n",
        CAT.replace("\n", ",more\n"),
        '"' + CAT,
        CAT.replace("0.5", "inf"),
        CAT,
    ]
    found = scan("open_images", write({"boxes.csv": HEADER + "".join(rows)}) / "boxes.csv")
    assert sorted(map(str, found.defects())) == [
        "None", "None", "None", "malformed_box", "malformed_box", "malformed_row",
        "malformed_row", "missing_category_id", "missing_image_id",
    ]  # fmt: skip


def test_a_broken_row_at_the_end_of_many_blocks_is_counted(scan: Scan, write: Write) -> None:
    folder = write({"boxes.csv.gz": gzip.compress((HEADER + CAT * 50_000 + "x,y\n").encode())})
    found = scan("open_images", folder / "boxes.csv.gz")
    assert len(found.annotations) == 50_001
    assert found.defects().count("malformed_row") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty: expected a CSV file with a header line"),
        (b"ImageID,XMin\na,1\n", "has no column 'LabelName': expected ImageID, .* found ImageID, "),
        (b"\xff\xfe\x00", "expected a CSV file in UTF-8"),
        (HEADER.encode() * 2000 + CAT.replace("a1", "é").encode("latin-1"), "in UTF-8"),
    ],
)
def test_files_that_are_no_boxes(scan: Scan, write: Write, text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan("open_images", write({"boxes.csv": text}) / "boxes.csv")


def test_files_that_are_not_there(scan: Scan, write: Write) -> None:
    with pytest.raises(InputError, match=r"no file at /nonexistent\.csv"):
        scan("open_images", "/nonexistent.csv")
    folder = write({"boxes.csv": HEADER, "classes.csv": "/m/cat\n"})
    with pytest.raises(InputError, match=r"expected a label name and a display name, got \['/m"):
        scan("open_images", folder / "boxes.csv", classes=str(folder / "classes.csv"))


def test_a_header_alone_is_an_empty_dataset(scan: Scan, write: Write) -> None:
    found = scan("open_images", write({"boxes.csv": HEADER}) / "boxes.csv")
    assert found.annotations == []
