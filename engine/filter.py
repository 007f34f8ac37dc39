"""Filter: a policy over raw signals becomes the `verdicts` layer, with no image and no teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.policy import RULES, Policy, judge
from manifests import schemas
from manifests.cells import read_table, write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, Writer, operation
from manifests.errors import InputError
from manifests.ledger import Ledger, LedgerCounter, LedgerRow
from manifests.manifest import Cell
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import rows_by_category, value_counts
from manifests.store import Store

VERSION = 1

_KEPT = "kept"
_SIGNALS = sorted({rule.column for rule in RULES.values()} - {"image_fraction"})
_COLUMNS = ["status", "reason", "height", "width", *_SIGNALS]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """Settings of one filter step."""

    policy: Policy
    branch: str = DEFAULT_BRANCH
    message: str = ""


def filter_masks(store: Store, config: FilterConfig) -> str:
    """Judges every row of the branch and commits `verdicts`; returns the commit id.

    Raises:
        InputError: the branch has no boxes, or no layer of a teacher the policy names.
        NothingToCommitError: the verdicts are there already.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, config.branch)
    dataset = writer.dataset
    _check_layers(dataset, config.policy)
    records = [_filter_shard(dataset, shard, config.policy) for shard in dataset.manifest.shards()]
    return writer.commit(
        dataset.manifest.with_cells(cell for record in records for cell in record.cells),
        operation=operation("filter", version=VERSION, config=asdict(config.policy)),
        ledger=_ledger(dataset, records),
        message=config.message or f"filter with policy {config.policy.name}",
    )


def judge_shard(boxes: pa.Table, masks: Mapping[str, pa.Table], policy: Policy) -> pa.Table:
    """VERDICTS_SCHEMA rows for one shard.

    Args:
        boxes: `category` of the shard's boxes.
        masks: layer name -> that layer's status, reason, size and signals, aligned with `boxes`.
        policy: the rules.
    """
    num_rows = boxes.num_rows
    categories = np.array(boxes["category"].to_pylist(), dtype=object)
    reasons: NDArray[np.object_] = np.full(num_rows, "no_mask", dtype=object)
    teachers: NDArray[np.object_] = np.full(num_rows, None, dtype=object)
    is_kept = np.zeros(num_rows, dtype=bool)
    if policy.use_human and schemas.MASKS_HUMAN in masks:
        is_kept = np.array(pc.equal(masks[schemas.MASKS_HUMAN]["status"], schemas.OK))
        teachers[is_kept] = schemas.MASKS_HUMAN
    # Backwards, so that for a row that nobody passes the most preferred teacher's reason stands.
    verdicts = []
    for name in policy.teachers:
        layer = schemas.masks_layer(name)
        if layer in masks:
            verdicts.append((layer, _judge_layer(masks[layer], categories, policy)))
    for layer, broken in reversed(verdicts):
        is_open = ~is_kept
        reasons[is_open], teachers[is_open] = broken[is_open], layer
    for layer, broken in verdicts:
        passes = np.equal(broken, None) & ~is_kept
        teachers[passes] = layer
        is_kept |= passes
    reasons[is_kept] = None
    columns = [is_kept, reasons, teachers, np.zeros(num_rows, dtype=np.int16)]
    return pa.table(
        [pa.array(column) for column in columns], names=schemas.VERDICTS_SCHEMA.names
    ).cast(schemas.VERDICTS_SCHEMA)


def _judge_layer(
    masks: pa.Table, categories: NDArray[np.object_], policy: Policy
) -> NDArray[np.object_]:
    """[N] reasons of one layer: a row without a mask keeps the reason for which it has none."""
    signals = {name: _floats(masks[name]) for name in _SIGNALS}
    num_pixels = _floats(masks["height"]) * _floats(masks["width"])
    signals["image_fraction"] = signals["area_px"] / num_pixels
    reasons = judge(signals, categories, policy)
    status = np.array(masks["status"].to_pylist(), dtype=object)
    why = np.array(masks["reason"].to_pylist(), dtype=object)
    is_without = status != schemas.OK
    named = [
        reason or ("not_labelled" if state == schemas.PENDING else "no_mask")
        for state, reason in zip(status[is_without], why[is_without], strict=True)
    ]
    reasons[is_without] = named
    return reasons


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """[N] float64: null becomes NaN ("no such signal"), NaN becomes infinity ("not a number")."""
    values = column.cast(pa.float64()).combine_chunks()
    is_null = np.array(values.is_null())
    numbers = np.array(values.fill_null(0.0))
    numbers = np.where(np.isfinite(numbers), numbers, np.inf)
    return np.where(is_null, np.nan, numbers)


def _filter_shard(dataset: Dataset, shard: str, policy: Policy) -> ResultRecord:
    cells = dict(_input_cells(dataset, shard, policy))
    inputs = tuple(cell.object_id for cell in cells.values())
    key = work_key(operation="filter", version=VERSION, inputs=inputs, config=asdict(policy))
    if record := find_result(dataset.store, key):
        return record
    boxes = read_table(dataset.store, cells.pop(schemas.BOXES).object_id, columns=["category"])
    masks = {
        layer: read_table(dataset.store, cell.object_id, columns=_COLUMNS)
        for layer, cell in cells.items()
    }
    verdicts = judge_shard(boxes, masks, policy)
    statistics = {_KEPT: pc.sum(verdicts["keep"]).as_py() or 0}
    cell = write_cell(
        dataset.store, verdicts, shard=shard, layer=schemas.VERDICTS, inputs=inputs,
        statistics=statistics | value_counts(verdicts["reason"]),
    )  # fmt: skip
    record = ResultRecord(cells=(cell,), ledger=_outcomes(boxes, verdicts))
    return publish_result(dataset.store, key, record)


def _input_cells(dataset: Dataset, shard: str, policy: Policy) -> Iterator[tuple[str, Cell]]:
    yield schemas.BOXES, dataset.cell(shard, schemas.BOXES)
    layers = [schemas.masks_layer(name) for name in policy.teachers]
    for layer in [*([schemas.MASKS_HUMAN] if policy.use_human else []), *layers]:
        if cell := dataset.manifest.get(shard, layer):
            yield layer, cell


def _outcomes(boxes: pa.Table, verdicts: pa.Table) -> tuple[LedgerRow, ...]:
    counter = LedgerCounter()
    joined = verdicts.append_column("category", boxes["category"])
    counts = joined.group_by(["category", "keep", "reason"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        if row["keep"]:
            counter.add_kept(schemas.VERDICTS, row["category"], row["count_all"])
        else:
            counter.add_dropped(
                schemas.VERDICTS, row["category"], reason=row["reason"], count=row["count_all"]
            )
    return counter.ledger().rows


def _ledger(dataset: Dataset, records: list[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_inputs(schemas.VERDICTS, category, count)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()


def _check_layers(dataset: Dataset, policy: Policy) -> None:
    if not dataset.manifest.shards():
        raise InputError("there is nothing to filter: run 'maskmill ingest' and 'label' first")
    have = dataset.manifest.layers()
    for name in policy.teachers:
        if schemas.masks_layer(name) not in have:
            there = ", ".join(layer for layer in have if layer.startswith("masks/")) or "none"
            raise InputError(
                f"policy '{policy.name}' wants teacher '{name}', but commit "
                f"{dataset.commit_id[:12]} has no layer masks/{name} (there: {there}); run "
                f"'maskmill label --teacher {name}' first, or name another teacher"
            )
