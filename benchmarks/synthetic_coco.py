"""Writes a COCO instances JSON of any size, the same bytes for the same arguments, as a stream.

python benchmarks/synthetic_coco.py boxes.json --boxes 1000000 --polygons
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BOXES_AN_IMAGE = 7
CATEGORIES = 80
_SIZE_WH = (640, 480)
_BLOCK = 50_000
_CORNERS = 12


def write_synthetic_coco(
    path: Path, *, boxes: int, polygons: bool = False, compact: bool = True, seed: int = 0
) -> None:
    """Writes `boxes` annotations on a seventh as many images, without ever holding them all.

    Args:
        path: the file to write.
        boxes: how many annotations.
        polygons: give each a polygon of 12 corners, which makes the file three times as large.
        compact: no white space at all, as in Objects365; else as `json.dump` writes it.
        seed: of the boxes.
    """
    comma, colon = (",", ":") if compact else (", ", ": ")
    with path.open("w", encoding="ascii", newline="") as file:
        file.write(f'{{"info"{colon}{{"description"{colon}"synthetic"}}{comma}')
        parts = {
            "images": _images(-(-boxes // BOXES_AN_IMAGE)),
            "categories": _categories(),
            "annotations": _annotations(boxes, polygons=polygons, seed=seed),
        }
        for number, (key, elements) in enumerate(parts.items()):
            file.write(f'{comma if number else ""}"{key}"{colon}[')
            for position, element in enumerate(elements):
                text = json.dumps(element, separators=(comma, colon))
                file.write(comma + text if position else text)
            file.write("]")
        file.write("}")


def _images(count: int) -> Iterator[dict[str, object]]:
    width, height = _SIZE_WH
    for number in range(1, count + 1):
        yield {
            "license": 1,
            "file_name": f"{number:012d}.jpg",
            "height": height,
            "width": width,
            "id": number,
        }


def _categories() -> Iterator[dict[str, object]]:
    for number in range(1, CATEGORIES + 1):
        yield {"id": number, "name": f"category {number}", "supercategory": "thing"}


def _annotations(boxes: int, *, polygons: bool, seed: int) -> Iterator[dict[str, object]]:
    generator = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1) / 2 + 0.5  # [corners, 2] in [0, 1]
    for start in range(0, boxes, _BLOCK):
        count = min(_BLOCK, boxes - start)
        corner = generator.uniform(0, 0.6, (count, 2)) * _SIZE_WH
        side = generator.uniform(0.02, 0.4, (count, 2)) * _SIZE_WH
        categories = generator.integers(1, CATEGORIES + 1, count).tolist()
        xywh = np.round(np.concatenate([corner, side], axis=1), 2)  # [count, 4]
        for row, box in enumerate(xywh.tolist()):
            outline = np.round(circle * side[row] + corner[row], 2).ravel().tolist()
            yield {
                "segmentation": [outline] if polygons else [],
                "area": round(box[2] * box[3], 4),
                "iscrowd": 0,
                "image_id": (start + row) // BOXES_AN_IMAGE + 1,
                "bbox": box,
                "category_id": categories[row],
                "id": start + row + 1,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--polygons", action="store_true")
    parser.add_argument("--spaced", action="store_true", help="write white space like json.dump")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_synthetic_coco(
        given.path,
        boxes=given.boxes,
        polygons=given.polygons,
        compact=not given.spaced,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
