"""People and their tools, for tests: masks for the boxes of a proposal, given back as CVAT does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from manifests import rle, schemas
from manifests.dataset import Dataset

Json = Any  # parsed JSON


def read(folder: Path) -> Json:
    """The COCO file of a proposal."""
    return json.loads((folder / "annotations" / "instances_default.json").read_text())


def ellipse(box_xywh: list[float], size_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[H, W] what a person draws in a box: it fills the box and is no teacher's mask."""
    x, y, width, height = box_xywh
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    inside = ((columns - x - width / 2) / (width / 2)) ** 2
    inside += ((rows - y - height / 2) / (height / 2)) ** 2
    return (inside <= 1).astype(np.uint8)


def uncompressed(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, Any]:
    """RLE as CVAT writes it: a list of runs."""
    runs = rle.runs_from_counts(rle.encode(mask)).tolist()
    return {"size": [*mask.shape], "counts": runs}


def drawn(proposal: Json) -> Json:
    """Every box drawn, the ids as CVAT gives them, in another order, below a folder."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in proposal["images"]}
    images = [
        {**image, "id": image["id"] + 40, "file_name": f"job_7/{image['file_name']}"}
        for image in proposal["images"][::-1]
    ]
    for image in images:
        del image["maskmill_image_id"]
    annotations = [
        {
            "id": number, "image_id": entry["image_id"] + 40, "category_id": 31,
            "segmentation": uncompressed(ellipse(entry["bbox"], sizes[entry["image_id"]])),
            "bbox": entry["bbox"], "iscrowd": 1, "attributes": {"occluded": False},
        }
        for number, entry in enumerate(proposal["annotations"][::-1], start=900)
    ]  # fmt: skip
    [category] = proposal["categories"]
    categories = [{"id": 31, "name": category["name"], "supercategory": ""}]
    return {"categories": categories, "images": images, "annotations": annotations}


def save(document: Json, path: Path) -> str:
    """The file's path, as a setting takes it."""
    path.write_text(json.dumps(document))
    return str(path)


def human_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Every box of a dataset with its row of `masks/human`, in the order of the shards."""
    found = []
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        boxes = dataset.table(cell.shard, schemas.BOXES).to_pylist()
        human = [{"status": None, "reason": None, "counts": None}] * len(boxes)
        if dataset.manifest.get(cell.shard, schemas.MASKS_HUMAN):
            human = dataset.table(cell.shard, schemas.MASKS_HUMAN).to_pylist()
        found += [{**box, **mask} for box, mask in zip(boxes, human, strict=True)]
    return found
