"""One shard whose boxes grew on both sides, or whose pictures another new shard has too.

Boxes are united by annotation id. Every masks layer follows: a row comes from whichever side has a
mask for that box; where both have one, from the side that changed it since the base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.cells import read_cell, write_cell
from manifests.manifest import Cell
from manifests.older_cells import with_later_columns
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.three_way import Conflict, Layers, Settlement

Row = dict[str, Any]  # Any: one value of each column of a table
_ORIGIN_LISTS = ("not_exhaustive", "negative")
_PLACE_COLUMNS = ["annotation_id", "image_id", "category", "box_xyxy"]


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
                name: _present(name, read_cell(store, cell))
                for name, cell in cells.items()
                if name not in (*schemas.IMAGE_LAYERS, schemas.BOXES, *schemas.COMPUTED_LAYERS)
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


def _present(layer: str, table: pa.Table) -> pa.Table:
    """Rows of the two sides are compared, so both have the columns of today."""
    is_masks = layer.startswith(schemas.masks_layer(""))
    return with_later_columns(table, schemas.MASKS_SCHEMA) if is_masks else table


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A shard's new cells, what could not be decided, and boxes by category.

    `duplicates` are boxes that both had, `gone` those of the base that neither has any more.
    """

    cells: dict[str, Cell]
    conflicts: list[Conflict]
    duplicates: Counter[str]
    gone: Counter[str] = field(default_factory=Counter)


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
    base, ours, theirs = (SideTables.read(store, cells) for cells in sides)
    theirs = replace(theirs, boxes=_with_our_ids(base.boxes, ours.boxes, theirs.boxes))
    tables = (base, ours, theirs)
    index = _united_index(base.index, ours.index, theirs.index)
    boxes = _united_boxes(base.boxes, ours.boxes, theirs.boxes)
    writer = _Writer(store, shard, made={schemas.IMAGES: sides[1][schemas.IMAGES]})
    writer.write(schemas.IMAGE_INDEX, index, inputs=(shard,))
    writer.write(schemas.BOXES, boxes, inputs=(writer.object_id(schemas.IMAGE_INDEX),))
    conflicts: list[Conflict] = []
    for layer in sorted({*ours.layers, *theirs.layers}):
        rows, is_disputed = _united_rows(layer, boxes, tables, settlement)
        if layer in base.layers and not (layer in ours.layers and layer in theirs.layers):
            remover = "theirs" if layer in ours.layers else "ours"
            is_changed = any(row != base.rows(layer).get(name) for name, row in rows.items())
            if not is_changed or settlement.of(layer) == remover:
                continue
            is_disputed = settlement.of(layer) is None
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
        cells=writer.made,
        conflicts=conflicts,
        duplicates=_added_twice(base, ours, theirs),
        gone=_gone(base, ours, theirs),
    )


def graft(store: Store, target: Layers, source: Layers, image_ids: Collection[str]) -> Combined:
    """The target shard with what the source shard knows of pictures that both have.

    Boxes of the same category and place as one that is there are left out, as ingest does; their
    masks are its own where it has none.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    theirs = SideTables.read(store, source)
    ours = SideTables.read(store, target)
    moved = _only(theirs, ours, image_ids)
    index = _united_index(ours.index.slice(0, 0), ours.index, moved.index)
    shard = target[schemas.IMAGES].shard
    writer = _Writer(store, shard, made={schemas.IMAGES: target[schemas.IMAGES]})
    writer.write(schemas.IMAGE_INDEX, index, inputs=target[schemas.IMAGE_INDEX].inputs)
    boxes = _united_boxes(ours.boxes, ours.boxes, moved.boxes, keep_base=True)
    writer.write(schemas.BOXES, boxes, inputs=(writer.object_id(schemas.IMAGE_INDEX),))
    for layer in sorted({*ours.layers, *moved.layers}):
        mine, other = ours.rows(layer), moved.rows(layer)
        drawn = {name: row for name, row in other.items() if row["status"] == schemas.OK}
        mine_drawn = {name: row for name, row in mine.items() if row["status"] == schemas.OK}
        rows = {**other, **mine, **drawn, **mine_drawn}
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


def _gone(base: SideTables, ours: SideTables, theirs: SideTables) -> Counter[str]:
    """Category -> boxes that both sides took out."""
    there = _ids(ours.boxes) | _ids(theirs.boxes)
    rows = base.boxes.select(["annotation_id", "category"]).to_pylist()
    return Counter(row["category"] for row in rows if row["annotation_id"] not in there)


def _lost(
    ours: SideTables, theirs: SideTables, boxes: pa.Table, image_ids: Collection[str]
) -> Counter[str]:
    """Category -> boxes of these pictures in `theirs` that the united ones do not gain."""
    rows = theirs.boxes.select(["image_id", "category"]).to_pylist()
    came = Counter(row["category"] for row in rows if row["image_id"] in image_ids)
    before = Counter(ours.boxes["category"].to_pylist())
    gained = Counter(boxes["category"].to_pylist()) - before
    return came - gained


def _united_index(base: pa.Table, ours: pa.Table, theirs: pa.Table) -> pa.Table:
    """Our rows with the origins and federated lists of both; pictures are matched by id.

    What the base has and one side does not was taken back there, so it is out.
    """
    others = {row["image_id"]: row for row in theirs.to_pylist()}
    before = {row["image_id"]: row for row in base.to_pylist()}
    rows = ours.to_pylist()
    for row in rows:
        if other := others.get(row["image_id"]):
            known = before.get(row["image_id"], {})
            row["origins"] = _united(known.get("origins", []), row["origins"], other["origins"])
            for column in _ORIGIN_LISTS:
                row[column] = sorted(_united(known.get(column, []), row[column], other[column]))
    return pa.Table.from_pylist(rows, schema=ours.schema)


def _united(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any]:
    """Our entries, then theirs that we lack; entries one side took out are out."""
    entries = [*ours, *(entry for entry in theirs if entry not in ours)]
    return [entry for entry in entries if entry not in base or (entry in ours and entry in theirs)]


def _with_our_ids(base: pa.Table, ours: pa.Table, theirs: pa.Table) -> pa.Table:
    """Their boxes, where one that is new has our new one's id if it is its twin.

    Twins have the same category and place in one picture. They are one box after the merge, with
    the masks of both, as ingest leaves out a box that is there.
    """
    known, others = _ids(base), _ids(base) | _ids(ours)
    mine = {
        _place(row): row["annotation_id"]
        for row in ours.select(_PLACE_COLUMNS).to_pylist()
        if row["annotation_id"] not in known | _ids(theirs)
    }
    ids = [
        row["annotation_id"]
        if row["annotation_id"] in others
        else mine.get(_place(row), row["annotation_id"])
        for row in theirs.select(_PLACE_COLUMNS).to_pylist()
    ]
    field = theirs.schema.field("annotation_id")
    position = theirs.schema.get_field_index(field.name)
    return theirs.set_column(position, field, pa.array(ids, field.type))


def _place(row: Row) -> tuple[str, str, tuple[float, ...]]:
    return row["image_id"], row["category"], tuple(row["box_xyxy"])


def _ids(boxes: pa.Table) -> set[str]:
    return set(boxes["annotation_id"].to_pylist())


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
        elif (mine["status"] == schemas.OK) != (other["status"] == schemas.OK):
            row = mine if mine["status"] == schemas.OK else other  # a mask is better than none
        else:
            row, is_disputed = (other if side == "theirs" else mine), True
        if row is not None:
            rows[annotation_id] = row
    return rows, is_disputed and side is None


def _filled(layer: str, boxes: pa.Table, index: pa.Table, rows: Mapping[str, Row]) -> Iterable[Row]:
    """The layer's rows in the order of the boxes; places without one are pending, or absent.

    So are rows skipped on a side that had the image in quarantine, or the box as a crowd.
    """
    sizes = list(zip(index["height"].to_pylist(), index["width"].to_pylist(), strict=True))
    status = schemas.ABSENT if layer == schemas.MASKS_HUMAN else schemas.PENDING
    empty: Row = dict.fromkeys(schemas.MASKS_SCHEMA.names) | {"status": status, "candidates": []}
    places = zip(boxes["annotation_id"].to_pylist(), boxes["image_row"].to_pylist(), strict=True)
    quarantined = index["quarantine"].to_pylist()
    crowds = pc.or_(boxes["is_crowd"], boxes["is_group_of"]).to_pylist()
    made = []
    for (annotation_id, image_row), is_crowd in zip(places, crowds, strict=True):
        row = rows.get(annotation_id)
        is_prompt = not is_crowd and not quarantined[image_row]
        if row is None or (is_prompt and row["status"] == schemas.SKIPPED):
            height, width = sizes[image_row]
            row = {**empty, "height": height, "width": width}
        made.append(row)
    return made


def _only(side: SideTables, ours: SideTables, image_ids: Collection[str]) -> SideTables:
    """The side's rows of some pictures, numbered as our images are; twins have our boxes' ids."""
    number = {image_id: row for row, image_id in enumerate(ours.index["image_id"].to_pylist())}
    chosen = _rows_of(side.boxes, image_ids)
    boxes = _with_our_ids(ours.boxes.slice(0, 0), ours.boxes, side.boxes.take(chosen))
    rows = pa.array([number[image_id] for image_id in boxes["image_id"].to_pylist()], pa.int32())
    position = boxes.schema.get_field_index("image_row")
    return SideTables(
        index=side.index.take(_rows_of(side.index, image_ids)),
        boxes=boxes.set_column(position, boxes.schema.field("image_row"), rows),
        layers={name: table.take(chosen) for name, table in side.layers.items()},
    )


def _rows_of(table: pa.Table, image_ids: Collection[str]) -> pa.Array:
    wanted = [image_id in image_ids for image_id in table["image_id"].to_pylist()]
    return pa.array(np.flatnonzero(np.array(wanted, dtype=bool)))
