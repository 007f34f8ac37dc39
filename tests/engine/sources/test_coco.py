"""COCO and Objects365: every entry arrives, sound or with its defect."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from manifests.errors import InputError, SourceSyntaxError

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 480, "width": 640}
CATEGORY = {"id": 3, "name": "cat", "supercategory": "animal"}
BOX = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30.5, 40], "iscrowd": 0}


@pytest.fixture
def scan_json(scan: Callable[..., Any]) -> Callable[..., Any]:
    def run(document: object, format: str = "coco") -> Any:
        path = "memory://coco/boxes.json"
        text = document if isinstance(document, str) else json.dumps(document)
        fsspec.filesystem("memory").pipe(path, text.encode())
        return scan(format, path)

    return run


def document(**parts: object) -> dict[str, object]:
    return {"images": [IMAGE], "annotations": [BOX], "categories": [CATEGORY], **parts}


def annotation(**changes: object) -> dict[str, object]:
    changed = {**BOX, **changes}
    return {key: value for key, value in changed.items() if value is not ...}


def test_a_sound_file(scan_json: Callable[..., Any]) -> None:
    found = scan_json(document(info={"year": 2017}, licenses=[{"id": 1}], extra=[1, [2]]))
    assert found.images == [
        {
            "source_image_id": "1",
            "file_name": "a.jpg",
            "height": 480,
            "width": 640,
            "not_exhaustive": None,
            "negative": None,
            "defect": None,
        }
    ]
    assert found.categories == [
        {"source_category_id": "3", "name": "cat", "supercategory": "animal"}
    ]
    assert found.annotations == [
        {
            "source_image_id": "1",
            "source_annotation_id": "7",
            "source_category_id": "3",
            "box_xyxy": [10.0, 20.0, 40.5, 60.0],
            "is_crowd": False,
            "is_group_of": False,
            "flags": None,
            "score": None,
            "segmentation": None,
            "defect": None,
        }
    ]


@pytest.mark.parametrize("order", ["iac", "cai", "aci", "cia"])
def test_the_arrays_come_in_any_order(scan_json: Callable[..., Any], order: str) -> None:
    whole = document()
    names = {"i": "images", "a": "annotations", "c": "categories"}
    assert scan_json({names[key]: whole[names[key]] for key in order}) == scan_json(whole)


@pytest.mark.parametrize(
    ("entry", "defect"),
    [
        (annotation(bbox=...), "malformed_box"),
        (annotation(bbox=None), "malformed_box"),
        (annotation(bbox=[]), "malformed_box"),
        (annotation(bbox=[1, 2, 3]), "malformed_box"),
        (annotation(bbox=[1, 2, 3, 4, 5]), "malformed_box"),
        (annotation(bbox=[1, 2, 3, "4"]), "malformed_box"),
        (annotation(bbox=[1, 2, 3, None]), "malformed_box"),
        (annotation(bbox=[1, 2, 3, True]), "malformed_box"),
        (annotation(bbox="1,2,3,4"), "malformed_box"),
        (annotation(bbox={"x": 1}), "malformed_box"),
        (annotation(image_id=...), "missing_image_id"),
        (annotation(image_id=None), "missing_image_id"),
        (annotation(image_id=""), "missing_image_id"),
        (annotation(image_id=[1]), "missing_image_id"),
        (annotation(image_id=1.5), "missing_image_id"),
        (annotation(image_id=True), "missing_image_id"),
        (annotation(category_id=...), "missing_category_id"),
        (annotation(category_id={}), "missing_category_id"),
        (annotation(iscrowd="maybe"), "malformed_annotation_entry"),
        (annotation(score="high"), "malformed_annotation_entry"),
        (7, "malformed_annotation_entry"),
        (None, "malformed_annotation_entry"),
        ([1, 2], "malformed_annotation_entry"),
        ({}, "malformed_annotation_entry"),
    ],
)
def test_one_bad_annotation_is_one_defect(
    scan_json: Callable[..., Any], entry: object, defect: str
) -> None:
    found = scan_json(document(annotations=[BOX, entry, BOX]))
    assert found.defects() == [None, defect, None]
    bad = found.annotations[1]
    assert bad["box_xyxy"] is None
    if defect == "missing_image_id":
        assert bad["source_image_id"] == ""
    if defect == "malformed_box":
        assert (bad["source_image_id"], bad["source_annotation_id"]) == ("1", "7")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": 2},
        {"file_name": "b.jpg"},
        5,
        None,
        {"id": [], "file_name": "b"},
        {**IMAGE, "file_name": 3},
    ],
)
def test_one_bad_image_is_one_defect(scan_json: Callable[..., Any], entry: object) -> None:
    found = scan_json(document(images=[IMAGE, entry, IMAGE]))
    assert [row["defect"] for row in found.images] == [None, "malformed_image_entry", None]


def test_half_a_surrogate_pair_is_no_file_name(scan_json: Callable[..., Any]) -> None:
    text = json.dumps(document()).replace("a.jpg", "\\ud800.jpg")
    assert scan_json(text).images[0]["defect"] == "malformed_image_entry"


def test_nan_and_infinity_reach_the_engine(scan_json: Callable[..., Any]) -> None:
    bad = annotation(bbox=[math.nan, 2, math.inf, 4], area=math.nan)
    found = scan_json(document(annotations=[BOX, bad]))
    assert found.defects() == [None, None]
    x0, y0, x1, y1 = found.annotations[1]["box_xyxy"]
    assert (math.isnan(x0), y0, math.isnan(x1), y1) == (True, 2, True, 6)


def test_ids_are_text_whatever_they_were(scan_json: Callable[..., Any]) -> None:
    ids = [1, "1", "x/ü", 1.0, 10**30, -4]
    found = scan_json(
        document(
            images=[{**IMAGE, "id": value} for value in ids],
            annotations=[annotation(id=value, image_id=value) for value in ids],
        )
    )
    texts = ["1", "1", "x/ü", "1", str(10**30), "-4"]
    assert [row["source_image_id"] for row in found.images] == texts
    assert [row["source_image_id"] for row in found.annotations] == texts
    assert [row["source_annotation_id"] for row in found.annotations] == texts


def test_repeated_ids_are_not_the_sources_business(scan_json: Callable[..., Any]) -> None:
    found = scan_json(document(annotations=[BOX, BOX], images=[IMAGE, IMAGE]))
    assert (len(found.annotations), len(found.images)) == (2, 2)


def test_an_unknown_category_stays(scan_json: Callable[..., Any]) -> None:
    found = scan_json(document(annotations=[annotation(category_id=99)]))
    assert found.annotations[0]["source_category_id"] == "99"
    assert found.defects() == [None]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([[1, 2.50, 3, 4, 5, 6]], b"[[1, 2.5, 3, 4, 5, 6]]"),
        ({"size": [4, 5], "counts": 'a\\b"`'}, b'{"size": [4, 5], "counts": "a\\\\b\\"`"}'),
        (None, None),
        ([], None),
        ({}, None),
    ],
)
def test_segmentation_is_kept_as_it_is(
    scan_json: Callable[..., Any], segmentation: object, expected: bytes | None
) -> None:
    found = scan_json(document(annotations=[BOX, annotation(segmentation=segmentation)]))
    assert [row["segmentation"] for row in found.annotations] == [None, expected]


def test_flags_crowd_and_score(scan_json: Callable[..., Any]) -> None:
    entries = [
        annotation(iscrowd=1, isfake=1, isreflected=0, score=0.5),
        annotation(iscrowd=True, isfake=1, isreflected=1),
        annotation(iscrowd="1", isreflected="true"),
        annotation(iscrowd="0"),
        annotation(iscrowd=None),
    ]
    rows = scan_json(document(annotations=entries), "objects365").annotations
    assert [row["is_crowd"] for row in rows] == [True, True, True, False, False]
    assert [row["flags"] for row in rows] == [
        ["fake"], ["fake", "reflected"], ["reflected"], None, None,
    ]  # fmt: skip
    assert [row["score"] for row in rows] == [0.5, None, None, None, None]


@pytest.mark.parametrize("size", [0, -1, 1e12, "640", None, True])
def test_an_impossible_size_is_none(scan_json: Callable[..., Any], size: object) -> None:
    found = scan_json(document(images=[{**IMAGE, "height": size}]))
    assert found.images[0]["height"] is None
    assert found.images[0]["defect"] is None


def test_hostile_file_names_pass_through_unopened(scan_json: Callable[..., Any]) -> None:
    names = ["../x.jpg", "/etc/passwd", "C:\\x", "http://127.0.0.1:1/x", "a\0b"]
    found = scan_json(document(images=[{"id": n, "file_name": n} for n in names]))
    assert [row["file_name"] for row in found.images] == names


@pytest.mark.parametrize("category", [{"id": 1}, {"name": "x"}, 3, {"id": 1, "name": ""}])
def test_a_category_without_id_or_name_is_an_error(
    scan_json: Callable[..., Any], category: object
) -> None:
    with pytest.raises(InputError, match="in entry 2 of categories"):
        scan_json(document(categories=[CATEGORY, category]))


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_or_false_array_is_an_error(scan_json: Callable[..., Any], key: str) -> None:
    whole = document()
    with pytest.raises(SourceSyntaxError, match=f"'{key}' is an object, expected an array"):
        scan_json({**whole, key: {}})
    del whole[key]
    with pytest.raises(InputError, match=f"has no key '{key}'"):
        scan_json(whole)


def test_empty_arrays_are_an_empty_dataset(scan_json: Callable[..., Any]) -> None:
    found = scan_json({"images": [], "annotations": [], "categories": []})
    assert (found.images, found.annotations, found.categories) == ([], [], [])


def test_one_bad_entry_among_many_costs_only_itself(scan_json: Callable[..., Any]) -> None:
    entries = [annotation(id=number) for number in range(5000)]
    entries[2500] = annotation(id=2500, bbox=None)
    entries[2501] = annotation(id=2501, bbox=[1, 2, 3])
    found = scan_json(document(annotations=entries))
    bad = [row["source_annotation_id"] for row in found.annotations if row["defect"]]
    assert bad == ["2500", "2501"]
    assert len(found.annotations) == 5000


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["coco_dev", "balloon_dev", "ccp_dev"])
@pytest.mark.parametrize("file", ["boxes.json", "masks.json"])
def test_real_files(scan: Callable[..., Any], shared_data: Path, name: str, file: str) -> None:
    path = shared_data / name / file
    whole = json.loads(path.read_text())
    found = scan("coco", path)
    assert [row["file_name"] for row in found.images] == [i["file_name"] for i in whole["images"]]
    assert len(found.categories) == len(whole["categories"])
    assert set(found.defects()) == {None}
    for row, entry in zip(found.annotations, whole["annotations"], strict=True):
        x, y, width, height = entry["bbox"]
        assert row["box_xyxy"] == [x, y, x + width, y + height]
        assert row["source_image_id"] == str(entry["image_id"])
        mask = row["segmentation"]
        assert (mask and json.loads(mask)) == entry.get("segmentation")
