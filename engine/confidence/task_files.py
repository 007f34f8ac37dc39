"""The files that annotation tools read: COCO for CVAT; tasks and a setup for Label Studio.

CVAT's COCO importer takes a `segmentation` that is RLE as a mask for its brush, polygons as
polygons, and an empty one as a rectangle; a category with the id 0 would lose its name. A mask here
has thousands of corners along pixels, which nobody could drag: so RLE.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from engine.confidence.brush_rle import to_brush_rle
from manifests import rle
from manifests.commit import Commit

MODEL = "maskmill"
BRUSH, RECTANGLE = "mask", "box"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTask:
    """A box to be drawn.

    Attributes:
        box_xyxy: absolute pixels.
        counts: the mask to be corrected, COCO RLE in the image's size; None: there is none.
        layer: whose mask that is, `masks/<teacher>`.
    """

    annotation_id: str
    category: str
    box_xyxy: tuple[float, ...]
    counts: bytes | None
    layer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoTask:
    """A photo to be drawn in; `name` is its file name, whose stem is the image id."""

    image_id: str
    name: str
    size_hw: tuple[int, int]
    original_file_name: str
    source: str
    boxes: tuple[BoxTask, ...]


def coco_files(photos: Iterable[PhotoTask], *, commit: Commit) -> dict[str, bytes]:
    """`annotations/instances_default.json`: the name tells CVAT the task and the subset."""
    ordered = sorted(photos, key=lambda photo: photo.image_id)
    names = sorted({box.category for photo in ordered for box in photo.boxes})
    above = {category.name: category.supercategory or "" for category in commit.categories}
    ids = {name: number for number, name in enumerate(names, start=1)}
    document = {
        "info": {"description": "images to draw, proposed by maskmill"},
        "licenses": [],
        "categories": [
            {"id": ids[name], "name": name, "supercategory": above.get(name, "")} for name in names
        ],
        "images": [
            {
                "id": number, "file_name": photo.name,
                "height": photo.size_hw[0], "width": photo.size_hw[1],
                "maskmill_image_id": photo.image_id,
            }
            for number, photo in enumerate(ordered, start=1)
        ],
        "annotations": list(_annotations(ordered, ids)),
    }  # fmt: skip
    return {"annotations/instances_default.json": _json(document)}


def _annotations(
    photos: Sequence[PhotoTask], ids: dict[str, int]
) -> Iterable[dict[str, Any]]:  # Any: JSON
    number = 0
    for image, photo in enumerate(photos, start=1):
        for box in photo.boxes:
            number += 1
            x0, y0, x1, y1 = box.box_xyxy
            yield {
                "id": number,
                "image_id": image,
                "category_id": ids[box.category],
                "bbox": _rounded(x0, y0, x1 - x0, y1 - y0),
                "area": _area(box, photo.size_hw),
                "segmentation": _segmentation(box, photo.size_hw),
                "iscrowd": 0,
                "maskmill_annotation_id": box.annotation_id,
                "maskmill_layer": box.layer,
            }


def _segmentation(box: BoxTask, size_hw: tuple[int, int]) -> dict[str, Any] | list[Any]:
    if box.counts is None:
        return []
    return {"size": [*size_hw], "counts": box.counts.decode("ascii")}


def _area(box: BoxTask, size_hw: tuple[int, int]) -> float:
    if box.counts is not None:
        return rle.area(box.counts, size_hw=size_hw)
    x0, y0, x1, y1 = box.box_xyxy
    return round((x1 - x0) * (y1 - y0), 3)


def label_studio_files(photos: Iterable[PhotoTask], *, image_url: str) -> dict[str, bytes]:
    """`tasks.json` with a prediction for each photo, and `label_config.xml` to set a project up."""
    ordered = sorted(photos, key=lambda photo: photo.image_id)
    names = sorted({box.category for photo in ordered for box in photo.boxes})
    tasks = [
        {
            "data": {"image": f"{image_url}{photo.name}", "maskmill_image_id": photo.image_id},
            "predictions": [{"model_version": MODEL, "result": list(_regions(photo))}],
        }
        for photo in ordered
    ]
    return {"tasks.json": _json(tasks), "label_config.xml": _setup(names)}


def _regions(photo: PhotoTask) -> Iterable[dict[str, Any]]:  # Any: JSON
    """A rectangle for each box, which says what is meant, and a brush region for its mask."""
    height, width = photo.size_hw
    shared = {"to_name": "image", "original_width": width, "original_height": height,
              "image_rotation": 0}  # fmt: skip
    for box in photo.boxes:
        x0, y0, x1, y1 = box.box_xyxy
        percent = {
            "x": 100 * x0 / width, "width": 100 * (x1 - x0) / width,
            "y": 100 * y0 / height, "height": 100 * (y1 - y0) / height,
        }  # fmt: skip
        yield {
            "id": f"{box.annotation_id[:10]}b", "type": "rectanglelabels", "from_name": RECTANGLE,
            "value": {**percent, "rotation": 0, "rectanglelabels": [box.category]}, **shared,
        }  # fmt: skip
        if box.counts is not None:
            brush = to_brush_rle(rle.decode(box.counts, size_hw=photo.size_hw))
            yield {
                "id": f"{box.annotation_id[:10]}m", "type": "brushlabels", "from_name": BRUSH,
                "value": {"format": "rle", "rle": brush, "brushlabels": [box.category]}, **shared,
            }  # fmt: skip


def _setup(categories: Sequence[str]) -> bytes:
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in categories)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="image">\n{labels}\n  </BrushLabels>\n'
        f'  <RectangleLabels name="{RECTANGLE}" toName="image">\n{labels}\n  </RectangleLabels>\n'
        "</View>\n"
    ).encode()


def _rounded(*values: float) -> list[float]:
    return [round(value, 3) for value in values]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
