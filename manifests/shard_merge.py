"""One shard whose boxes grew on both sides, or whose pictures another new shard has too.

Boxes are united by annotation id. Every masks layer follows: a row comes from whichever side has a
mask for that box; where both have one, from the side that changed it since the base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import schemas
from manifests.cells import read_cell, write_cell
from manifests.manifest import Cell
from manifests.shard_edit import COMPUTED_LAYERS, IMAGE_LAYERS
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.three_way import Conflict, Layers, Settlement

Row = dict[str, Any]  # Any: one value of each column of a table
_ORIGIN_LISTS = ("not_exhaustive", "negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class SideTables:
    """One side's tables of a shard by layer; `boxes` in the order that its layers have."""

    index: pa.Table
    boxes: pa.Table
    layers: Mapping[str, pa.Table]

    @staticmethod
    def read(store: Store, cells: Layers) -> SideTables:
        """Index, boxes and masks; computed layers are not needed, being made again."""
        index, boxes = cells.get(schemas.IMAGE_INDEX), cells.get(schemas.BOXES)
        return SideTables(
            index=read_cell(store, index) if index else schemas.IMAGE_INDEX_SCHEMA.empty_table(),
            boxes=read_cell(store, boxes) if boxes else schemas.BOXES_SCHEMA.empty_table(),
            layers={
                name: read_cell(store, cell)
                for name, cell in cells.items()
                if name not in (*IMAGE_LAYERS, schemas.BOXES, *COMPUTED_LAYERS)
            },
        )

    def rows(self, layer: str) -> dict[str, Row]:
        """annotation_id -> the layer's row, where there is more than an empty place."""
        if layer not in self.layers:
            return {}
        ids = self.boxes["annotation_id"].to_pylist()
        rows = self.layers[layer].to_pylist()
        return {
            annotation_id: row
            for annotation_id, row in zip(ids, rows, strict=True)
            if row.get("status") not in (schemas.PENDING, schemas.ABSENT) or row.get("reason")
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A shard's new cells, what could not be decided, and boxes (by category) that both had."""

    cells: dict[str, Cell]
    conflicts: list[Conflict]
    duplicates: Counter[str]


def combine(
    store: Store,
    shard: str,
    sides: tuple[Layers, Layers, Layers],
    settlement: Settlement,
) -> Combined:
    """Cells of a shard that both sides gave more boxes or origins.

    Args:
        store: where the cells are.
        shard: the shard.
        sides: its cells in the base ({}: it is new on both sides), in ours and in theirs.
        settlement: whose row is taken where both drew a box anew.

    Returns:
        Its cells without the computed layers, with a conflict for each layer with such rows.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    tables = tuple(SideTables.read(store, cells) for cells in sides)
    base, ours, theirs = tables
    index = _united_index(ours.index, theirs.index)
    boxes = _united_boxes(base.boxes, ours.boxes, theirs.boxes)
    writer = _Writer(store, shard, made={schemas.IMAGES: sides[1][schemas.IMAGES]})
    writer.write(schemas.IMAGE_INDEX, index, inputs=(shard,))
    writer.write(schemas.BOXES, boxes, inputs=(writer.object_id(schemas.IMAGE_INDEX),))
    conflicts: list[Conflict] = []
    for layer in sorted({*ours.layers, *theirs.layers}):
        rows, is_disputed = _united_rows(layer, boxes, tables, settlement)
        schema = (ours if layer in ours.layers else theirs).layers[layer].schema
        filled = _filled(layer, boxes, index, rows)
        table = pa.Table.from_pylist(filled, schema=schema)
        writer.write(layer, table, inputs=(writer.object_id(schemas.BOXES),))
        if is_disputed:
            ids = [cells[layer].object_id if layer in cells else None for cells in sides]
            conflicts.append(
                Conflict(shard=shard, layer=layer, base=ids[0], ours=ids[1], theirs=ids[2])
            )
    return Combined(
        cells=writer.made, conflicts=conflicts, duplicates=_added_twice(base, ours, theirs)
    )


def graft(store: Store, target: Layers, source: Layers, image_ids: Collection[str]) -> Combined:
    """The target shard with what the source shard knows of pictures that both have.

    Boxes of the same category and place as one that is there are left out, as ingest does.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    theirs = SideTables.read(store, source)
    ours = SideTables.read(store, target)
    moved = _only(theirs, ours, image_ids)
    index = _united_index(ours.index, moved.index)
    shard = target[schemas.IMAGES].shard
    writer = _Writer(store, shard, made={schemas.IMAGES: target[schemas.IMAGES]})
    writer.write(schemas.IMAGE_INDEX, index, inputs=target[schemas.IMAGE_INDEX].inputs)
    boxes = _united_boxes(ours.boxes, ours.boxes, moved.boxes, keep_base=True)
    writer.write(schemas.BOXES, boxes, inputs=(writer.object_id(schemas.IMAGE_INDEX),))
    for layer in sorted({*ours.layers, *moved.layers}):
        rows = {**moved.rows(layer), **ours.rows(layer)}
        schema = (ours if layer in ours.layers else moved).layers[layer].schema
        table = pa.Table.from_pylist(_filled(layer, boxes, index, rows), schema=schema)
        writer.write(layer, table, inputs=(writer.object_id(schemas.BOXES),))
    return Combined(
        cells=writer.made, conflicts=[], duplicates=_lost(ours, theirs, boxes, image_ids)
    )


class _Writer:
    """Writes a shard's cells one after another."""

    def __init__(self, store: Store, shard: str, *, made: dict[str, Cell]) -> None:
        self._store, self._shard, self.made = store, shard, made

    def write(self, layer: str, table: pa.Table, *, inputs: tuple[str, ...]) -> None:
        """Stores one layer."""
        self.made[layer] = write_cell(
            self._store,
            table,
            shard=self._shard,
            layer=layer,
            inputs=inputs,
            statistics=cell_statistics(layer, table),
        )

    def object_id(self, layer: str) -> str:
        """What an input is called that was written before."""
        return self.made[layer].object_id


def _added_twice(base: SideTables, ours: SideTables, theirs: SideTables) -> Counter[str]:
    """Category -> boxes that both sides added."""
    known = set(base.boxes["annotation_id"].to_pylist())
    mine = set(ours.boxes["annotation_id"].to_pylist()) - known
    rows = theirs.boxes.select(["annotation_id", "category"]).to_pylist()
    return Counter(row["category"] for row in rows if row["annotation_id"] in mine)


def _lost(
    ours: SideTables, theirs: SideTables, boxes: pa.Table, image_ids: Collection[str]
) -> Counter[str]:
    """Category -> boxes of these pictures in `theirs` that the united ones do not gain."""
    came = Counter(row["category"] for row in _twin_rows(theirs) if row["image_id"] in image_ids)
    before = Counter(ours.boxes["category"].to_pylist())
    gained = Counter(boxes["category"].to_pylist()) - before
    return came - gained


def _united_index(ours: pa.Table, theirs: pa.Table) -> pa.Table:
    """Our rows with the origins and federated lists of both; pictures are matched by id."""
    others = {row["image_id"]: row for row in theirs.to_pylist()}
    rows = ours.to_pylist()
    for row in rows:
        other = others.get(row["image_id"])
        if other is None:
            continue
        row["origins"] += [origin for origin in other["origins"] if origin not in row["origins"]]
        for column in _ORIGIN_LISTS:
            row[column] = sorted({*row[column], *other[column]})
    return pa.Table.from_pylist(rows, schema=ours.schema)


def _united_boxes(
    base: pa.Table, ours: pa.Table, theirs: pa.Table, *, keep_base: bool = False
) -> pa.Table:
    """Our rows, then theirs that we lack, each image's together; rows one side took out are out."""
    known = set(base["annotation_id"].to_pylist())
    mine, other = (set(table["annotation_id"].to_pylist()) for table in (ours, theirs))
    gone = set() if keep_base else known - (mine & other)
    stays = [annotation_id not in gone for annotation_id in ours["annotation_id"].to_pylist()]
    comes = [
        annotation_id not in mine and annotation_id not in gone
        for annotation_id in theirs["annotation_id"].to_pylist()
    ]
    joined = pa.concat_tables(
        [ours.filter(pa.array(stays, pa.bool_())), theirs.filter(pa.array(comes, pa.bool_()))]
    )
    order = np.argsort(joined["image_row"].to_numpy(), kind="stable")
    return joined.take(pa.array(order))


def _united_rows(
    layer: str,
    boxes: pa.Table,
    tables: Sequence[SideTables],
    settlement: Settlement,
) -> tuple[dict[str, Row], bool]:
    """annotation_id -> row, and whether both sides drew one of them anew and nobody settled it."""
    base, ours, theirs = (table.rows(layer) for table in tables)
    side, is_disputed = settlement.of(layer), False
    rows: dict[str, Row] = {}
    for annotation_id in boxes["annotation_id"].to_pylist():
        mine, other = ours.get(annotation_id), theirs.get(annotation_id)
        if mine is None or other is None or mine == other:
            row = other if mine is None else mine
        elif mine == base.get(annotation_id):
            row = other
        elif other == base.get(annotation_id):
            row = mine
        else:
            row, is_disputed = (other if side == "theirs" else mine), True
        if row is not None:
            rows[annotation_id] = row
    return rows, is_disputed and side is None


def _filled(layer: str, boxes: pa.Table, index: pa.Table, rows: Mapping[str, Row]) -> Iterable[Row]:
    """The layer's rows in the order of the boxes; places without one are pending, or absent."""
    sizes = list(zip(index["height"].to_pylist(), index["width"].to_pylist(), strict=True))
    status = schemas.ABSENT if layer == schemas.MASKS_HUMAN else schemas.PENDING
    empty: Row = dict.fromkeys(schemas.MASKS_SCHEMA.names) | {"status": status, "candidates": []}
    places = zip(boxes["annotation_id"].to_pylist(), boxes["image_row"].to_pylist(), strict=True)
    return [
        rows.get(annotation_id)
        or {**empty, "height": sizes[image_row][0], "width": sizes[image_row][1]}
        for annotation_id, image_row in places
    ]


def _only(side: SideTables, ours: SideTables, image_ids: Collection[str]) -> SideTables:
    """The side's rows of some pictures that are no twins of ours, numbered as our images are."""
    number = {image_id: row for row, image_id in enumerate(ours.index["image_id"].to_pylist())}
    twins = {(row["image_id"], row["category"], tuple(row["box_xyxy"])) for row in _twin_rows(ours)}
    wanted = [
        row["image_id"] in image_ids
        and (row["image_id"], row["category"], tuple(row["box_xyxy"])) not in twins
        for row in _twin_rows(side)
    ]
    chosen = pa.array(np.flatnonzero(np.array(wanted, dtype=bool)))
    boxes = side.boxes.take(chosen)
    rows = pa.array([number[image_id] for image_id in boxes["image_id"].to_pylist()], pa.int32())
    position = boxes.schema.get_field_index("image_row")
    return SideTables(
        index=side.index.filter(
            pa.array(
                [image_id in image_ids for image_id in side.index["image_id"].to_pylist()],
                pa.bool_(),
            )
        ),
        boxes=boxes.set_column(position, boxes.schema.field("image_row"), rows),
        layers={name: table.take(chosen) for name, table in side.layers.items()},
    )


def _twin_rows(side: SideTables) -> list[Row]:
    rows: list[Row] = side.boxes.select(["image_id", "category", "box_xyxy"]).to_pylist()
    return rows
