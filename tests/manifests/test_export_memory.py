"""Memory of an export is that of one shard, however many annotations there are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.dataset import Dataset
from manifests.export import export


def test_memory_does_not_grow_with_annotations(builder: Any, tmp_path: Path) -> None:
    few = _peak_bytes(_many(builder, num_shards=2), tmp_path / "few")
    many = _peak_bytes(_many(builder, num_shards=10), tmp_path / "many")
    # 20,000 more annotations; as Python dictionaries they would take some 30 MB.
    assert many < few + 2 * 2**20


def _many(builder: Any, *, num_shards: int) -> Dataset:
    while len({cell.shard for cell in builder.cells}) < num_shards:
        builder.image("a.jpg", source_image_id=str(len(builder.cells) + 1))
        builder.box("hat", (1, 1, 9, 9), source_annotation_id=str(len(builder.cells)))
        for name in ("boxes", "verdicts"):
            setattr(builder, name, getattr(builder, name) * 2500)
        builder.masks = {layer: rows * 2500 for layer, rows in builder.masks.items()}
        builder.shard()
    return builder.commit()


def _peak_bytes(dataset: Dataset, target: Path) -> int:
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        export(dataset, str(target), format="coco")
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
