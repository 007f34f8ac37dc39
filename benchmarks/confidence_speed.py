"""Applying a calibrator and a policy to ten million boxes: seconds and peak memory.

    python benchmarks/confidence_speed.py bench-out/confidence-speed

Makes a store whose boxes have three masks of one teacher and one of another, with
random signals (masks themselves are never read, so theirs are short), and the agreement of the two;
fits a calibrator to random gold; then runs `calibrate` with it and `filter` by a target, each in a
process of its own. Run again, it makes only what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from measured import linked_copy, run_measured
from rich.console import Console
from rich.table import Table

from engine.confidence.calibrator import Calibrator
from engine.confidence.features import feature_names
from engine.confidence.fit import fit
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Output
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import init, operation
from manifests.digest import sha256_hex
from manifests.ledger import Ledger
from manifests.manifest import Cell, Manifest
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.writer import Writer

TEACHERS = {"sam_vit_t": 3, "u2netp": 1}
IDENTITIES = {
    name: {"name": name, "version": 2, "weights_sha256": None, "config": {}} for name in TEACHERS
}
CATEGORIES = [f"category {number:02}" for number in range(80)]
BOXES_A_SHARD = 16_667
TARGET_S = 30


def main() -> None:
    arguments = parse_arguments()
    store = Store(str(arguments.folder))
    if store.read_optional("maskmill.json") is None:
        make_store(store, arguments.boxes)
    calibrator = store.put_bytes(fitted().to_bytes()).object_id
    table = Table(title=f"{arguments.boxes:,} boxes, {arguments.boxes * 4:,} masks, 2 cores")
    for name in ("step", "seconds", "CPU s", "peak MiB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    total = 0.0
    with linked_copy(arguments.folder) as copy:
        steps = {
            "calibrate, a given calibrator": APPLY.format(store=copy, calibrator=calibrator),
            "filter, target mean IoU": FILTER.format(store=copy),
        }
        for name, code in steps.items():
            run = run_measured([sys.executable, "-c", code])
            total += run.seconds
            row = f"{run.seconds:.1f}", f"{run.cpu_seconds:.1f}", f"{run.peak_mib:,.0f}"
            table.add_row(name, *row)
    table.add_row("both", f"{total:.1f}", "", "")
    Console(width=100).print(table)
    print(f"target {TARGET_S} s: {'met' if total <= TARGET_S else 'missed'}")


APPLY = """
from engine.confidence.calibrate import CalibrateConfig, calibrate
from manifests.store import Store
calibrate(Store("{store}"), CalibrateConfig(calibrator="{calibrator}"))
"""
FILTER = """
from engine.filter import FilterConfig, filter_masks
from engine.policy import Policy
from manifests.store import Store
policy = Policy.from_mapping({{"target": {{"mean_iou": 0.6}}}}, name="speed")
filter_masks(Store("{store}"), FilterConfig(policy=policy))
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--boxes", type=int, default=10_000_000)
    return parser.parse_args()


def make_store(store: Store, num_boxes: int) -> None:
    """The shards' cells and one commit for each teacher; no images."""
    init(store)
    rng = np.random.default_rng(0)
    cells: list[Cell] = []
    num_shards = -(-num_boxes // BOXES_A_SHARD)
    for number in range(num_shards):
        size = num_boxes // num_shards + (number < num_boxes % num_shards)
        cells += shard_cells(store, number, size, rng)
    for teacher in TEACHERS:
        writer = Writer(store, "main")
        shown = [cell for cell in cells if is_before(cell.layer, teacher)]
        writer.commit(
            Manifest(shown),
            operation=operation("label", version=2, config={}, teacher=IDENTITIES[teacher]),
            ledger=Ledger(), message=f"synthetic masks of {teacher}", even_if_unchanged=True,
        )  # fmt: skip


def is_before(layer: str, teacher: str) -> bool:
    """Whether a layer is there when that teacher has drawn; the last one sees all."""
    return teacher == list(TEACHERS)[-1] or not layer.startswith("masks/u2netp")


def shard_cells(store: Store, number: int, size: int, rng: np.random.Generator) -> list[Cell]:
    """One shard's cells; its id is no object: nobody looks at images here."""
    shard = sha256_hex(f"shard {number}".encode())
    num_images = max(1, size // 16)
    image_rows = np.sort(rng.integers(0, num_images, size))
    corner = rng.uniform(0, 300, (size, 2)).astype(np.float32)
    boxes_xyxy = np.concatenate([corner, corner + rng.uniform(8, 300, (size, 2))], axis=1)
    ids = [f"{number:08x}{row:024x}" for row in range(size)]
    images = [f"{number:08x}{row:024x}" for row in range(num_images)]
    tables = {
        schemas.IMAGE_INDEX: pa.table(
            {
                "image_id": images, "quarantine": pa.nulls(num_images, pa.string()),
                "height": pa.array(np.full(num_images, 600, np.int32)),
                "width": pa.array(np.full(num_images, 640, np.int32)),
            }
        ),
        schemas.BOXES: pa.table(
            {
                "annotation_id": ids, "image_id": pa.array(images).take(pa.array(image_rows)),
                "image_row": pa.array(image_rows, pa.int32()),
                "category": pa.array(CATEGORIES).take(pa.array(rng.integers(0, 80, size))),
                "box_xyxy": pa.FixedSizeListArray.from_arrays(
                    pa.array(boxes_xyxy.astype(np.float32).ravel()), 4
                ),
            }
        ),
        **{
            schemas.masks_layer(name): masks(size, num_outputs, rng)
            for name, num_outputs in TEACHERS.items()
        },
        schemas.AGREEMENT: pa.table(
            {
                schemas.pair_name(schemas.output_name("sam_vit_t", candidate), "u2netp"): pa.array(
                    rng.random(size, np.float32)
                )
                for candidate in range(TEACHERS["sam_vit_t"])
            }
        ),
    }  # fmt: skip
    return [
        write_cell(
            store, table, shard=shard, layer=layer, statistics=cell_statistics(layer, table)
        )
        for layer, table in tables.items()
    ]  # fmt: skip


def masks(size: int, num_outputs: int, rng: np.random.Generator) -> pa.Table:
    """MASKS_SCHEMA rows, all of them drawn."""
    columns = {
        "status": pa.array([schemas.OK] * size), "reason": pa.nulls(size, pa.string()),
        "height": pa.array(np.full(size, 600, np.int32)),
        "width": pa.array(np.full(size, 640, np.int32)),
        **fields(size, rng),
    }  # fmt: skip
    others = fields(size * (num_outputs - 1), rng)
    structs = pa.StructArray.from_arrays(list(others.values()), fields=schemas.MASK_FIELDS)
    offsets = pa.array(np.arange(size + 1) * (num_outputs - 1), pa.int32())
    columns["candidates"] = pa.ListArray.from_arrays(offsets, structs)
    return pa.table({name: columns[name] for name in schemas.MASKS_SCHEMA.names})


def fields(size: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Columns of MASK_FIELDS with random numbers."""
    found = {}
    for field in schemas.MASK_FIELDS:
        if pa.types.is_floating(field.type):
            found[field.name] = pa.array(rng.random(size, np.float32))
        elif pa.types.is_integer(field.type):
            found[field.name] = pa.array(rng.integers(1, 9, size)).cast(field.type)
        elif pa.types.is_binary(field.type):
            found[field.name] = pa.array([b"0000"] * size, pa.binary())
        else:
            flat = pa.array(np.zeros(size * 4, np.float32))
            found[field.name] = pa.FixedSizeListArray.from_arrays(flat, 4)
    return found


def fitted() -> Calibrator:
    """A calibrator for gold whose IoU is, with noise, one of its signals."""
    rng = np.random.default_rng(1)
    size = 2_000
    features = {name: feature_names(name, list(TEACHERS)) for name in TEACHERS}
    outputs = [
        Output(teacher=name, candidate=candidate)
        for name, number in TEACHERS.items()
        for candidate in range(number)
    ]
    values = {
        output: rng.random((size, len(features[output.teacher])), np.float32) for output in outputs
    }
    iou = {
        output: np.clip(table[:, 0] + rng.normal(0, 0.1, size), 0, 1).astype(np.float32)
        for output, table in values.items()
    }
    words: Sequence[str] = [f"{number // 7:032x}" for number in range(size)]
    table = pa.table({"image_id": words, "category": [CATEGORIES[n % 80] for n in range(size)]})
    found = fit(GoldBoxes(table=table, iou=iou, features=values), features, IDENTITIES)
    return Calibrator(
        heads=found.heads, choice=found.choice, chosen=found.chosen, certify_share=0.5,
        origin="fitted on random numbers",
    )  # fmt: skip


if __name__ == "__main__":
    main()
