"""Counts that a cell's manifest entry carries, so that nobody opens the cell for them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.manifest import Cell

_CATEGORY = "category:"


def cell_statistics(layer: str, table: pa.Table) -> dict[str, int]:
    """The counts that every cell of a layer carries; {} for a layer that has none."""
    if layer == schemas.IMAGE_INDEX:
        return {"quarantined": table.num_rows - table["quarantine"].null_count}
    if layer == schemas.BOXES:
        return category_counts(table["category"])
    if layer == schemas.VERDICTS:
        return {"kept": pc.sum(table["keep"]).as_py() or 0} | value_counts(table["reason"])
    if layer == schemas.AGREEMENT:
        return _with_values(table.columns, table.num_rows, have="compared", lack="no_second_mask")
    if layer == schemas.CONFIDENCE:
        column = table["confidence"]
        return _with_values([column], table.num_rows, have="scored", lack="no_mask")
    return value_counts(table["status"]) if "status" in table.column_names else {}


def _with_values(
    columns: Iterable[pa.ChunkedArray], num_rows: int, *, have: str, lack: str
) -> dict[str, int]:
    """Rows that have a value in one of the columns, and rows that have none."""
    masks = [column.is_valid() for column in columns]
    num_known = pc.sum(reduce(pc.or_, masks)).as_py() or 0 if masks else 0
    return {have: num_known, lack: num_rows - num_known}


def category_counts(categories: pa.ChunkedArray) -> dict[str, int]:
    """Statistics of a `boxes` cell: how many rows each category has."""
    counted = pc.value_counts(categories.combine_chunks()).to_pylist()
    return {f"{_CATEGORY}{entry['values']}": entry["counts"] for entry in counted}


def rows_by_category(boxes: Cell) -> dict[str, int]:
    """Category name -> rows, from the statistics of a `boxes` cell."""
    return {
        name.removeprefix(_CATEGORY): count
        for name, count in boxes.statistics.items()
        if name.startswith(_CATEGORY)
    }


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Value -> rows of a string column, nulls left out; for `status` and `reason`."""
    counted = pc.value_counts(column.drop_null().combine_chunks()).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counted}
