"""Can the student learn eight photos by heart? If not, something is broken that losses do not show.

    python benchmarks/student_overfit.py --data ../shared/data/coco_dev --work bench-out/overfit

The first eight photos all of whose objects have at least `--min-area` pixels, human masks, no
jitter and no flip; judged on the same eight.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from command import maskmill

ALWAYS_THE_SAME = (
    "data.masks=masks/human", "data.scale_min=1.0", "data.scale_max=1.0", "data.flip=0",
    "train.weight_decay=0", "train.learning_rate=1e-3", "train.ema=0.99",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--min-area", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--set", action="append", default=[], dest="words")
    arguments = parser.parse_args()
    store = arguments.work / "store"
    if not store.exists():
        arguments.work.mkdir(parents=True, exist_ok=True)
        document = arguments.work / "masks.json"
        chosen = chosen_photos(arguments.data / "masks.json", arguments.photos, arguments.min_area)
        document.write_text(json.dumps(chosen))
        maskmill("init", "--store", store)
        maskmill("ingest", "coco", document, arguments.data / "images", "--store", store)
    words = [*ALWAYS_THE_SAME, f"train.steps={arguments.steps}", *arguments.words]
    settings = [part for word in words for part in ("--set", word)]
    maskmill("train", "main", "--store", store, "--name", "overfit", "--inline", *settings)
    page = arguments.work / "overfit.html"
    found = json.loads(maskmill("evaluate", "overfit", "--store", store, "--html", page, "--json"))
    for name in ("mask_ap", "mask_ap50", "mask_ap75", "box_ap", "boundary_ap", "pq", "miou"):
        print(f"{name:12} {found[name]:.3f}")


def chosen_photos(path: Path, num: int, min_area: int) -> dict[str, Any]:
    """The COCO document with those photos alone."""
    document: dict[str, Any] = json.loads(path.read_text())
    areas: dict[int, list[float]] = {}
    for annotation in document["annotations"]:
        area = 0 if annotation.get("iscrowd") else annotation["area"]
        areas.setdefault(annotation["image_id"], []).append(area)
    large = [image for image in document["images"] if min(areas.get(image["id"], [0])) >= min_area]
    document["images"] = large[:num]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    return document


if __name__ == "__main__":
    main()
