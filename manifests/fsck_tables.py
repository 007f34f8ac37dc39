"""Full fsck of one table: the columns of its layer, and what image_index and boxes must hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.findings import Flaw, Severity
from manifests.fsck_stock import cell_name
from manifests.manifest import Cell
from manifests.schemas import LATER_COLUMNS
from manifests.statistics import cell_statistics

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_STATUSES = (schemas.OK, schemas.SKIPPED, schemas.FAILED, schemas.ABSENT, schemas.PENDING)
_CATEGORY = "category:"
_COUNTED = (schemas.BOXES, schemas.IMAGE_INDEX, *schemas.COMPUTED_LAYERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """What other cells are compared with; [N] one entry an image."""

    image_ids: pa.Array
    heights: Ints
    widths: Ints
    offsets: Ints
    sizes: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFacts:
    """What other cells are compared with; [N] one entry a box."""

    annotation_ids: pa.Array
    image_ids: pa.Array
    image_rows: Ints
    box_xyxy: NDArray[np.float32]


def flaw(cell: Cell, kind: str, how: str, severity: Severity = "damage") -> Flaw:
    """A flaw of what is in a cell."""
    name = cell_name(cell)
    return Flaw(kind=kind, how=how, object_id=cell.object_id, cell=name, severity=severity)


def rows_where(is_wrong: Bools, *, rows: Ints | None = None) -> str:
    """`row 7`, or `row 7 and 40 more`, counted from 0; `rows` are their numbers if not 0, 1, 2."""
    places = np.flatnonzero(is_wrong)
    first = int(places[0] if rows is None else rows[places[0]])
    return f"row {first}" + (f" and {len(places) - 1:,} more" if len(places) > 1 else "")


def check_schema(cell: Cell, table: pa.Table, schema: pa.Schema) -> Iterator[Flaw]:
    """The columns of a layer, in their order and first; a newer maskmill may have added others.

    An older one may lack LATER_COLUMNS.
    """
    names = table.schema.names
    schema = pa.schema(_of_then(schema, names))
    if names[: len(schema)] != schema.names:
        missing = [name for name in schema.names if name not in names]
        how = f"lacks the column '{missing[0]}'" if missing else "has its columns in another order"
        yield flaw(cell, "schema", how)
        return
    for column in schema:
        found = table.schema.field(column.name).type
        if not _same_type(found, column.type):
            how = f"has '{column.name}' as {found}, expected {column.type}"
            yield flaw(cell, "schema", how)
        elif not column.nullable and table[column.name].null_count:
            how = f"has {table[column.name].null_count:,} rows without '{column.name}'"
            yield flaw(cell, "schema", how)
    if len(names) > len(schema):
        how = f"has columns that this maskmill does not know ({', '.join(names[len(schema) :])})"
        yield flaw(cell, "extra_columns", how, "warning")


def check_rows(cell: Cell, num_rows: int) -> Iterator[Flaw]:
    """The number of rows that the manifest says."""
    if cell.num_rows != num_rows:
        how = f"is listed with {cell.num_rows:,} rows, but it has {num_rows:,}"
        yield flaw(cell, "statistics", how)


def check_statistics(cell: Cell, table: pa.Table) -> Iterator[Flaw]:
    """The counts that the manifest says; a cell that is listed without any says nothing."""
    known = _statistics(cell.layer, table)
    if not cell.statistics or known is None:
        return
    listed = _positive({n: c for n, c in cell.statistics.items() if _is_of(cell.layer, n)})
    found = _positive(known)
    for name in sorted({*listed, *found}):
        if listed.get(name, 0) != found.get(name, 0):
            how = (
                f"is listed with {listed.get(name, 0):,} of '{name.removeprefix(_CATEGORY)}', "
                f"but it has {found.get(name, 0):,}"
            )
            yield flaw(cell, "statistics", how)
            return


def index_facts(table: pa.Table) -> IndexFacts:
    """From a table with IMAGE_INDEX_SCHEMA."""
    return IndexFacts(
        image_ids=table["image_id"].combine_chunks(),
        heights=as_ints(table["height"]),
        widths=as_ints(table["width"]),
        offsets=as_ints(table["offset"]),
        sizes=as_ints(table["size"]),
    )


def check_index(cell: Cell, facts: IndexFacts) -> Iterator[Flaw]:
    """Every image has pixels and bytes."""
    is_empty = (facts.heights < 1) | (facts.widths < 1)
    if is_empty.any():
        yield flaw(cell, "image_size", f"has an image without pixels in {rows_where(is_empty)}")
    is_outside = (facts.offsets < 0) | (facts.sizes < 0)
    if is_outside.any():
        how = f"has a place before the tar's beginning in {rows_where(is_outside)}"
        yield flaw(cell, "image_offset", how)


def box_facts(table: pa.Table) -> BoxFacts:
    """From a table with BOXES_SCHEMA."""
    flat = table["box_xyxy"].combine_chunks().flatten()
    return BoxFacts(
        annotation_ids=table["annotation_id"].combine_chunks(),
        image_ids=table["image_id"].combine_chunks(),
        image_rows=as_ints(table["image_row"]),
        box_xyxy=np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, 4),
    )


def check_boxes(cell: Cell, facts: BoxFacts) -> Iterator[Flaw]:
    """What needs no other cell: boxes are boxes, and each image's rows are together."""
    box = facts.box_xyxy
    is_none = ~(np.isfinite(box).all(axis=1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))
    if is_none.any():
        yield flaw(cell, "box", f"has a box without area in {rows_where(is_none)}")
    is_apart = np.diff(facts.image_rows, prepend=0) < 0
    if is_apart.any():
        how = f"does not have the rows of each image together: {rows_where(is_apart)}"
        yield flaw(cell, "image_rows", how)


def check_boxes_on_images(cell: Cell, boxes: BoxFacts, index: IndexFacts) -> Iterator[Flaw]:
    """Every box lies on the image of its row."""
    is_off = (boxes.image_rows < 0) | (boxes.image_rows >= len(index.heights))
    if is_off.any():
        how = (
            f"names an image row that its image_index of {len(index.heights):,} rows does not "
            f"have in {rows_where(is_off)}"
        )
        yield flaw(cell, "image_rows", how)
        return
    expected = index.image_ids.take(pa.array(boxes.image_rows))
    is_other = ~as_bools(pc.equal(boxes.image_ids, expected))
    if is_other.any():
        how = f"has another image's id than its image_index in {rows_where(is_other)}"
        yield flaw(cell, "image_rows", how)
    limit = np.stack([index.widths, index.heights], axis=1)[boxes.image_rows]
    with np.errstate(invalid="ignore"):  # a NaN was told before
        is_outside = np.any(boxes.box_xyxy[:, :2] < 0, axis=1)
        is_outside |= np.any(boxes.box_xyxy[:, 2:] > limit, axis=1)
    if is_outside.any():
        yield flaw(cell, "box", f"has a box outside its image in {rows_where(is_outside)}")


def as_ints(column: pa.ChunkedArray | pa.Array) -> Ints:
    """[N] without nulls."""
    values: Ints = np.asarray(column.to_numpy()).astype(np.int64)
    return values


def as_bools(column: pa.ChunkedArray | pa.Array) -> Bools:
    """[N]; null is False."""
    filled = pc.fill_null(column, False)
    chunk = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
    values: Bools = np.asarray(chunk.to_numpy(zero_copy_only=False)).astype(bool)
    return values


def _of_then(expected: Iterable[pa.Field], names: Sequence[str]) -> list[pa.Field]:
    """The fields without the LATER_COLUMNS that a table does not have."""
    return [field for field in expected if field.name in names or field.name not in LATER_COLUMNS]


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Parquet gives the items of lists other names."""
    if pa.types.is_fixed_size_list(expected) or pa.types.is_list(expected):
        is_same_kind = found.id == expected.id and getattr(found, "list_size", 0) == getattr(
            expected, "list_size", 0
        )
        return is_same_kind and _same_type(found.value_type, expected.value_type)
    if pa.types.is_struct(expected):
        if not pa.types.is_struct(found):
            return False
        names = [field.name for field in found]
        fields = _of_then(expected, names)
        return names == [field.name for field in fields] and all(
            _same_type(a.type, b.type) for a, b in zip(found, fields, strict=True)
        )
    return bool(found.equals(expected))


def _statistics(layer: str, table: pa.Table) -> Mapping[str, int] | None:
    """What a cell of the layer is listed with; None: nobody says what."""
    if layer not in _COUNTED and not layer.startswith(schemas.masks_layer("")):
        return None
    return cell_statistics(layer, table)


def _is_of(layer: str, name: str) -> bool:
    """Whether a count is one of those that `_statistics` gives."""
    if layer == schemas.BOXES:
        return name.startswith(_CATEGORY)
    if layer == schemas.IMAGE_INDEX:
        return name == "quarantined"
    return layer in schemas.COMPUTED_LAYERS or name in _STATUSES


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
