"""Counts that a cell's manifest entry carries, so that nobody opens the cell for them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from manifests.manifest import Cell

_CATEGORY = "category:"


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
