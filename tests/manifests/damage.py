"""A small whole store with every kind of object in it, and ways to damage one of them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from manifests import layout, schemas
from manifests.cells import read_table
from manifests.dataset import Dataset, init, operation
from manifests.findings import Finding
from manifests.fsck import FsckOptions, FsckReport, fsck
from manifests.ledger import Ledger
from manifests.manifest import Cell, Manifest
from manifests.parquet import table_to_parquet
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.statistics import category_counts
from manifests.store import Store
from manifests.writer import Writer
from tests.manifests.conftest import DatasetBuilder, mask_row

STEPS = {
    "ingest": (schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN),
    "label": (schemas.masks_layer("mobile_sam"),),
    "filter": (schemas.VERDICTS,),
}
Hurt = Callable[[bytes], bytes | None]


def flipped(data: bytes, at: int | None = None) -> bytes:
    """One bit of a byte: that in the middle, or in small JSON files the first."""
    if at is None:
        at = 0 if data[:1] == b"{" else len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


HURTS: dict[str, Hurt] = {
    "flipped": flipped,
    "truncated": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "missing": lambda data: None,
}
"""What is under the key afterwards; None: nothing."""


@dataclass(frozen=True)
class WholeStore:
    """A store with main (init, ingest, label, filter), tag v1 at the label, and rejects."""

    store: Store
    dataset: Dataset
    commits: dict[str, str]

    @property
    def shard(self) -> str:
        return self.dataset.manifest.shards()[0]

    def object_of(self, layer: str) -> str:
        return self.dataset.cell(self.shard, layer).object_id

    def positions(self) -> dict[str, str]:
        """What it is -> its key: every kind of object that a store has."""
        found = {layer: self.object_of(layer) for step in STEPS.values() for layer in step}
        found |= {
            "head commit": self.commits["filter"],
            "old commit": self.commits["ingest"],
            "head manifest": self.dataset.commit.manifest,
            "old manifest": Dataset(self.store, self.commits["ingest"]).commit.manifest,
            "rejects": Dataset(self.store, self.commits["ingest"]).commit.rejects or "",
            "removed": self.dataset.commit.removed or "",
        }
        keys = {name: layout.object_path(object_id) for name, object_id in found.items()}
        return keys | {
            "marker": layout.MARKER,
            "newest entry": layout.ref_entry_path(layout.HEADS, "main", 4),
            "old entry": layout.ref_entry_path(layout.HEADS, "main", 2),
            "tag": layout.ref_entry_path(layout.TAGS, "v1", 1),
        }

    @contextmanager
    def damaged(self, key: str, hurt: Hurt) -> Iterator[None]:
        """Damages what is under a key, and makes it whole again."""
        data = self.store.read_optional(key)
        assert data is not None
        bad = hurt(data)
        if bad is None:
            self.store.remove(key)
        else:
            self.store.overwrite(key, bad)
        try:
            yield
        finally:
            self.store.overwrite(key, data)


def make_whole_store(url: str) -> WholeStore:
    """Two shards of small noise pictures with every layer."""
    store = Store(url)
    commits = {"init": init(store)}
    builder = DatasetBuilder(store)
    fill(builder)
    for step, layers in STEPS.items():
        writer = Writer(store, "main")
        added = [_counted(store, cell) for cell in builder.cells if cell.layer in layers]
        commits[step] = writer.commit(
            Manifest([*writer.dataset.manifest, *added]),
            operation=operation(
                step, version=1, config={"name": "default"},
                teacher={"name": "mobile_sam"} if step == "label" else None,
            ),
            ledger=Ledger(),
            message=step,
            rejects=_rejects(store) if step == "ingest" else None,
            removals=_removals() if step == "filter" else None,
        )  # fmt: skip
    Refs(store).create_tag("v1", commits["label"])
    return WholeStore(store, Dataset.open(store), commits)


def _counted(store: Store, cell: Cell) -> Cell:
    """With the statistics that real steps give to boxes."""
    if cell.layer != schemas.BOXES:
        return cell
    categories = read_table(store, cell.object_id)["category"]
    return replace(cell, statistics=category_counts(categories))


def fill(builder: DatasetBuilder) -> None:
    """Two shards; the first has two images, three boxes, human masks and candidates."""
    for name, source_id in (("a.jpg", "1"), ("b.jpg", "2")):
        builder.image(name, source_image_id=source_id)
        builder.box("cat", (2, 3, 9, 8), layers={schemas.MASKS_HUMAN: human_row()})
    builder.box("dog", (0, 0, 20, 12), layers={schemas.masks_layer("mobile_sam"): three_masks()})
    builder.shard()
    builder.image("c.png", image_format="png", size_hw=(7, 5))
    builder.box("cat", (1, 1, 4, 4), keep=False, reason="low_box_iou")
    builder.shard()


def blob(seed: int, size_hw: tuple[int, int] = (12, 20)) -> np.ndarray:
    """[H, W] a mask of noise, never empty."""
    mask = np.random.default_rng(seed).integers(0, 2, size_hw, dtype=np.uint8)
    mask[0, 0] = 1
    return mask


def human_row() -> dict[str, object]:
    return mask_row(blob(1), (12, 20))


def three_masks() -> dict[str, object]:
    """A row with two candidates beside the chosen mask."""
    fields = [field.name for field in schemas.MASK_FIELDS]
    others = [mask_row(blob(seed), (12, 20)) for seed in (2, 3)]
    candidates = [{name: other[name] for name in fields} for other in others]
    return mask_row(blob(4), (12, 20), candidates=candidates)


def _rejects(store: Store) -> str:
    row = dict.fromkeys(schemas.REJECTS_SCHEMA.names)
    row |= {"layer": "images", "outcome": "failed", "reason": "undecodable", "source": "shop"}
    table = pa.Table.from_pylist([row], schema=schemas.REJECTS_SCHEMA)
    return store.put_bytes(table_to_parquet(table)).object_id


def _removals() -> Removals:
    gone = RemovedImage(
        image_id="1" * 32, file_name="x.jpg", source="shop", shard="2" * 64, successor=None,
        reason="licence", author="somebody", time="2026-11-23T20:00:00Z",
    )  # fmt: skip
    return Removals([gone])


def store_at(folder: Path) -> WholeStore:
    """One in a local folder."""
    return make_whole_store(str(folder / "store"))


def filled(builder: DatasetBuilder) -> Dataset:
    fill(builder)
    return builder.commit()


def image_complaint(data: bytes, size_hw: tuple[int, int]) -> str | None:
    """As engine.stored_image, which this package does not know."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError) as error:
        return str(error)
    return None if (image.height, image.width) == size_hw else f"it is {image.size}"


def look(store: Store, *, full: bool = True, **more: Any) -> FsckReport:
    """Everything is looked at, nothing is moved."""
    options = FsckOptions(full=full, quarantine=False, check_image=image_complaint)
    return fsck(store, replace(options, **more))


def damage_in(report: FsckReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity == "damage"]


def assert_says(pattern: str, finding: Finding) -> None:
    """A regular expression in the sentence."""
    assert re.search(pattern, finding.sentence), finding.sentence
