"""Filter: a policy over signals or confidence becomes `verdicts`, with no image and no teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from engine.confidence.judge import Judge, input_cells, open_judge
from engine.policy import Policy
from engine.verdicts import HUMAN_COLUMNS, TEACHER_COLUMNS, judge_shard
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.errors import InputError
from manifests.history import newest
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Cell
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import cell_statistics, rows_by_category
from manifests.store import Store
from manifests.writer import Draft, Writer

VERSION = 2
"""Raised when the verdicts of the same policy and masks would come out different."""

_MASKS = schemas.masks_layer("")
# A shard is some small reads and milliseconds of arithmetic. A bucket's answers are what is waited
# for; on a local disk it is the interpreter, and 8 threads take a third longer than 3.
_NUM_THREADS, _NUM_THREADS_LOCAL = 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """Settings of one filter step.

    Attributes:
        policy: see Policy.
        branch: the branch to read and to commit to.
        message: the commit's message; empty: one is made.
    """

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
    return writer.publish(draft_filter(writer.dataset, config))


def draft_filter(dataset: Dataset, config: FilterConfig) -> Draft:
    """What a filter step makes of a commit; no branch is touched. Raises as `filter_masks`."""
    check_layers(dataset, config.policy)
    judge = open_judge(dataset, config.policy) if config.policy.uses_confidence else None
    is_local = dataset.store.protocol == "file"
    with ThreadPoolExecutor(_NUM_THREADS_LOCAL if is_local else _NUM_THREADS) as threads:
        work = partial(_filter_shard, dataset, policy=config.policy, judge=judge)
        records = list(threads.map(work, dataset.manifest.shards()))
    return Draft.on(
        dataset,
        dataset.manifest.with_cells(cell for record in records for cell in record.cells),
        operation=operation("filter", version=VERSION, config=asdict(config.policy)),
        ledger=_ledger(dataset, records),
        message=config.message or f"filter with policy {config.policy.name}",
        quality=judge.quality if judge else None,
        # The same verdicts may come with another certificate, which somebody will ask for.
        even_if_unchanged=judge is not None and judge.quality != _quality_before(dataset),
    )


def _quality_before(dataset: Dataset) -> Mapping[str, Any] | None:  # Any: JSON
    last = newest(
        dataset.store, dataset.commit_id, lambda commit: commit.operation.name == "filter"
    )
    return last.commit.quality if last else None


def check_layers(dataset: Dataset, policy: Policy, *, coming: Sequence[str] = ()) -> None:
    """Looks, in the manifest alone, whether there is something for the policy to judge.

    Args:
        dataset: the commit to filter.
        policy: the policy.
        coming: teachers whose layers will be there by then.

    Raises:
        InputError: no shards, or no layer of a teacher that the policy names.
    """
    if not dataset.manifest.shards() and not coming:
        raise InputError(
            "there is nothing to filter: run 'maskmill ingest' and 'maskmill label' first"
        )
    there = [layer for layer in dataset.manifest.layers() if layer.startswith("masks/")]
    have = dict.fromkeys([*(layer.removeprefix("masks/") for layer in there), *coming])
    for name in policy.teachers:
        if name not in have:
            raise InputError(
                f"policy '{policy.name}' wants masks of teacher '{name}', but there are only "
                f"{', '.join(have) or 'none at all'}; run 'maskmill label {name}' first, or name "
                "other teachers in the policy"
            )


def _filter_shard(
    dataset: Dataset, shard: str, *, policy: Policy, judge: Judge | None
) -> ResultRecord:
    cells = dict((input_cells if judge else _input_cells)(dataset, shard, policy))
    there = {layer: cell.object_id for layer, cell in cells.items() if cell}
    inputs, config = tuple(there.values()), {"policy": asdict(policy), "layers": list(there)}
    line = {"line": judge.line} if judge else {}
    key = work_key(operation="filter", version=VERSION, inputs=inputs, config=config | line)
    if record := find_result(dataset.store, key):
        return record
    categories = dataset.table(shard, schemas.BOXES, columns=["category"])["category"]
    if judge is not None and len(categories):
        verdicts = judge.verdicts(dataset, shard)
    else:
        masks = {
            layer: dataset.table(shard, layer, columns=_columns(layer)) if cell else None
            for layer, cell in cells.items()
            if layer.startswith(_MASKS)
        }
        verdicts = judge_shard(categories, masks, policy)
    cell = write_cell(
        dataset.store, verdicts, shard=shard, layer=schemas.VERDICTS, inputs=inputs,
        statistics=cell_statistics(schemas.VERDICTS, verdicts),
    )  # fmt: skip
    record = ResultRecord(cells=(cell,), ledger=_outcomes(categories, verdicts).rows)
    return publish_result(dataset.store, key, record)


def _input_cells(dataset: Dataset, shard: str, policy: Policy) -> Iterator[tuple[str, Cell | None]]:
    yield schemas.BOXES, dataset.cell(shard, schemas.BOXES)
    layers = [schemas.masks_layer(name) for name in policy.teachers]
    for layer in [*([schemas.MASKS_HUMAN] if policy.use_human else []), *layers]:
        yield layer, dataset.manifest.get(shard, layer)


def _columns(layer: str) -> list[str]:
    return HUMAN_COLUMNS if layer == schemas.MASKS_HUMAN else TEACHER_COLUMNS


def _outcomes(categories: pa.ChunkedArray, verdicts: pa.Table) -> Ledger:
    counter = LedgerCounter()
    joined = verdicts.append_column("category", categories)
    groups = joined.group_by(["category", "keep", "reason"], use_threads=False)
    counts = groups.aggregate([([], "count_all")])
    for row in counts.to_pylist():
        layer, category, count = schemas.VERDICTS, row["category"], row["count_all"]
        if row["keep"]:
            counter.add_kept(layer, category, count)
        else:
            counter.add_dropped(layer, category, reason=row["reason"], count=count)
    return counter.ledger()


def _ledger(dataset: Dataset, records: Sequence[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_inputs(schemas.VERDICTS, category, count)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()
