"""An image folder and a CSV: names of columns, units, images without rows, broken rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import InputError

Write = Callable[..., Path]
Scan = Callable[..., Any]


def scan_csv(scan: Scan, write: Write, text: str, **options: str) -> Any:
    folder = write(
        {"boxes.csv": text, "images/a.jpg": "", "images/s/b.PNG": "", "images/n.txt": ""}
    )
    return scan("csv", folder / "boxes.csv", folder / "images", **options)


@pytest.mark.parametrize(
    "text",
    [
        "file_name,label,x0,y0,x1,y1\na.jpg,cat,1,2,4,6\n",
        "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,4,6\n",
        "Label,Image,X,Y,Width,Height\ncat,a.jpg,1,2,3,4\n",
        'category,path,x,y,w,h,other\r\n"cat",a.jpg, 1 ,2,3.0,4e0,"x, y"\r\n',
        "\ufeffimage,label,x0,y0,x1,y1\na.jpg,cat,1,2,4,6",
    ],
)
def test_the_usual_column_names(scan: Scan, write: Write, text: str) -> None:
    found = scan_csv(scan, write, text)
    (row,) = found.annotations
    assert row["box_xyxy"] == [1, 2, 4, 6]
    assert (row["source_image_id"], row["source_category_id"]) == ("a.jpg", "cat")
    assert found.categories == [{"source_category_id": "cat", "name": "cat", "supercategory": None}]


def test_images_are_those_of_the_folder_and_those_of_the_rows(scan: Scan, write: Write) -> None:
    found = scan_csv(scan, write, "image,label,x,y,w,h\n../c.jpg,cat,1,2,3,4\ns/b.PNG,,,,,\n")
    names = [row["file_name"] for row in found.images]
    assert names == ["a.jpg", "s/b.PNG", "../c.jpg", "s/b.PNG"]
    assert len(found.annotations) == 1


def test_optional_columns(scan: Scan, write: Write) -> None:
    text = (
        "image,label,x,y,w,h,id,score,iscrowd\na.jpg,cat,1,2,3,4,9,0.5,1\na.jpg,cat,1,2,3,4,,,0\n"
    )
    first, second = scan_csv(scan, write, text).annotations
    assert (first["source_annotation_id"], first["score"], first["is_crowd"]) == ("9", 0.5, True)
    assert (second["source_annotation_id"], second["score"], second["is_crowd"]) == (
        None, None, False,
    )  # fmt: skip


def test_broken_rows_are_counted(scan: Scan, write: Write) -> None:
    text = (
        "image,label,x,y,w,h\na.jpg,cat,1,2,3,x\na.jpg,cat,1,2,3,\n,cat,1,2,3,4\na.jpg,,1,2,3,4\n"
        'a.jpg,cat,1\na.jpg,cat,1,2,3,4\n"a.jpg,cat,1,2,3,4\na.jpg,cat,1,2,3,4\n'
    )
    defects = scan_csv(scan, write, text).defects()
    # The quote that is never closed runs over the line behind it.
    assert sorted(map(str, defects)) == [
        "None", "malformed_box", "malformed_box", "malformed_row", "malformed_row",
        "malformed_row", "missing_category_id", "missing_image_id",
    ]  # fmt: skip


def test_a_quote_closed_on_a_later_line_is_broken(scan: Scan, write: Write) -> None:
    text = 'image,label,x,y,w,h\n"a.jpg,cat,1,2,3,4\na.jpg",cat,1,2,3,4\na.jpg,cat,1,2,3,4\n'
    found = scan_csv(scan, write, text)
    assert sorted(map(str, found.defects())) == ["None", "malformed_row", "malformed_row"]
    assert [row["file_name"] for row in found.images] == ["a.jpg", "s/b.PNG", "a.jpg"]


def test_a_header_without_the_needed_columns(scan: Scan, write: Write) -> None:
    with pytest.raises(InputError, match=r"a column of each: image .* found image, label, x, y"):
        scan_csv(scan, write, "image,label,x,y\n")
    with pytest.raises(InputError, match="is empty"):
        scan_csv(scan, write, "")


def test_a_missing_image_folder(scan: Scan, write: Write) -> None:
    path = write({"boxes.csv": "image,label,x,y,w,h\n"}) / "boxes.csv"
    with pytest.raises(InputError, match=r"no folder at .*nowhere: expected a folder"):
        scan("csv", path, path.parent / "nowhere")
