"""Samples a second of the student's loader, beside a webdataset pipeline to the same canvas.

    python benchmarks/student_loader.py --data ../shared/data/ccp_dev

Both read photos and human masks in one process without helpers, jitter the scale, crop, flip,
and collate to the same canvas. webdataset reads tars that `maskmill export webdataset` wrote,
decodes with Pillow and pycocotools, and resizes with OpenCV. They take turns; the median counts.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import webdataset
from command import maskmill
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from manifests.store import Store
from student.config import StudentConfig
from student.config_files import load_config
from student.data.loader import step_batches
from student.data.order import World
from student.data.training_data import TrainingData
from student.text.encoder import build_text_encoder
from student.text.table import TextTable

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sides", type=int, nargs="*", default=[256, 640, 1024])
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = Table("canvas", "webdataset, samples/s", "student's loader, samples/s", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        store, tars = prepared(arguments.data, Path(folder))
        for side in arguments.sides:
            ours, theirs = [], []
            for turn in range(arguments.turns):
                config = config_of(side, folder)
                theirs.append(rate(webdataset_batches(tars, config, turn), arguments.images))
                ours.append(rate(student_batches(store, config, turn), arguments.images))
            mine, other = statistics.median(ours), statistics.median(theirs)
            table.add_row(f"{side} px", f"{other:.1f}", f"{mine:.1f}", f"{mine / other:.2f}x")
    Console(width=100).print(table)


def prepared(data: Path, folder: Path) -> tuple[Store, Path]:
    """A store with the photos and human masks, and its export."""
    url, tars = folder / "store", folder / "tars"
    for words in (
        ("init",),
        ("ingest", "coco", data / "masks.json", data / "images", "--inline"),
        ("export", "webdataset", tars, "--layer", "masks/human"),
    ):
        maskmill(*words, "--store", url)
    return Store(str(url)), tars


def config_of(side: int, folder: str) -> StudentConfig:
    words = [
        "data.masks=masks/human", f"data.image_side={side}", "data.workers=0",
        f"data.cache_folder={folder}/cache", "model.text.encoder=hashed",
    ]  # fmt: skip
    return load_config(None, words, size="tiny")


def rate(batches: Iterator[Any], num_images: int) -> float:
    """Samples a second after the first batch."""
    size = len(next(batches).images)
    start = time.perf_counter()
    seen = 0
    while seen < num_images:
        seen += len(next(batches).images)
    return (seen // size * size) / (time.perf_counter() - start)


def student_batches(store: Store, config: StudentConfig, turn: int) -> Iterator[Any]:
    data = TrainingData.open(store, "main", config.data)
    texts = TextTable(build_text_encoder(config.model.text))
    first = 1000 * turn
    steps = step_batches(
        data, texts, config, world=World(rank=0, size=1), first_step=first, last_step=first + 999
    )
    for (batch,) in steps:
        yield batch


class Collated:
    """Images [B, 3, S, S] and a list of masks [N, S, S]."""

    def __init__(self, samples: list[tuple[NDArray[np.float32], NDArray[np.uint8]]]) -> None:
        self.images = torch.from_numpy(np.stack([image for image, _ in samples]))
        self.masks = [torch.from_numpy(masks) for _, masks in samples]


def webdataset_batches(tars: Path, config: StudentConfig, turn: int) -> Iterator[Collated]:
    rng = np.random.default_rng(turn)
    names = sorted(map(str, tars.glob("*.tar")))
    samples = webdataset.WebDataset(names, shardshuffle=False).shuffle(200, seed=turn).repeat()
    batch: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    for sample in samples:
        batch.append(augmented(sample, config, rng))
        if len(batch) == config.train.batch:
            yield Collated(batch)
            batch = []


def augmented(
    sample: dict[str, Any], config: StudentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Large-scale jitter as it is usually written: decode all, resize all, crop all."""
    key = next(name for name in ("jpg", "png", "webp") if name in sample)
    image = np.asarray(Image.open(io.BytesIO(sample[key])).convert("RGB"))
    record = json.loads(sample["json"])
    rles = [a["segmentation"] for a in record["annotations"]]
    masks = coco_mask.decode(rles) if rles else np.zeros((*image.shape[:2], 0), np.uint8)
    side, data = config.data.image_side, config.data
    scale = rng.uniform(data.scale_min, data.scale_max) * side / max(image.shape[:2])
    size_wh = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, size_wh, interpolation=how)
    resized = [cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST)
               for mask in np.moveaxis(masks, 2, 0)]  # fmt: skip
    top = int(rng.integers(0, max(1, image.shape[0] - side + 1)))
    left = int(rng.integers(0, max(1, image.shape[1] - side + 1)))
    image = image[top : top + side, left : left + side]
    canvas = np.zeros((side, side, 3), np.float32)
    canvas[: image.shape[0], : image.shape[1]] = (image - MEAN) / DEVIATION
    placed = np.zeros((len(resized), side, side), np.uint8)
    for number, mask in enumerate(resized):
        part = mask[top : top + side, left : left + side]
        placed[number, : part.shape[0], : part.shape[1]] = part
    if rng.random() < data.flip:
        canvas, placed = canvas[:, ::-1], placed[:, :, ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)), np.ascontiguousarray(placed)


if __name__ == "__main__":
    main()
