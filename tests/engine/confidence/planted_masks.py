"""Datasets whose masks have a known IoU with the human ones, built by hand: no teacher runs.

A box is 20 pixels wide and its human mask fills it; a teacher's mask is its first columns, so its
IoU is their share. `predicted_iou` says the IoU and a little luck.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import rle, schemas
from manifests.cells import read_table, write_cell
from manifests.dataset import Dataset, init, operation
from manifests.ledger import Ledger
from manifests.manifest import Manifest
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.writer import Writer
from tests.manifests.conftest import DatasetBuilder, mask_row

SIZE_HW = (12, 24)
BOX = (2.0, 2.0, 22.0, 10.0)
WIDTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to build.

    Attributes:
        num_images, per_image, num_shards: see there.
        teachers: names; the first one has two candidates besides its own choice.
        is_gold: whether boxes of an image have a human mask, by the image's number.
        categories: in turn, box by box.
        missing: (teacher, number of a box) without a mask.
    """

    num_images: int = 40
    per_image: int = 5
    num_shards: int = 2
    teachers: tuple[str, ...] = ("a", "b")
    is_gold: Callable[[int], bool] = lambda number: True
    categories: tuple[str, ...] = ("shoe", "bag")
    missing: frozenset[tuple[str, int]] = frozenset()
    seed: int = 0
    source: Callable[[int], str] = lambda number: "shop"


def columns(num: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[H, W] the first columns of the box."""
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[2:10, 2 : 2 + num] = 1
    return mask


def fields(num: int, rng: np.random.Generator) -> dict[str, Any]:
    """MASK_FIELDS of the first columns; signals as float32 can hold."""
    counts = rle.encode(columns(num))
    iou = num / WIDTH
    return {
        "counts": counts, "area_px": num * 8,
        "mask_box_xyxy": rle.box_xyxy(counts, size_hw=SIZE_HW).tolist(),
        "predicted_iou": float(np.float32(np.clip(iou + 0.03 * rng.normal(), 0, 1))),
        "stability": float(np.float32(rng.random())), "box_iou": float(np.float32(iou)),
        "outside_fraction": 0.0, "fill_ratio": float(np.float32(rng.random())),
        "num_components": 1, "num_holes": 0,
    }  # fmt: skip


def planted(store: Store, plan: Plan) -> Dataset:
    """A store with one branch: a commit of all cells, and one that says who each teacher is."""
    init(store)
    builder, rng = DatasetBuilder(store), np.random.default_rng(plan.seed)
    per_shard = -(-plan.num_images // plan.num_shards)
    for number in range(plan.num_images):
        builder.image(
            f"{number}.png", size_hw=SIZE_HW, image_format="png", source=plan.source(number)
        )
        for _ in range(plan.per_image):
            _box(builder, plan, number, rng)
        if (number + 1) % per_shard == 0 or number + 1 == plan.num_images:
            builder.shard(verdicts=False)
    counted = [
        cell
        if cell.layer in schemas.IMAGE_LAYERS
        else dataclasses.replace(
            cell, statistics=cell_statistics(cell.layer, read_table(store, cell.object_id))
        )
        for cell in builder.cells
    ]
    _commit(store, Manifest(counted), "ingest")
    for name in plan.teachers:
        relabelled(store, name)
    return Dataset.open(store)


def _box(builder: DatasetBuilder, plan: Plan, image: int, rng: np.random.Generator) -> None:
    box = image * plan.per_image + len(builder.boxes) % plan.per_image
    layers = {
        schemas.masks_layer(name): mask_row(None, SIZE_HW, status=schemas.SKIPPED, reason="crowd")
        if (name, box) in plan.missing
        else _teacher_row(rng, with_candidates=name == plan.teachers[0])
        for name in plan.teachers
    }
    if plan.is_gold(image):
        layers[schemas.MASKS_HUMAN] = mask_row(columns(WIDTH), SIZE_HW)
    category = plan.categories[box % len(plan.categories)]
    builder.box(category, BOX, teacher=None, layers=layers)


def _teacher_row(rng: np.random.Generator, *, with_candidates: bool) -> dict[str, Any]:
    """IoUs above and below 0.7; two of three masks are good."""
    nums = [int(rng.integers(15, 21) if rng.random() < 2 / 3 else rng.integers(5, 14))]
    others = [int(rng.integers(5, 21)) for _ in range(2 * with_candidates)]
    row = mask_row(columns(nums[0]), SIZE_HW, **fields(nums[0], rng))
    return row | {"candidates": [fields(num, rng) for num in others]}


def identity(name: str, **more: Any) -> dict[str, Any]:
    """Who drew a layer."""
    return {"name": name, "version": 1, "weights_sha256": name * 64, "config": {}} | more


def relabelled(store: Store, teacher: str, **more: Any) -> None:
    """A commit of `label` that has no other cells."""
    drawn_by = identity(teacher, **more)
    made = operation("label", version=1, config={"teacher": teacher}, teacher=drawn_by)
    writer = Writer(store, "main")
    writer.commit(
        writer.dataset.manifest, operation=made, ledger=Ledger(), message=f"label with {teacher}",
        even_if_unchanged=True,
    )  # fmt: skip


def _commit(store: Store, manifest: Manifest, name: str) -> None:
    Writer(store, "main").commit(
        manifest, operation=operation(name, version=1, config={}), ledger=Ledger(), message=name
    )


def replaced(
    store: Store, layer: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> None:
    """A commit in which every row of a layer is changed."""
    dataset = Dataset.open(store)
    cells = []
    for cell in dataset.manifest.of_layer(layer):
        table = dataset.table(cell.shard, layer)
        rows = [{**row, **change(row)} for row in table.to_pylist()]
        made = pa.Table.from_pylist(rows, schema=table.schema)
        counted = cell_statistics(layer, made)
        cells.append(
            write_cell(
                store, made, shard=cell.shard, layer=layer, inputs=cell.inputs, statistics=counted
            )
        )
    _commit(store, dataset.manifest.with_cells(cells), "change")


def rows_of(dataset: Dataset, layer: str) -> list[dict[str, Any]]:
    """All rows of a layer, shard by shard in the order of the manifest."""
    found: list[dict[str, Any]] = []
    for shard in dataset.manifest.shards():
        found += dataset.table(shard, layer).to_pylist()
    return found


def memory(name: str) -> Store:
    """A store of its own in memory."""
    return Store(f"memory://{name}-{uuid.uuid4().hex}")
