"""Images/s of the label job against two loops over the same photos, in turns, in one run.

    python benchmarks/label_throughput.py --data ../shared/data/coco_dev --images 10 --rounds 5

job     the label job on Ray, one worker: read, decode, predict, signals, RLE, Parquet, publish
bare    the same teacher over images already in memory, its masks thrown away
naive   what a user would write: segment-anything's predictor, a box at a time, encode, one JSON
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from engine.decode import ImageRgb, decode_stored
from engine.driver import Driver, DriverConfig
from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.label import LabelConfig, _build_worker, plan_label
from engine.pool import PoolConfig, open_pool
from engine.sources.protocol import SourceConfig
from manifests import schemas
from manifests.dataset import Dataset, init
from manifests.image_tar import stream_images
from manifests.store import Store
from teachers import registry

Photo = tuple[ImageRgb, np.ndarray]


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
        rows = measure(arguments, Path(folder))
    show(arguments, rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/coco_dev"))
    parser.add_argument("--teacher", default="sam_vit_t")
    parser.add_argument("--images", type=int, default=10, help="images a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> list[tuple[float, float, float]]:
    """Seconds of (job, bare, naive) for each round; a round is one shard, the first warms up."""
    dataset = ingested(arguments, folder)
    config = LabelConfig(teacher=arguments.teacher)
    identity = registry.identity(arguments.teacher)
    payloads = plan_label(dataset, identity.name, asdict(identity))[: arguments.rounds + 1]
    teacher = registry.build(arguments.teacher, {})
    naive = naive_loop(folder) if arguments.teacher.startswith("sam") else None
    pool_config = PoolConfig(workers=1, cpus_per_worker=arguments.threads)
    build = partial(_build_worker, dataset.store, config)
    rows = []
    with open_pool(build, config=pool_config, default_cpus=1, num_tasks=1) as pool:
        for number, payload in enumerate(payloads):
            photos = photos_of(dataset, payload.shard)
            driver = Driver(dataset.store, pool, config=DriverConfig())
            row = (
                timed(partial(driver.run, [payload])),
                timed(partial(bare_loop, teacher, photos)),
                timed(partial(naive, photos)) if naive else float("nan"),
            )
            if number:
                rows.append(row)
                print(
                    f"round {number}: job {row[0]:.2f} s, bare {row[1]:.2f} s, naive {row[2]:.2f} s"
                )
    return rows


def ingested(arguments: argparse.Namespace, folder: Path) -> Dataset:
    store = Store(str(folder / "store"))
    init(store)
    source = SourceConfig(
        format="coco", annotations=str(arguments.data / "boxes.json"),
        images=str(arguments.data / "images"), name="bench",
    )  # fmt: skip
    config = IngestConfig(
        source=source, shard_images=arguments.images, policy=ImagePolicy(min_sharpness=0),
        pool=PoolConfig(executor="inline"),
    )  # fmt: skip
    return Dataset(store, ingest(store, config))


def photos_of(dataset: Dataset, shard: str) -> list[Photo]:
    """Decoded images of a shard with the boxes that the job prompts with."""
    index = dataset.table(shard, schemas.IMAGE_INDEX).to_pylist()
    boxes = dataset.table(shard, schemas.BOXES).to_pylist()
    spans = [(row["offset"], row["size"]) for row in index]
    prompts: list[list[list[float]]] = [[] for _ in index]
    for row in boxes:
        if not (row["is_crowd"] or row["is_group_of"]):
            prompts[row["image_row"]].append(row["box_xyxy"])
    images = [decode_stored(data) for data in stream_images(dataset.store, shard, spans)]
    return [
        (image, np.array(found, dtype=np.float32).reshape(-1, 4))
        for image, found in zip(images, prompts, strict=True)
    ]


def bare_loop(teacher: object, photos: Sequence[Photo]) -> None:
    for image, boxes in photos:
        for chunk in teacher.predict([image], [boxes]):  # type: ignore[attr-defined]
            del chunk


def naive_loop(folder: Path) -> Callable[[Sequence[Photo]], None]:
    """The upstream predictor, used as its documentation shows."""
    from naive_sam import upstream_predictor

    predictor = upstream_predictor()

    def loop(photos: Sequence[Photo]) -> None:
        results = []
        for image, boxes in photos:
            predictor.set_image(image)
            for box in boxes:
                masks, scores, _ = predictor.predict(box=box, multimask_output=True)
                best = int(scores.argmax())
                rle = coco_mask.encode(np.asfortranarray(masks[best].astype(np.uint8)))
                results.append({"counts": rle["counts"].decode(), "score": float(scores[best])})
        (folder / "naive.json").write_text(json.dumps(results))

    return loop


def timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def show(arguments: argparse.Namespace, rows: list[tuple[float, float, float]]) -> None:
    job, bare, naive = (np.array(column) for column in zip(*rows, strict=True))
    table = Table(
        title=f"{arguments.teacher}, {arguments.images} images a round, {len(rows)} rounds, "
        f"{arguments.threads} threads", title_justify="left",
    )  # fmt: skip
    for column in ("", "images/s", "job / this, median", "lowest", "highest"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in (("label job", job), ("bare loop", bare), ("naive loop", naive)):
        ratio = seconds / job
        figures = [
            arguments.images / np.median(seconds),
            np.median(ratio),
            ratio.min(),
            ratio.max(),
        ]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
