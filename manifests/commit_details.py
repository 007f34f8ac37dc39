"""One commit in full: what it was made of and how, what it changed, and what it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from manifests.commit import CellChanges
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.manifest import Cell, Manifest
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.stats import LayerStats, stats
from manifests.store import Store
from manifests.three_way import cell_changes

_ELSEWHERE = "earlier"
"""Objects of no current cell: plans of an ingest, and older cells whose rows were carried over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLayer:
    """Objects of one layer from which the commit's new cells were computed, sorted.

    `num_bytes` is None where the manifests do not tell: for an attached object such as `calibrator`
    and for the layer `earlier`, which are plans and older cells that rows were carried over from.
    """

    layer: str
    num_objects: int
    num_bytes: int | None
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentCommit:
    """What a log says of a parent; one that cannot be read says why in its message."""

    commit_id: str
    time: str
    author: str
    operation: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitDetails:
    """See the module.

    Attributes:
        refs: branches that are at the commit, and tags as `tag: v1`.
        parents: of the commit, in its order.
        input_cells: what the new cells were computed from; what else it takes to make the commit
            again is in `manifests.lineage.needed`.
        changes: layer -> cells added, replaced and removed against the first parent.
        layers: sums over each layer.
        taken_down: images that this very commit took down.
        num_taken_down: those that it knows of in all.
    """

    refs: tuple[str, ...]
    parents: tuple[ParentCommit, ...]
    input_cells: tuple[InputLayer, ...]
    changes: Mapping[str, CellChanges]
    layers: tuple[LayerStats, ...]
    taken_down: tuple[RemovedImage, ...]
    num_taken_down: int


def commit_details(dataset: Dataset) -> CommitDetails:
    """Everything that a commit, its parents and their manifests tell; no cell is opened.

    A parent that cannot be read is no reason to say nothing of the commit.

    Raises:
        ObjectMissingError, ObjectDamagedError: the table of removed images cannot be read.
    """
    commit, store = dataset.commit, dataset.store
    described = [_open(store, parent_id) for parent_id in commit.parents]
    parents = [parent for _, parent in described if parent]
    first = described[0][1] if described else None
    removals = Removals.load(store, commit)
    known = {row for parent in parents for row in Removals.load(store, parent.commit).rows}
    return CommitDetails(
        refs=_refs_at(dataset),
        parents=tuple(parent for parent, _ in described),
        input_cells=_inputs(
            dataset.manifest, [parent.manifest for parent in parents], commit.hanging
        ),
        changes=commit.changes if commit.changes is not None
        else cell_changes(first.manifest if first else Manifest(), dataset.manifest),
        layers=stats(dataset).layers,
        taken_down=tuple(row for row in removals.rows if row not in known),
        num_taken_down=len(removals.image_ids),
    )  # fmt: skip


def _refs_at(dataset: Dataset) -> tuple[str, ...]:
    refs = Refs(dataset.store)
    branches = [name for name, id_ in refs.branches().items() if id_ == dataset.commit_id]
    tags = [f"tag: {name}" for name, id_ in refs.tags().items() if id_ == dataset.commit_id]
    return (*branches, *tags)


def _open(store: Store, commit_id: str) -> tuple[ParentCommit, Dataset | None]:
    try:
        found = Dataset(store, commit_id)
    except (ObjectMissingError, ObjectDamagedError) as error:
        lost = ParentCommit(
            commit_id=commit_id, time="", author="", operation="", message=str(error)
        )
        return lost, None
    commit = found.commit
    parent = ParentCommit(
        commit_id=commit_id, time=commit.time, author=commit.author,
        operation=commit.operation.name, message=commit.message,
    )  # fmt: skip
    return parent, found


def _inputs(
    manifest: Manifest, parents: Iterable[Manifest], hanging: Mapping[str, str]
) -> tuple[InputLayer, ...]:
    """Inputs of cells that no parent has, without cells that the commit made itself on the way."""
    before: dict[str, Cell] = {cell.object_id: cell for m in parents for cell in m}
    made = {cell.object_id: cell for cell in manifest if cell.object_id not in before}
    needed = {object_id for cell in made.values() for object_id in cell.inputs} - set(made)
    by_layer: dict[str, list[str]] = defaultdict(list)
    for object_id in sorted(needed):
        cell = before.get(object_id)
        layer = cell.layer if cell else hanging.get(object_id, _ELSEWHERE)
        by_layer[layer].append(object_id)
    return tuple(
        InputLayer(
            layer=layer,
            num_objects=len(objects),
            num_bytes=sum(before[object_id].num_bytes for object_id in objects)
            if all(object_id in before for object_id in objects) else None,
            objects=tuple(objects),
        )
        for layer, objects in sorted(by_layer.items())
    )  # fmt: skip
