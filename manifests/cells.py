"""Annotation cells: Parquet (zstd), the same bytes for the same rows."""

from __future__ import annotations

import pyarrow as pa

from manifests.errors import ObjectDamagedError
from manifests.manifest import Cell
from manifests.parquet import parquet_to_table, table_to_parquet
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

    Raises:
        ObjectMissingError, ObjectDamagedError: it is not there, or not what its name says.
    """
    data = store.get_bytes(object_id)
    try:
        return parquet_to_table(data, columns=columns)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ObjectDamagedError(
            f"object {object_id[:12]} cannot be read as a table: {error}"
        ) from error
