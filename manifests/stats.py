"""What a ref holds, from its manifest and commit alone: no cell is opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from manifests import schemas
from manifests.dataset import Dataset
from manifests.statistics import rows_by_category


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStats:
    """Sums over the cells of one layer; `counts` are the cells' own, such as `ok` or `kept`."""

    layer: str
    num_cells: int
    num_rows: int
    num_bytes: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStats:
    """Sizes of a commit. `categories` are boxes by category, most frequent first."""

    commit_id: str
    num_shards: int
    num_images: int
    num_boxes: int
    layers: tuple[LayerStats, ...]
    categories: dict[str, int]


def stats(dataset: Dataset) -> DatasetStats:
    """Sums over the manifest."""
    manifest = dataset.manifest
    categories: Counter[str] = Counter()
    for cell in manifest.of_layer(schemas.BOXES):
        categories.update(rows_by_category(cell))
    layers = tuple(_layer_stats(dataset, layer) for layer in manifest.layers())
    rows = {layer.layer: layer.num_rows for layer in layers}
    return DatasetStats(
        commit_id=dataset.commit_id,
        num_shards=len(manifest.shards()),
        num_images=rows.get(schemas.IMAGES, 0),
        num_boxes=rows.get(schemas.BOXES, 0),
        layers=layers,
        categories=dict(categories.most_common()),
    )


def _layer_stats(dataset: Dataset, layer: str) -> LayerStats:
    cells = dataset.manifest.of_layer(layer)
    counts: Counter[str] = Counter()
    if layer != schemas.BOXES:
        for cell in cells:
            counts.update(cell.statistics)
    return LayerStats(
        layer=layer,
        num_cells=len(cells),
        num_rows=sum(cell.num_rows for cell in cells),
        num_bytes=sum(cell.num_bytes for cell in cells),
        counts=dict(sorted(counts.items())),
    )
