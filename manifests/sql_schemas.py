"""Which columns DuckDB expects of a layer's cells, so that cells of all versions are one table.

Told beforehand, it opens no cell to find out, and takes null for a column that a cell lacks.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from manifests import schemas

_TYPES = {
    pa.bool_(): "BOOLEAN", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT",
    pa.float32(): "FLOAT", pa.string(): "VARCHAR", pa.binary(): "BLOB",
}  # fmt: skip
# Their columns depend on the teachers that a shard knows: every cell's footer is read.
_OF_MANY_COLUMNS = (schemas.AGREEMENT, schemas.CONFIDENCE)


def sql_type(type_: pa.DataType) -> str:
    """DuckDB's name of a type."""
    if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"{sql_type(type_.value_type)}[]"
    if pa.types.is_struct(type_):
        return f"STRUCT({', '.join(f'{field.name} {sql_type(field.type)}' for field in type_)})"
    return _TYPES[type_]


def reader_options(layer: str, *, only: Iterable[pa.Field] = ()) -> str:
    """What `read_parquet` is told of a layer's cells, with a comma before it; "" for nothing.

    Args:
        layer: the layer.
        only: the columns that are wanted; none: all.
    """
    fields = tuple(only) or _known(layer)
    if fields:
        columns = ", ".join(map(_column, fields))
        return f", schema = MAP {{{columns}}}"
    return ", union_by_name = true" if layer in _OF_MANY_COLUMNS else ""


def _known(layer: str) -> tuple[pa.Field, ...]:
    if layer == schemas.VERDICTS:
        return tuple(schemas.VERDICTS_SCHEMA)
    return tuple(schemas.MASKS_SCHEMA) if layer.startswith(schemas.masks_layer("")) else ()


def _column(field: pa.Field) -> str:
    return (
        f"'{field.name}': {{name: '{field.name}', type: '{sql_type(field.type)}', "
        "default_value: NULL}"
    )
