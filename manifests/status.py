"""What a ref has and what is missing: half-labelled layers, stale cells, categories without gold.

Everything comes from the manifest's statistics. Only for gold by category are cells opened: two
columns of shards in which some boxes have a human mask and others have none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow.compute as pc

from manifests import schemas
from manifests.dataset import Dataset
from manifests.in_parallel import in_parallel
from manifests.last_made import LastMade
from manifests.manifest import Cell, Manifest
from manifests.removed import Removals
from manifests.statistics import rows_by_category, value_counts
from manifests.status_records import CategoryStatus, LayerStatus, Todo
from manifests.status_todo import things_to_do

_THREADS = 8
_QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """See the module.

    Attributes:
        num_removed: images that were taken down.
        num_unjudged: boxes of shards without verdicts.
        categories: with the fewest human masks first.
        todo: in the order in which to do it; empty: nothing is missing.
    """

    commit_id: str
    num_shards: int
    num_images: int
    num_quarantined: int
    num_removed: int
    num_boxes: int
    num_unjudged: int
    layers: tuple[LayerStatus, ...]
    categories: tuple[CategoryStatus, ...]
    todo: tuple[Todo, ...]


def status(dataset: Dataset, *, branch: str = "") -> Status:
    """Looks a commit over.

    Args:
        dataset: the commit.
        branch: the branch that the commands are to name, if it is not `main`.

    Raises:
        ObjectMissingError, ObjectDamagedError: an object cannot be read.
    """
    manifest = dataset.manifest
    made = LastMade.of(dataset)
    layers = tuple(_layer(manifest, layer, made) for layer in manifest.layers())
    by_name = {layer.layer: layer for layer in layers}
    boxes = by_name.get(schemas.BOXES)
    judged = {cell.shard for cell in manifest.of_layer(schemas.VERDICTS)}
    index = by_name.get(schemas.IMAGE_INDEX)
    return Status(
        commit_id=dataset.commit_id,
        num_shards=len(manifest.shards()),
        num_images=index.num_rows if index else 0,
        num_quarantined=index.counts.get(_QUARANTINED, 0) if index else 0,
        num_removed=len(Removals.load(dataset.store, dataset.commit).image_ids),
        num_boxes=boxes.num_rows if boxes else 0,
        num_unjudged=sum(cell.num_rows for cell in _with_boxes(manifest, without=judged)),
        layers=layers,
        categories=_categories(dataset),
        todo=tuple(things_to_do(dataset, layers, made, branch)),
    )


def _with_boxes(manifest: Manifest, *, without: set[str]) -> list[Cell]:
    """Cells of `boxes` that have rows, of shards that are not among some."""
    cells = manifest.of_layer(schemas.BOXES)
    return [cell for cell in cells if cell.num_rows and cell.shard not in without]


def _layer(manifest: Manifest, layer: str, made: LastMade) -> LayerStatus:
    cells = manifest.of_layer(layer)
    counts: Counter[str] = Counter()
    if layer != schemas.BOXES:
        for cell in cells:
            counts.update(cell.statistics)
    stale = [cell for cell in cells if made.is_stale(manifest, cell)]
    without = _with_boxes(manifest, without={cell.shard for cell in cells})
    lacking = [cell for cell in without if made.should_have(manifest, layer, cell.shard)]
    return LayerStatus(
        layer=layer,
        num_cells=len(cells),
        num_rows=sum(cell.num_rows for cell in cells),
        counts={name: count for name, count in sorted(counts.items()) if count},
        num_lacking=len(lacking),
        num_lacking_rows=sum(cell.num_rows for cell in lacking),
        num_stale=len(stale),
        num_stale_rows=sum(cell.num_rows for cell in stale),
    )


# -- gold ----------------------------------------------------------------------------------------


def _categories(dataset: Dataset) -> tuple[CategoryStatus, ...]:
    boxes: Counter[str] = Counter()
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        boxes.update(rows_by_category(cell))
    gold: Counter[str] = Counter()
    human = dataset.manifest.of_layer(schemas.MASKS_HUMAN)
    for counts in in_parallel(lambda cell: _gold(dataset, cell), human, num_threads=_THREADS):
        gold.update(counts)
    found = [
        CategoryStatus(category=name, num_boxes=count, num_gold=gold[name])
        for name, count in boxes.items()
    ]
    return tuple(sorted(found, key=lambda row: (row.num_gold, -row.num_boxes, row.category)))


def _gold(dataset: Dataset, human: Cell) -> dict[str, int]:
    """Category -> boxes with a human mask, in one shard."""
    num_ok = human.statistics.get(schemas.OK)
    if num_ok == 0 or (num_ok is None and human.statistics):
        return {}
    boxes = dataset.cell(human.shard, schemas.BOXES)
    if num_ok == human.num_rows and boxes.statistics:
        return rows_by_category(boxes)
    statuses = dataset.table(human.shard, human.layer, columns=["status"])["status"]
    categories = dataset.table(human.shard, schemas.BOXES, columns=["category"])["category"]
    return value_counts(categories.filter(pc.equal(statuses, schemas.OK)))
