"""How far SAM's masks and signals depend on threads, batches and the CPU's instructions.

    python benchmarks/same_masks.py --data ../shared/data/balloon_dev --images 16

Each row labels the same photos with one thing changed, in a process of its own, and counts the
boxes whose masks, and whose masks and signals together, are those of the first row bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.ingest import ingest
from engine.ingest_config import IngestConfig
from engine.label import LabelConfig, label
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import Dataset, init
from manifests.refs import Refs
from manifests.store import Store

_HERE = PoolConfig(executor="inline")
_PLAIN: dict[str, int] = {"num_threads": 2, "box_batch": 2}
_ROWS: tuple[tuple[str, dict[str, int], int, dict[str, str]], ...] = (
    ("2 threads, boxes in pairs", _PLAIN, 1, {}),
    ("the same again", _PLAIN, 1, {}),
    ("4 images together", _PLAIN, 4, {}),
    ("1 thread", {**_PLAIN, "num_threads": 1}, 1, {}),
    ("3 threads", {**_PLAIN, "num_threads": 3}, 1, {}),
    ("8 boxes together", {**_PLAIN, "box_batch": 8}, 1, {}),
    ("AVX2 at most", _PLAIN, 1, {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "avx2"}),
)
"""Name, the teacher's settings, images in a batch, environment."""


def label_once(store_url: str, branch: str, settings: Mapping[str, int], batch: int) -> None:
    """Labels a branch; every mask is drawn anew, since its settings would be found otherwise."""
    store = Store(store_url, scratch=branch)
    config = LabelConfig(
        teacher="sam_vit_t", teacher_config=dict(settings), branch=branch, image_batch=batch,
        pool=_HERE,
    )  # fmt: skip
    label(store, config)


def digests(store: Store, branch: str) -> list[tuple[str, str]]:
    """For every box, what its mask and what its whole row come to."""
    dataset = Dataset.open(store, branch)
    rows: list[dict[str, Any]] = []  # Any: one value of each column
    for shard in dataset.manifest.shards():
        rows += dataset.table(shard, "masks/sam_vit_t").to_pylist()
    return [(_digest(row["counts"]), _digest(row)) for row in rows]


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _subset(data: Path, images: int, folder: Path) -> Path:
    document = json.loads((data / "boxes.json").read_text())
    document["images"] = document["images"][:images]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    path = folder / "boxes.json"
    path.write_text(json.dumps(document))
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        url, branch, settings, batch = given.one
        label_once(url, branch, json.loads(settings), int(batch))
        return
    table = Table(title=f"sam_vit_t on {given.data.name}, {given.images} photos, on a CPU")
    for name in ("changed", "boxes", "masks the same", "masks and signals the same"):
        table.add_column(name, justify="left" if name == "changed" else "right")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder) / "store"))
        init(store)
        source = SourceConfig(
            format="coco", annotations=str(_subset(given.data, given.images, Path(folder))),
            images=str(given.data / "images"), name="photos",
        )  # fmt: skip
        start = ingest(store, IngestConfig(source=source, pool=_HERE))
        first: list[tuple[str, str]] = []
        for number, (name, settings, batch, environment) in enumerate(_ROWS):
            branch = f"row-{number}"
            Refs(store).create_branch(branch, start)
            one = [store.url, branch, json.dumps(settings), str(batch)]
            command = [sys.executable, __file__, "--data", str(given.data), "--one", *one]
            subprocess.run(command, env=os.environ | environment, check=True)
            found = digests(store, branch)
            first = first or found
            same = [
                sum(a[part] == b[part] for a, b in zip(first, found, strict=True))
                for part in (0, 1)
            ]
            table.add_row(name, str(len(found)), *map(str, same))
    Console().print(table)


if __name__ == "__main__":
    main()
