"""Agree: how alike the masks of different teachers are, box by box, into the layer `agreement`.

Nothing but the masks' RLE is read: no image, no teacher, and no mask is drawn out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pyarrow as pa

from engine.confidence.outputs import Bools, Output, OutputTable, read_outputs, teachers_of
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.errors import InputError
from manifests.in_parallel import in_parallel, threads_for
from manifests.ledger import Ledger, LedgerCounter
from manifests.paired_rle import paired_areas
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.writer import Draft, Writer

VERSION = 1
"""Raised when the agreement of the same masks would come out different."""

_COMPARED, _ALONE = "compared", "no_second_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreeConfig:
    """Settings of one agree step.

    Attributes:
        teachers: whose masks to compare; empty: of all that have drawn.
        branch: the branch to read and to commit to.
        message: the commit's message; empty: one is made.
    """

    teachers: tuple[str, ...] = ()
    branch: str = DEFAULT_BRANCH
    message: str = ""


def agree(store: Store, config: AgreeConfig) -> str:
    """Compares the masks of every box and commits `agreement`; returns the commit id.

    Raises:
        InputError: fewer than two teachers have drawn.
        NothingToCommitError: the agreement is there already.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, config.branch)
    return writer.publish(draft_agree(writer.dataset, config))


def draft_agree(dataset: Dataset, config: AgreeConfig) -> Draft:
    """What an agree step makes of a commit; no branch is touched. Raises as `agree`."""
    teachers = teachers_of(dataset.manifest, config.teachers)
    missing = sorted(set(config.teachers) - set(teachers))
    if len(teachers) < 2 or missing:
        have = ", ".join(teachers_of(dataset.manifest)) or "none"
        what = f"masks of '{missing[0]}'" if missing else "masks of two teachers"
        raise InputError(
            f"agreement: expected {what}, but the teachers that have drawn are {have}; run "
            "'maskmill label TEACHER' with another one"
        )
    work = partial(_agree_shard, dataset, teachers)
    shards = dataset.manifest.shards()
    records = list(in_parallel(work, shards, num_threads=threads_for(dataset.store)))
    return Draft.on(
        dataset,
        dataset.manifest.with_cells(cell for record in records for cell in record.cells),
        operation=operation("agree", version=VERSION, config={"teachers": list(teachers)}),
        ledger=_ledger(dataset, records),
        message=config.message or f"agreement of {', '.join(teachers)}",
    )


def _agree_shard(dataset: Dataset, teachers: Sequence[str], shard: str) -> ResultRecord:
    boxes = dataset.cell(shard, schemas.BOXES)
    layers = [schemas.masks_layer(name) for name in teachers]
    cells = [cell for layer in layers if (cell := dataset.manifest.get(shard, layer))]
    inputs = (boxes.object_id, *(cell.object_id for cell in cells))
    config = {"layers": [cell.layer for cell in cells]}
    key = work_key(operation="agree", version=VERSION, inputs=inputs, config=config)
    if record := find_result(dataset.store, key):
        return record
    columns = ["counts", "height", "width"]
    outputs = read_outputs(dataset, shard, teachers, ["counts"], num_rows=boxes.num_rows)
    size = dataset.table(shard, cells[0].layer, columns=columns[1:]) if cells else None
    table = pair_table(outputs, size, num_rows=boxes.num_rows)
    compared = _is_compared(table, boxes.num_rows)
    made = []
    if table.num_columns:  # a shard that only one teacher has seen has nothing to compare
        statistics = {_COMPARED: int(compared.sum()), _ALONE: int((~compared).sum())}
        made.append(
            write_cell(
                dataset.store, table, shard=shard, layer=schemas.AGREEMENT, inputs=inputs,
                statistics=statistics,
            )
        )  # fmt: skip
    categories = dataset.table(shard, schemas.BOXES, columns=["category"])["category"]
    record = ResultRecord(cells=tuple(made), ledger=_outcomes(categories, compared).rows)
    return publish_result(dataset.store, key, record)


def pair_table(
    outputs: dict[Output, OutputTable], size: pa.Table | None, *, num_rows: int
) -> pa.Table:
    """A float32 column for each pair of outputs of two teachers: the IoU of their masks.

    Args:
        outputs: with the column `counts`.
        size: [N] `height` and `width` of the images; None without outputs.
        num_rows: N.

    Raises:
        DamagedPairError: a mask is damaged.
    """
    columns: dict[str, pa.Array] = {}
    pairs = [(a, b) for a, b in combinations(sorted(outputs), 2) if a.teacher != b.teacher]
    for first, second in pairs:
        both = outputs[first].has_mask & outputs[second].has_mask
        rows = pa.array(np.flatnonzero(both))
        iou = np.zeros(num_rows, np.float32)
        if size is not None and len(rows):
            areas = paired_areas(
                _chunked(outputs[first].columns["counts"].take(rows)),
                _chunked(outputs[second].columns["counts"].take(rows)),
                sizes_hw=np.stack([size[name].to_numpy()[both] for name in ("height", "width")], 1),
            )
            iou[both] = areas.iou
        name = schemas.pair_name(first.name, second.name)
        columns[name] = pa.array(iou, pa.float32(), mask=~both)
    return pa.table({name: columns[name] for name in sorted(columns)})


def _chunked(column: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([column])


def _is_compared(table: pa.Table, num_rows: int) -> Bools:
    """[N] whether a box has an IoU at all."""
    compared = np.zeros(num_rows, dtype=bool)
    for column in table.columns:
        compared |= column.is_valid().to_numpy()
    return compared


def _outcomes(categories: pa.ChunkedArray, compared: Bools) -> Ledger:
    counter = LedgerCounter()
    table = pa.table({"category": categories, "compared": pa.array(compared)})
    counts = table.group_by(["category", "compared"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        category, count = row["category"], row["count_all"]
        if row["compared"]:
            counter.add_kept(schemas.AGREEMENT, category, count)
        else:
            counter.add_dropped(schemas.AGREEMENT, category, reason=_ALONE, count=count)
    return counter.ledger()


def _ledger(dataset: Dataset, records: Sequence[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    for category, count in _inputs(dataset):
        counter.add_inputs(schemas.AGREEMENT, category, count)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()


def _inputs(dataset: Dataset) -> Iterator[tuple[str, int]]:
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        yield from rows_by_category(cell).items()
