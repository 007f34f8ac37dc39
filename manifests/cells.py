"""Annotation cells: Parquet (zstd), the same bytes for the same rows."""

from __future__ import annotations

import pyarrow as pa

from manifests.consequences import cell_lost, telling
from manifests.errors import ObjectDamagedError
from manifests.manifest import Cell
from manifests.parquet import parquet_to_table, read_columns, table_to_parquet
from manifests.schemas import LATER_COLUMNS
from manifests.store import Store


def write_cell(
    store: Store,
    table: pa.Table,
    *,
    shard: str,
    layer: str,
    inputs: tuple[str, ...] = (),
    statistics: dict[str, int] | None = None,
) -> Cell:
    """Stores a table as a cell. The table already has the layer's schema."""
    stored = store.put_bytes(table_to_parquet(table))
    return Cell(
        shard=shard,
        layer=layer,
        object_id=stored.object_id,
        num_rows=table.num_rows,
        num_bytes=stored.num_bytes,
        inputs=inputs,
        statistics=statistics or {},
    )


def read_table(store: Store, object_id: str, *, columns: list[str] | None = None) -> pa.Table:
    """A Parquet object's rows, all columns or some.

    Columns of `schemas.LATER_COLUMNS` that it does not have come as nulls when they are named.

    Raises:
        ObjectMissingError, ObjectDamagedError: it is not there, or not what its name says.
    """
    data = store.get_bytes(object_id)
    try:
        return parquet_to_table(data, columns=columns, later=LATER_COLUMNS)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ObjectDamagedError(
            f"object {object_id[:12]} cannot be read as a table: {error}"
        ) from error


def read_cell(
    store: Store, cell: Cell, *, columns: list[str] | None = None, who: str = "the dataset"
) -> pa.Table:
    """A cell's rows. Some columns cost little more than their own bytes.

    Args:
        who: who needs it, for the sentence of an error.

    Raises:
        ObjectMissingError, ObjectDamagedError: it is not there, or not what its manifest says; the
            message names it, what cannot be done without it, and what brings it back.
    """
    lost = cell_lost(shard=cell.shard, layer=cell.layer, object_id=cell.object_id)
    with telling(lost, who=who):
        table = None if columns is None else _read_some(store, cell, columns)
        if table is None:
            table = read_table(store, cell.object_id, columns=columns)
        if table.num_rows != cell.num_rows:
            raise ObjectDamagedError(f"expected {cell.num_rows} rows, found {table.num_rows}")
    return table


def _read_some(store: Store, cell: Cell, columns: list[str]) -> pa.Table | None:
    def read_range(start: int, num_bytes: int) -> bytes:
        return store.read_range(cell.object_id, start=start, num_bytes=num_bytes)

    try:
        return read_columns(read_range, cell.num_bytes, columns=columns, later=LATER_COLUMNS)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ObjectDamagedError(
            f"object {cell.object_id[:12]} cannot be read as a table: {error}"
        ) from error
