"""Which columns of a Parquet file are read: whole ones, and single fields of a list of structs.

`candidates.box_iou` names the field `box_iou` of the structs in the column `candidates`; the table
then has that column with no fields but those that were named. A column whose own name has a dot
(`sam_vit_t.1`) is itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

Later = Mapping[str, pa.DataType]
"""Columns and fields that files of older versions lack, with their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some columns of one file.

    Attributes:
        names: columns of the table that they make, in the order in which they were first named.
        paths: what is read of the file, as paths of its schema; a path stands for all below it.
        fields: column -> those of its fields that were named, where it was not named as a whole.
        later: as given.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    later: Later

    def needs(self, path: str) -> bool:
        """Whether a leaf column of the file is read."""
        return any(path == one or path.startswith(f"{one}.") for one in self.paths)

    def finish(self, table: pa.Table, num_rows: int) -> pa.Table:
        """The columns as they were named, of a table that has what `paths` say."""
        columns, schema = [], []
        for name in self.names:
            if name not in table.column_names:
                columns.append(pa.nulls(num_rows, self.later[name]))
                schema.append(pa.field(name, self.later[name]))
                continue
            column, field = table[name], table.schema.field(name)
            if name in self.fields:
                column = with_fields(column.combine_chunks(), self.fields[name], self.later)
            columns.append(column)
            schema.append(field.with_type(column.type))
        return pa.table(columns, schema=pa.schema(schema))


def select_columns(metadata: pq.FileMetaData, names: Sequence[str], later: Later) -> Selection:
    """Finds columns in a file.

    Raises:
        ValueError: a column or field that is neither there nor in `later`.
    """
    schema = metadata.schema.to_arrow_schema()
    columns: list[str] = []
    paths: list[str] = []
    fields: dict[str, list[str]] = {}
    for name in names:
        column, _, field = name.rpartition(".")
        if name in schema.names or not _is_nested(schema, column):
            columns.append(name)
            paths.extend(_whole(schema, name, later))
        else:
            columns.append(column)
            paths.append(_leaf(metadata, schema.field(column), field, later))
            fields.setdefault(column, []).append(field)
    whole = {name for name in columns if name in names}
    return Selection(
        names=tuple(dict.fromkeys(columns)),
        paths=tuple(dict.fromkeys(paths)),
        fields={
            name: tuple(dict.fromkeys(some)) for name, some in fields.items() if name not in whole
        },
        later=later,
    )


def _is_nested(schema: pa.Schema, column: str) -> bool:
    return column in schema.names and pa.types.is_struct(_structs(schema.field(column).type))


def _structs(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_list(type_) else type_


def _whole(schema: pa.Schema, name: str, later: Later) -> Sequence[str]:
    if name in schema.names:
        return [name]
    if name in later:
        return []
    raise ValueError(f"no column '{name}'; there are {', '.join(schema.names)}")


def _leaf(metadata: pq.FileMetaData, column: pa.Field, field: str, later: Later) -> str:
    """The path of a field; of the column's smallest one, for its lengths, if the file lacks it."""
    type_ = _structs(column.type)
    have = [one.name for one in type_]
    if field not in have and field not in later:
        raise ValueError(f"no field '{field}' in column '{column.name}'; it has {', '.join(have)}")
    depth = 2 if pa.types.is_list(column.type) else 0  # as `candidates.list.element.box_iou`
    sizes: dict[str, int] = {}
    for path, num_bytes in _leaves(metadata):
        if path.startswith(f"{column.name}."):
            parts = path.removeprefix(f"{column.name}.").split(".")[: depth + 1]
            above = ".".join((column.name, *parts))
            if parts[-1] == field:
                return above
            sizes[above] = sizes.get(above, 0) + num_bytes
    return min(sizes, key=lambda path: (sizes[path], path))


def _leaves(metadata: pq.FileMetaData) -> Iterable[tuple[str, int]]:
    """(path, bytes in all groups)."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for number in range(metadata.num_columns):
        size = sum(group.column(number).total_compressed_size for group in groups)
        yield metadata.schema.column(number).path, size


def with_fields(column: pa.Array, fields: Sequence[str], later: Later) -> pa.Array:
    """A list of structs, or structs, with these fields; nulls for those that are not there.

    Args:
        column: one array whose offset is 0, as a file or `combine_chunks` gives it.
        fields: in the order that is wanted.
        later: the types of fields that may not be there.
    """
    is_list = pa.types.is_list(column.type)
    structs = column.values if is_list else column
    have = {field.name: field for field in structs.type}
    arrays = [
        structs.field(name) if name in have else pa.nulls(len(structs), later[name])
        for name in fields
    ]
    types = [have[name] if name in have else pa.field(name, later[name]) for name in fields]
    narrow = pa.StructArray.from_arrays(arrays, fields=types, mask=structs.is_null())
    if not is_list:
        return narrow
    type_ = pa.list_(column.type.value_field.with_type(narrow.type))
    return pa.ListArray.from_arrays(column.offsets, narrow, type=type_, mask=column.is_null())
