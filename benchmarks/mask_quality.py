"""Mean IoU of every teacher against true masks, prompted with the weak labels' boxes.

    python benchmarks/mask_quality.py --data ../shared/data --teachers box,grabcut,u2netp,sam_vit_t

The photos are ingested with their true masks (layer masks/human) and labelled by the job itself, so
the figures are those of the masks a user gets. Run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.label import LabelConfig, label
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests import rle, schemas
from manifests.dataset import Dataset, init
from manifests.errors import NothingToCommitError
from manifests.settings import with_overrides
from manifests.store import Store
from teachers import registry

# COCO's bounds of small, medium and large, by the true mask's area in pixels.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
MIN_AREA_PX = 256


def main() -> None:
    arguments = parse_arguments()
    table = Table(title=f"mean IoU, objects of at least {MIN_AREA_PX} px", title_justify="left")
    for name in ("set", "teacher", "masks", "mean IoU", *SIZES, "best candidate", "IoU >= 0.7"):
        table.add_column(name, justify="left" if name in ("set", "teacher") else "right")
    for name in arguments.sets.split(","):
        dataset = labelled(name, arguments)
        for teacher in arguments.teachers.split(","):
            table.add_row(name, teacher, *figures(dataset, teacher))
    Console(width=110).print(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("bench-out/quality"))
    parser.add_argument("--sets", default="coco_dev,ccp_dev,balloon_dev")
    parser.add_argument("--teachers", default="box,grabcut,u2netp,sam_vit_t")
    parser.add_argument("--limit", type=int, default=0, help="images a set, evenly taken; 0: all")
    parser.add_argument("--inline", action="store_true", help="no Ray")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the teachers")
    return parser.parse_args()


def labelled(name: str, arguments: argparse.Namespace) -> Dataset:
    """The set, ingested with its true masks and labelled by every teacher."""
    store = Store(str(arguments.out / f"{name}-{arguments.limit or 'all'}"))
    pool = PoolConfig(executor="inline" if arguments.inline else "ray")
    if store.read_optional("maskmill.json") is None:
        init(store)
    source = SourceConfig(
        format="coco", annotations=str(chosen_images(name, arguments)),
        images=str(arguments.data / name / "images"), name=name,
    )  # fmt: skip
    # Nothing is quarantined: the figures are to cover every object.
    lenient = ImagePolicy(min_sharpness=0, max_dark_fraction=2, max_bright_fraction=2)
    steps = [lambda: ingest(store, IngestConfig(source=source, policy=lenient, pool=pool))]
    base = LabelConfig(teacher="box", pool=pool)
    for teacher in arguments.teachers.split(","):
        config = replace(
            base, teacher=teacher, teacher_config=options_of(teacher, arguments.option)
        )
        steps.append(lambda config=config: label(store, config))
    for step in steps:
        try:
            step()
        except NothingToCommitError:
            continue
    return Dataset.open(store)


def options_of(teacher: str, words: list[str]) -> dict[str, str | int | float | bool]:
    """Those of some KEY=VALUE words that are settings of the teacher."""
    known = {field.name for field in fields(registry.spec(teacher).settings)}
    return {key: value for key, value in with_overrides({}, words).items() if key in known}


def chosen_images(name: str, arguments: argparse.Namespace) -> Path:
    """The truth file, or one with every n-th image of it."""
    path: Path = arguments.data / name / "masks.json"
    if not arguments.limit:
        return path
    document = json.loads(path.read_text())
    step = max(1, len(document["images"]) // arguments.limit)
    document["images"] = document["images"][::step][: arguments.limit]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [
        entry for entry in document["annotations"] if entry["image_id"] in kept
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = arguments.out / f"{name}-{arguments.limit}.json"
    chosen.write_text(json.dumps(document))
    return chosen


def figures(dataset: Dataset, teacher: str) -> list[str]:
    """The row of one teacher: a box without a mask counts as IoU 0."""
    ious, best, areas = [], [], []
    for shard in dataset.manifest.shards():
        truth = dataset.table(shard, schemas.MASKS_HUMAN).to_pylist()
        drawn = dataset.table(shard, schemas.masks_layer(teacher)).to_pylist()
        for true, mask in zip(truth, drawn, strict=True):
            if true["status"] != schemas.OK or true["area_px"] < MIN_AREA_PX:
                continue
            if mask["status"] == schemas.SKIPPED:  # a crowd: nobody was asked
                continue
            size_hw = true["height"], true["width"]
            outputs = [mask, *mask["candidates"]] if mask["status"] == schemas.OK else []
            found = [
                rle.paired_iou(output["counts"], true["counts"], size_hw=size_hw)
                for output in outputs
            ]
            ious.append(found[0] if found else 0.0)
            best.append(max(found, default=0.0))
            areas.append(true["area_px"])
    values, area = np.array(ious), np.array(areas)
    by_size = [values[(area >= low) & (area < high)] for low, high in SIZES.values()]
    shares = [f"{group.mean():.3f}" if len(group) else "-" for group in by_size]
    return [
        f"{len(values):,}", f"{values.mean():.3f}", *shares,
        f"{np.mean(best):.3f}", f"{(values >= 0.7).mean():.3f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
