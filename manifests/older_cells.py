"""Rows of cells that older versions wrote, in the present schema of their layer."""

from __future__ import annotations

import pyarrow as pa

from manifests.parquet_columns import with_fields
from manifests.schemas import LATER_COLUMNS


def with_later_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with nulls in the later columns that it lacks, also in those of its candidates.

    Needed where its rows are joined with, or compared to, rows of newer cells. A table that lacks
    nothing comes as it is.
    """
    columns = [_column(table, field) for field in schema]
    more = [name for name in table.column_names if name not in schema.names]
    fields = [field.with_type(column.type) for field, column in zip(schema, columns, strict=True)]
    fields += [table.schema.field(name) for name in more]
    return pa.table([*columns, *(table[name] for name in more)], schema=pa.schema(fields))


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names and field.name in LATER_COLUMNS:
        return pa.nulls(table.num_rows, field.type)
    column = table[field.name]
    if not (pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type)):
        return column
    wanted = [one.name for one in field.type.value_type]
    have = [one.name for one in column.type.value_type]
    if have[: len(wanted)] == wanted:
        return column
    # Copied, because a slice has an offset.
    whole = pa.concat_arrays([pa.array([], column.type), *column.chunks])
    extra = [name for name in have if name not in wanted]
    return with_fields(whole, [*wanted, *extra], LATER_COLUMNS)
