"""Street fashion photos with garments *and* whole persons, for which other teachers are better.

    python benchmarks/whole_persons.py ../shared/data/ccp_dev bench-out/persons/ccp_persons
    python benchmarks/confidence.py --data bench-out/persons --sets ccp_persons --inline

A person is every pixel of the label map that is not background. One calibrator has to find out by
itself for what which teacher is to be believed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from manifests import rle
from manifests.boxes import xyxy_to_xywh

_PERSON = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--limit", type=int, default=120, help="images, evenly taken")
    arguments = parser.parse_args()
    document = json.loads((arguments.source / "masks.json").read_text())
    step = max(1, len(document["images"]) // arguments.limit)
    document["images"] = document["images"][::step][: arguments.limit]
    chosen = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in chosen]
    document["categories"].append({"id": _PERSON, "name": "whole person"})
    first = max(a["id"] for a in document["annotations"]) + 1
    document["annotations"] += [
        person(arguments.source, image, first + number)
        for number, image in enumerate(document["images"])
    ]
    arguments.target.mkdir(parents=True, exist_ok=True)
    (arguments.target / "masks.json").write_text(json.dumps(document))
    images = arguments.target / "images"
    if not images.exists():
        images.symlink_to((arguments.source / "images").resolve())


def person(source: Path, image: dict[str, object], number: int) -> dict[str, object]:
    """A COCO annotation of all that is not background."""
    name = Path(str(image["file_name"])).with_suffix(".png").name
    mask = np.asarray(Image.open(source / "labelmaps" / name)) > 0
    counts, size_hw = rle.encode(mask.astype(np.uint8)), mask.shape
    box = rle.box_xyxy(counts, size_hw=(size_hw[0], size_hw[1]))
    return {
        "id": number, "image_id": image["id"], "category_id": _PERSON, "iscrowd": 0,
        "area": int(mask.sum()), "bbox": xyxy_to_xywh(box[None])[0].tolist(),
        "segmentation": {"size": list(size_hw), "counts": counts.decode("ascii")},
    }  # fmt: skip


if __name__ == "__main__":
    main()
