"""Single changes as rows of tables, and their sums over the shards of a whole diff."""

from __future__ import annotations

import pyarrow as pa

_CATEGORY = pa.field("category", pa.string())  # null: all categories together
_COUNT = pa.field("count", pa.int64())

BOX_EVENTS = pa.schema(
    [
        _CATEGORY,
        # Of recategorised boxes only.
        pa.field("category_before", pa.string()),
        # A field of BoxChanges.
        pa.field("kind", pa.string()),
        _COUNT,
    ]
)

MASK_EVENTS = pa.schema(
    [
        pa.field("teacher", pa.string()),
        _CATEGORY,
        # "added", "removed" or "changed"; what follows says something of changed ones only.
        pa.field("kind", pa.string()),
        _COUNT,
        pa.field("iou", pa.float64()),
        pa.field("moved_px", pa.int64()),
        pa.field("union_px", pa.int64()),
    ]
)

VERDICT_EVENTS = pa.schema(
    [
        _CATEGORY,
        # A field of VerdictChanges.
        pa.field("kind", pa.string()),
        pa.field("before", pa.string()),
        pa.field("after", pa.string()),
        pa.field("teacher_before", pa.string()),
        pa.field("teacher_after", pa.string()),
        _COUNT,
    ]
)

_MAX_PENDING_ROWS = 200_000


class GroupedSums:
    """Sums of a schema's numbers over everything else that is in it, in bounded memory."""

    def __init__(self, schema: pa.Schema) -> None:
        self._pending: list[pa.Table] = [schema.empty_table()]

    def add(self, events: pa.Table) -> None:
        """More rows."""
        self._pending.append(events)
        if sum(table.num_rows for table in self._pending) > _MAX_PENDING_ROWS:
            self._pending = [self.total()]

    def total(self) -> pa.Table:
        """A row for each group."""
        return summed(pa.concat_tables(self._pending))


def summed(events: pa.Table) -> pa.Table:
    """Sums of the numbers by everything else, with the schema of `events`."""
    values = [field.name for field in events.schema if not pa.types.is_string(field.type)]
    keys = [field.name for field in events.schema if pa.types.is_string(field.type)]
    # One thread: sums of floats depend on their order.
    grouped = events.group_by(keys, use_threads=False)
    found = grouped.aggregate([(value, "sum") for value in values])
    plain = [name if name in keys else name.removesuffix("_sum") for name in found.column_names]
    return found.rename_columns(plain).select(events.schema.names).cast(events.schema)


def filled(schema: pa.Schema, num_rows: int, **columns: object) -> pa.Table:
    """A table of `num_rows` with this schema from arrays, or from one value for every row.

    Columns that are not given are null, a count that is not given is 1.
    """
    given = {"count": 1} | columns
    made = []
    for field in schema:
        value = given.get(field.name)
        if isinstance(value, pa.Array):
            made.append(value.cast(field.type))
        else:
            made.append(pa.repeat(pa.scalar(value, field.type), num_rows))
    return pa.table(made, schema=schema)
