"""Cells as older versions wrote them: without the columns that came later."""

from __future__ import annotations

import pyarrow as pa

from manifests import schemas

_LATER = schemas.LATER_COLUMNS


def as_older(table: pa.Table) -> pa.Table:
    """The same rows without later columns, also without those inside `candidates`."""
    rows = [
        {name: _narrow(value) for name, value in row.items() if name not in _LATER}
        for row in table.to_pylist()
    ]
    fields = [field for field in schemas.MASK_FIELDS if field.name not in _LATER]
    schema = pa.schema(
        field.with_type(pa.list_(pa.struct(fields))) if field.name == "candidates" else field
        for field in table.schema
        if field.name not in _LATER
    )
    return pa.Table.from_pylist(rows, schema=schema)


def _narrow(value: object) -> object:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{name: one for name, one in item.items() if name not in _LATER} for item in value]
    return value
