"""LVIS: names from URLs, and federated lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fsspec
import pytest


def scan_images(scan: Callable[..., Any], *images: object) -> Any:
    path = "memory://lvis/lvis.json"
    text = json.dumps({"images": images, "annotations": [], "categories": []})
    fsspec.filesystem("memory").pipe(path, text.encode())
    return scan("lvis", path).images


def test_federated_lists_are_kept(scan: Callable[..., Any]) -> None:
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    rows = scan_images(
        scan,
        {
            "id": 391895,
            "coco_url": url,
            "neg_category_ids": [5, 7],
            "not_exhaustive_category_ids": [],
        },
        {"id": 2, "coco_url": url},
    )
    assert rows[0]["file_name"] == "train2017/000000391895.jpg"
    assert rows[0]["negative"] == ["5", "7"]
    assert rows[0]["not_exhaustive"] == []
    assert (rows[1]["negative"], rows[1]["not_exhaustive"]) == (None, None)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"file_name": "x/y.jpg", "coco_url": "http://h/a/b.jpg"}, "x/y.jpg"),
        ({"coco_url": "http://h/a/b/c.jpg?x=1"}, "b/c.jpg"),
        ({"coco_url": "http://h/c.jpg"}, "c.jpg"),
        ({"coco_url": "http://h/a/../c.jpg"}, "../c.jpg"),
        ({"coco_url": "http://h"}, None),
        ({"coco_url": "http://[h/a/b.jpg"}, None),
        ({"coco_url": 5}, None),
        ({}, None),
    ],
)
def test_file_names(scan: Callable[..., Any], image: dict[str, object], name: str | None) -> None:
    (row,) = scan_images(scan, {"id": 1, **image})
    assert row["file_name"] == name
    assert row["defect"] == (None if name else "malformed_image_entry")
