"""Full fsck of one shard: each of its objects is read once, and compared with those it belongs to.

A shard has one images object and, over the history, several versions of its other cells; a layer is
compared with the boxes of every manifest in which it stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from manifests import schemas
from manifests.findings import Flaw
from manifests.fsck_computed import Masks, check_agreement, check_confidence
from manifests.fsck_images import ImageCheck, ImagesPass
from manifests.fsck_masks import (
    MaskFacts,
    check_masks,
    check_masks_on_boxes,
    check_verdicts,
    mask_facts,
    misaligned,
)
from manifests.fsck_stock import fetch
from manifests.fsck_tables import (
    BoxFacts,
    IndexFacts,
    box_facts,
    check_boxes,
    check_boxes_on_images,
    check_index,
    check_rows,
    check_schema,
    check_statistics,
    flaw,
    index_facts,
)
from manifests.manifest import Cell
from manifests.parquet import parquet_to_table
from manifests.store import Store

_MASKS = schemas.masks_layer("")
_INGESTED = frozenset({schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES})
_SCHEMAS = {
    schemas.IMAGE_INDEX: schemas.IMAGE_INDEX_SCHEMA,
    schemas.BOXES: schemas.BOXES_SCHEMA,
    schemas.VERDICTS: schemas.VERDICTS_SCHEMA,
}

_CHECKS: Mapping[str, Callable[[Cell, pa.Table, BoxFacts, Masks], Iterator[Flaw]]] = {
    schemas.AGREEMENT: check_agreement,
    schemas.CONFIDENCE: check_confidence,
    schemas.VERDICTS: check_verdicts,
}

Layers = Mapping[str, Cell]
"""Layer -> cell: a shard as one manifest has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """A shard to look at.

    Attributes:
        versions: the different sets of its cells that manifests have.
        unreadable: objects that are known to be lost.
    """

    shard: str
    versions: Sequence[Layers]
    unreadable: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What was found, and the ids of the cells that could be read: object id -> ids."""

    flaws: tuple[Flaw, ...]
    image_ids: Mapping[str, pa.Array]
    annotation_ids: Mapping[str, pa.Array]


class ShardCheck:
    """One look at one shard."""

    def __init__(
        self,
        store: Store,
        plan: ShardPlan,
        *,
        check_image: ImageCheck | None,
        on_bytes: Callable[[int], None],
    ) -> None:
        """`on_bytes` is told how many bytes were read; what it raises ends the look."""
        self._store, self._plan = store, plan
        self._check_image, self._on_bytes = check_image, on_bytes
        self._index: dict[str, IndexFacts] = {}
        self._boxes: dict[str, BoxFacts] = {}
        self._masks: dict[str, MaskFacts] = {}
        self._flaws: list[Flaw] = []
        self._users: dict[tuple[str, str], list[Layers]] = {}
        for layers in plan.versions:
            for layer, cell in layers.items():
                self._users.setdefault((layer, cell.object_id), []).append(layers)

    def run(self) -> ShardResult:
        """Reads and compares everything.

        Raises:
            StoreError: the store does not answer.
        """
        layers = sorted({layer for version in self._plan.versions for layer in version})
        self._look_at_versions()
        self._look_at_index()
        self._look_at_images()
        self._look_at_boxes()
        for layer in layers:
            if layer.startswith(_MASKS):
                self._look_at_masks(layer)
        for layer in layers:
            if layer in _CHECKS:
                self._look_at_computed(layer)
            elif layer not in _INGESTED and not layer.startswith(_MASKS):
                self._look_at_other(layer)
        return ShardResult(
            flaws=tuple(dict.fromkeys(self._flaws)),
            image_ids={name: facts.image_ids for name, facts in self._index.items()},
            annotation_ids={name: facts.annotation_ids for name, facts in self._boxes.items()},
        )

    # -- layer by layer --------------------------------------------------------------------------

    def _look_at_versions(self) -> None:
        """What a shard cannot be without."""
        for layers in self._plan.versions:
            for needed in (schemas.IMAGES, schemas.IMAGE_INDEX):
                if needed not in layers:
                    some_cell = layers[min(layers)]
                    self._flaws.append(
                        flaw(some_cell, "layer_missing", f"has no {needed} beside it")
                    )
            images = layers.get(schemas.IMAGES)
            if images and images.object_id != self._plan.shard:
                how = f"is another object ({images.object_id[:12]}) than its shard is called after"
                self._flaws.append(flaw(images, "shard_id", how))
            on_boxes = [] if schemas.BOXES in layers else [*layers.keys() - _INGESTED]
            for layer in sorted(on_boxes):
                self._flaws.append(flaw(layers[layer], "layer_missing", "has no boxes beside it"))

    def _look_at_index(self) -> None:
        for cell, table in self._tables(schemas.IMAGE_INDEX):
            facts = self._index[cell.object_id] = index_facts(table)
            self._flaws += check_index(cell, facts)

    def _look_at_images(self) -> None:
        for cell in self._cells(schemas.IMAGES):
            if cell.object_id in self._plan.unreadable:
                continue
            indexes = [
                (index, self._index[index.object_id])
                for index in self._beside(cell, schemas.IMAGE_INDEX)
                if index.object_id in self._index
            ]
            tar = ImagesPass(self._store, cell, check=self._check_image, on_bytes=self._on_bytes)
            self._flaws += tar.flaws(indexes)
            for _, facts in indexes:
                self._flaws += check_rows(cell, len(facts.heights))

    def _look_at_boxes(self) -> None:
        for cell, table in self._tables(schemas.BOXES):
            facts = self._boxes[cell.object_id] = box_facts(table)
            self._flaws += check_boxes(cell, facts)
            for other in self._beside(cell, schemas.IMAGE_INDEX):
                if index := self._index.get(other.object_id):
                    self._flaws += check_boxes_on_images(cell, facts, index)

    def _look_at_masks(self, layer: str) -> None:
        for cell, table in self._tables(layer):
            facts = self._masks[cell.object_id] = mask_facts(table)
            self._flaws += check_masks(cell, table, facts)
            for layers in self._versions_of(cell):
                boxes = self._boxes.get(_object_of(layers, schemas.BOXES))
                index = self._index.get(_object_of(layers, schemas.IMAGE_INDEX))
                if boxes and index:
                    self._flaws += check_masks_on_boxes(cell, facts, boxes, index)

    def _look_at_computed(self, layer: str) -> None:
        for cell, table in self._tables(layer):
            for layers in self._versions_of(cell):
                if boxes := self._boxes.get(_object_of(layers, schemas.BOXES)):
                    self._flaws += _CHECKS[layer](cell, table, boxes, self._masks_in(layers, cell))

    def _masks_in(self, layers: Layers, cell: Cell) -> Masks:
        """The masks layers beside a computed cell; None for those it was not made from.

        Verdicts are compared with any: a policy may have passed a teacher over.
        """
        return {
            layer: self._masks.get(other.object_id)
            if cell.layer == schemas.VERDICTS or not cell.inputs or other.object_id in cell.inputs
            else None
            for layer, other in layers.items()
            if layer.startswith(_MASKS)
        }

    def _look_at_other(self, layer: str) -> None:
        """A layer that this maskmill does not know must still lie on the boxes."""
        for cell, table in self._tables(layer):
            for other in self._beside(cell, schemas.BOXES):
                boxes = self._boxes.get(other.object_id)
                if boxes and len(boxes.image_rows) != table.num_rows:
                    self._flaws.append(misaligned(cell, table.num_rows, len(boxes.image_rows)))

    # -- reading ---------------------------------------------------------------------------------

    def _tables(self, layer: str) -> Iterator[tuple[Cell, pa.Table]]:
        """The layer's objects that can be read and have its columns, one at a time."""
        for cell in self._cells(layer):
            if cell.object_id in self._plan.unreadable:
                continue
            data = fetch(self._store, cell.object_id)
            if isinstance(data, Flaw):
                self._flaws.append(data)
                continue
            self._on_bytes(len(data))
            try:
                table = parquet_to_table(data)
            except (pa.ArrowException, ValueError, OSError) as error:
                self._flaws.append(flaw(cell, "schema", f"cannot be read as a table ({error})"))
                continue
            if self._has_columns(cell, table):
                for listed in self._listed(cell):
                    self._flaws += check_rows(listed, table.num_rows)
                    self._flaws += check_statistics(listed, table)
                yield cell, table

    def _has_columns(self, cell: Cell, table: pa.Table) -> bool:
        known = _SCHEMAS.get(cell.layer)
        if cell.layer.startswith(_MASKS):
            known = schemas.MASKS_SCHEMA
        found = list(check_schema(cell, table, known)) if known else []
        self._flaws += found
        return not any(one.severity == "damage" for one in found)

    def _cells(self, layer: str) -> list[Cell]:
        """The layer's different objects, each with one of its cells."""
        users = [found for (name, _), found in self._users.items() if name == layer]
        return [versions[0][layer] for versions in users]

    def _listed(self, cell: Cell) -> list[Cell]:
        """A cell as each manifest has it: its rows and statistics may be given differently."""
        listed = {id(layers[cell.layer]): layers[cell.layer] for layers in self._versions_of(cell)}
        return list(listed.values())

    def _versions_of(self, cell: Cell) -> list[Layers]:
        return self._users[cell.layer, cell.object_id]

    def _beside(self, cell: Cell, layer: str) -> list[Cell]:
        """The different objects of another layer that stand beside a cell."""
        found = [layers[layer] for layers in self._versions_of(cell) if layer in layers]
        return list({other.object_id: other for other in found}.values())


def _object_of(layers: Layers, layer: str) -> str:
    """The layer's object id, or "" if the shard does not have it."""
    cell = layers.get(layer)
    return cell.object_id if cell else ""
