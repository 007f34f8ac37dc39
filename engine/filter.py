"""Filter: a policy over raw signals becomes the `verdicts` layer, with no image and no teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.policy import IMAGE_FRACTION, RULES, Policy, judge
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.errors import InputError
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Cell
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import rows_by_category, value_counts
from manifests.store import Store
from manifests.writer import Draft, Writer

VERSION = 1
"""Raised when the verdicts of the same policy and masks would come out different."""

NO_MASK = "no_mask"
NOT_LABELLED = "not_labelled"
_KEPT = "kept"
_SIGNALS = sorted({rule.column for rule in RULES.values()} - {IMAGE_FRACTION})
_COLUMNS = ["status", "reason", "height", "width", *_SIGNALS]
# A shard is one small read and some milliseconds of arithmetic: it is the store that is waited for.
_NUM_THREADS = 8


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
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        work = partial(_filter_shard, dataset, policy=config.policy)
        records = list(threads.map(work, dataset.manifest.shards()))
    return Draft.on(
        dataset,
        dataset.manifest.with_cells(cell for record in records for cell in record.cells),
        operation=operation("filter", version=VERSION, config=asdict(config.policy)),
        ledger=_ledger(dataset, records),
        message=config.message or f"filter with policy {config.policy.name}",
    )


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


def judge_shard(
    categories: pa.ChunkedArray, masks: Mapping[str, pa.Table | None], policy: Policy
) -> pa.Table:
    """VERDICTS_SCHEMA rows for one shard.

    A human mask is taken first, then the first teacher's that passes. Where none passes, the
    verdict is on the most preferred teacher that drew a mask; where none drew one, the reason is
    why the most preferred teacher did not.

    Args:
        categories: [N] of the shard's boxes.
        masks: layer name -> that layer's status, reason, size and signals, aligned with the boxes;
            None for a layer that this shard does not have yet.
        policy: the rules.
    """
    size = len(categories)
    encoded = pc.dictionary_encode(categories.combine_chunks())
    keep = _none_of(size)
    teacher = pa.nulls(size, pa.string())
    human = masks.get(schemas.MASKS_HUMAN)
    if policy.use_human and human is not None:
        keep = _is_ok(human)
        teacher = pc.if_else(keep, schemas.MASKS_HUMAN, teacher)
    judged, reason = pa.nulls(size, pa.string()), pa.nulls(size, pa.string())
    why_none = pa.nulls(size, pa.string())
    for layer in map(schemas.masks_layer, policy.teachers):
        table = masks.get(layer)
        if table is None:
            why_none = pc.fill_null(why_none, NOT_LABELLED)
            continue
        has_mask, broken = _is_ok(table), judge(_signals(table), encoded, policy)
        passes = pc.and_(pc.and_(has_mask, pc.is_null(broken)), pc.invert(keep))
        teacher = pc.if_else(passes, layer, teacher)
        keep = pc.or_(keep, passes)
        is_first = pc.and_(has_mask, pc.is_null(judged))
        judged = pc.if_else(is_first, layer, judged)
        reason = pc.if_else(is_first, broken, reason)
        why_none = pc.coalesce(why_none, pc.if_else(has_mask, None, _why_none(table)))
    columns = [
        keep,
        pc.if_else(keep, None, pc.coalesce(reason, why_none, NO_MASK)),
        pc.if_else(keep, teacher, judged),
        pa.array(np.zeros(size, dtype=np.int16)),
    ]
    return pa.table(columns, names=schemas.VERDICTS_SCHEMA.names).cast(schemas.VERDICTS_SCHEMA)


def _none_of(size: int) -> pa.BooleanArray:
    return pa.array(np.zeros(size, dtype=bool))


def _is_ok(masks: pa.Table) -> pa.BooleanArray:
    return pc.equal(masks["status"].combine_chunks(), schemas.OK)


def _why_none(masks: pa.Table) -> pa.StringArray:
    """[N] why a row has no mask."""
    is_pending = pc.equal(masks["status"].combine_chunks(), schemas.PENDING)
    return pc.coalesce(
        masks["reason"].combine_chunks(), pc.if_else(is_pending, NOT_LABELLED, NO_MASK)
    )


def _signals(masks: pa.Table) -> dict[str, NDArray[np.float32] | NDArray[np.float64]]:
    """Column -> [N], as `judge` wants them."""
    signals = {name: _numbers(masks[name]) for name in _SIGNALS}
    num_pixels = _numbers(masks["height"]) * _numbers(masks["width"])
    signals[IMAGE_FRACTION] = signals["area_px"] / num_pixels
    return signals


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32] | NDArray[np.float64]:
    """[N] null becomes NaN ("no such signal"), NaN becomes infinity ("not a number")."""
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    is_odd = pc.fill_null(pc.invert(pc.is_finite(column)), False)
    numbers: NDArray[np.float32] | NDArray[np.float64]
    numbers = pc.if_else(is_odd, np.inf, column).cast(column.type).to_numpy()
    return numbers


def _filter_shard(dataset: Dataset, shard: str, *, policy: Policy) -> ResultRecord:
    cells = dict(_input_cells(dataset, shard, policy))
    there = {layer: cell.object_id for layer, cell in cells.items() if cell}
    inputs, config = tuple(there.values()), {"policy": asdict(policy), "layers": list(there)}
    key = work_key(operation="filter", version=VERSION, inputs=inputs, config=config)
    if record := find_result(dataset.store, key):
        return record
    categories = dataset.table(shard, schemas.BOXES, columns=["category"])["category"]
    masks = {
        layer: dataset.table(shard, layer, columns=_COLUMNS) if cell else None
        for layer, cell in cells.items()
        if layer != schemas.BOXES
    }
    verdicts = judge_shard(categories, masks, policy)
    num_kept = pc.sum(verdicts["keep"]).as_py() or 0
    cell = write_cell(
        dataset.store, verdicts, shard=shard, layer=schemas.VERDICTS, inputs=inputs,
        statistics={_KEPT: num_kept} | value_counts(verdicts["reason"]),
    )  # fmt: skip
    record = ResultRecord(cells=(cell,), ledger=_outcomes(categories, verdicts).rows)
    return publish_result(dataset.store, key, record)


def _input_cells(dataset: Dataset, shard: str, policy: Policy) -> Iterator[tuple[str, Cell | None]]:
    yield schemas.BOXES, dataset.cell(shard, schemas.BOXES)
    layers = [schemas.masks_layer(name) for name in policy.teachers]
    for layer in [*([schemas.MASKS_HUMAN] if policy.use_human else []), *layers]:
        yield layer, dataset.manifest.get(shard, layer)


def _outcomes(categories: pa.ChunkedArray, verdicts: pa.Table) -> Ledger:
    counter = LedgerCounter()
    joined = verdicts.append_column("category", categories)
    counts = joined.group_by(["category", "keep", "reason"]).aggregate([([], "count_all")])
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
