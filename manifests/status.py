"""What a ref has and what is missing: half-labelled layers, stale cells, categories without gold.

Everything comes from the manifest's statistics. Only for gold by category are cells opened: two
columns of shards in which some boxes have a human mask and others have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from manifests import schemas
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.history import newest
from manifests.in_parallel import in_parallel
from manifests.manifest import Cell, Manifest
from manifests.removed import Removals
from manifests.statistics import rows_by_category, value_counts

_MASKS = schemas.masks_layer("")
_THREADS = 8
_QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatus:
    """One layer of a ref.

    Attributes:
        num_cells: shards that have it.
        num_rows: rows of these.
        counts: rows by status (masks), or kept and by drop reason (verdicts).
        num_lacking: shards that should have it and do not.
        num_lacking_rows: boxes of these shards.
        num_stale: cells that were computed from objects the shard does not have any more.
        num_stale_rows: rows of these.
    """

    layer: str
    num_cells: int
    num_rows: int
    counts: Mapping[str, int]
    num_lacking: int = 0
    num_lacking_rows: int = 0
    num_stale: int = 0
    num_stale_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryStatus:
    """A category's boxes, and how many of them have a human mask."""

    category: str
    num_boxes: int
    num_gold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """Something that is missing, and the command that mends it; "" if only people can."""

    layer: str
    what: str
    command: str


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
    policy = _newest_policy(dataset)
    layers = tuple(_layer(manifest, layer, policy) for layer in manifest.layers())
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
        todo=tuple(_todo(dataset, layers, policy, branch)),
    )


def _with_boxes(manifest: Manifest, *, without: set[str]) -> list[Cell]:
    """Cells of `boxes` that have rows, of shards that are not among some."""
    cells = manifest.of_layer(schemas.BOXES)
    return [cell for cell in cells if cell.num_rows and cell.shard not in without]


def _layer(manifest: Manifest, layer: str, policy: Mapping[str, Any]) -> LayerStatus:  # Any: JSON
    cells = manifest.of_layer(layer)
    counts: Counter[str] = Counter()
    if layer != schemas.BOXES:
        for cell in cells:
            counts.update(cell.statistics)
    stale = [cell for cell in cells if is_stale(manifest, cell, policy)]
    is_for_all = layer == schemas.VERDICTS or _is_drawn(layer)
    have = {cell.shard for cell in cells}
    lacking = _with_boxes(manifest, without=have) if is_for_all else []
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


def is_stale(manifest: Manifest, cell: Cell, policy: Mapping[str, Any]) -> bool:  # Any: JSON
    """Whether a cell was computed from what its shard does not have any more.

    Of masks only the boxes count: a new origin of an image changes its index and no mask, and rows
    that were carried over come from an older cell on purpose. Verdicts are stale as well where a
    layer that the policy names came after them. A cell that names no inputs is not known to be.
    """
    if not cell.inputs:
        return False
    current = {found.layer: found.object_id for found in manifest.of_shard(cell.shard)}
    if cell.layer.startswith(_MASKS):
        return current.get(schemas.BOXES) not in cell.inputs
    if cell.layer == schemas.VERDICTS:
        wanted = [schemas.masks_layer(name) for name in policy.get("teachers", ())]
        came_later = [current[layer] for layer in wanted if layer in current]
        known = set(cell.inputs)
        return not known <= set(current.values()) or not known.issuperset(came_later)
    return False


def _is_drawn(layer: str) -> bool:
    return layer.startswith(_MASKS) and layer != schemas.MASKS_HUMAN


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


# -- what to do ----------------------------------------------------------------------------------


def _newest_policy(dataset: Dataset) -> Mapping[str, Any]:  # Any: JSON
    """What the last `filter` was configured with; {} if there was none."""
    if not dataset.manifest.of_layer(schemas.VERDICTS):
        return {}
    last = newest(dataset.store, dataset.commit_id, _is_filter)
    return last.commit.operation.config if last else {}


def _is_filter(commit: Commit) -> bool:
    return commit.operation.name == "filter"


def _todo(
    dataset: Dataset,
    layers: Sequence[LayerStatus],
    policy: Mapping[str, Any],  # Any: JSON
    branch: str,
) -> Iterator[Todo]:
    there = f" --branch {branch}" if branch and branch != "main" else ""
    names = {layer.layer for layer in layers}
    if not dataset.manifest.shards():
        yield Todo(layer=schemas.IMAGES, what="no images yet", command=f"maskmill ingest{there}")
        return
    for layer in layers:
        if _is_drawn(layer.layer):
            yield from _todo_masks(dataset, layer, there)
        elif layer.layer == schemas.MASKS_HUMAN and layer.num_stale:
            what = f"{_boxes(layer.num_stale_rows)} stale: their boxes changed since"
            yield Todo(layer=layer.layer, what=what, command="")
    if not any(map(_is_drawn, names)):
        what = "no teacher has drawn masks yet"
        yield Todo(layer="masks", what=what, command=f"maskmill label TEACHER{there}")
    if any(name.startswith(_MASKS) for name in names):
        yield from _todo_verdicts(layers, policy, there)


def _todo_masks(dataset: Dataset, layer: LayerStatus, there: str) -> Iterator[Todo]:
    counts = layer.counts
    parts = [
        f"{_boxes(layer.num_lacking_rows)} in {_shards(layer.num_lacking)} without masks"
        if layer.num_lacking else "",
        f"{_boxes(layer.num_stale_rows)} in {_shards(layer.num_stale)} stale"
        if layer.num_stale else "",
        f"{_boxes(counts[schemas.PENDING])} pending" if counts.get(schemas.PENDING) else "",
    ]  # fmt: skip
    what = ", ".join(part for part in parts if part)
    teacher = layer.layer.removeprefix(_MASKS)
    if what:
        command = f"maskmill label {teacher}{_settings(dataset, teacher)}{there}"
        yield Todo(layer=layer.layer, what=what, command=command)
    if failed := counts.get(schemas.FAILED):
        command = f"maskmill label {teacher}{_settings(dataset, teacher)} --retry-failed{there}"
        yield Todo(layer=layer.layer, what=f"{_boxes(failed)} failed", command=command)


def _settings(dataset: Dataset, teacher: str) -> str:
    """The options of the last `label` of a teacher, so that the rest is drawn like the others."""

    def is_label(commit: Commit) -> bool:
        made = commit.operation
        return made.name == "label" and (made.teacher or {}).get("name") == teacher

    last = newest(dataset.store, dataset.commit_id, is_label)
    given = last.commit.operation.config.get("teacher_config", {}) if last else {}
    return "".join(f" -o {name}={value}" for name, value in sorted(given.items()))


def _todo_verdicts(
    layers: Sequence[LayerStatus],
    policy: Mapping[str, Any],  # Any: JSON
    there: str,
) -> Iterator[Todo]:
    found = next((layer for layer in layers if layer.layer == schemas.VERDICTS), None)
    command = f"maskmill filter{there}"
    if found is None:
        yield Todo(layer=schemas.VERDICTS, what="nothing has been judged yet", command=command)
        return
    before = f" (policy '{policy['name']}' before)" if policy.get("name") else ""
    parts = [
        f"{_boxes(found.num_lacking_rows)} in {_shards(found.num_lacking)} not judged"
        if found.num_lacking else "",
        f"{_boxes(found.num_stale_rows)} in {_shards(found.num_stale)} judged before their masks"
        if found.num_stale else "",
    ]  # fmt: skip
    if what := ", ".join(part for part in parts if part):
        yield Todo(layer=schemas.VERDICTS, what=what + before, command=command)


def _boxes(count: int) -> str:
    return f"{count:,} box" + ("" if count == 1 else "es")


def _shards(count: int) -> str:
    return f"{count:,} shard" + ("" if count == 1 else "s")
