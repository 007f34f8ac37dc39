"""Cells as older versions wrote them: without the columns that came later."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, operation
from manifests.ledger import Ledger
from manifests.manifest import Cell
from manifests.store import Store
from manifests.writer import Writer

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


def older_cell(dataset: Dataset, cell: Cell) -> Cell:
    """The cell as an older version would have written it."""
    table = as_older(dataset.table(cell.shard, cell.layer))
    return write_cell(
        dataset.store, table, shard=cell.shard, layer=cell.layer, inputs=cell.inputs,
        statistics=dict(cell.statistics),
    )  # fmt: skip


def made_older(store: Store, branch: str = "main", *, shards: slice = slice(None)) -> str:
    """Commits the branch's masks and verdicts as an older version would have written them."""
    writer = Writer(store, branch)
    dataset = writer.dataset
    wanted = dataset.manifest.shards()[shards]
    renamed: dict[str, str] = {}
    made = []
    for cell in dataset.manifest:
        is_older = cell.layer.startswith("masks/") or cell.layer == schemas.VERDICTS
        if cell.shard in wanted and is_older:
            inputs = tuple(renamed.get(name, name) for name in cell.inputs)
            made.append(replace(older_cell(dataset, cell), inputs=inputs))
            renamed[cell.object_id] = made[-1].object_id
    return writer.commit(
        dataset.manifest.with_cells(made),
        operation=operation("test", version=1, config={}),
        ledger=Ledger(),
        message="as an older version wrote it",
    )
