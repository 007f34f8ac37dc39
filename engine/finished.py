"""Masks that are up to date although this store has no record of the work: those of a clone.

`clone`, `push` and `pull` bring commits and cells, not result records, which are a store's own
cache of finished work. Where a commit proves that a teacher drew just these masks from just these
inputs, the record is made again from the cells, so that nothing is drawn twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from engine.mask_ledger import mask_outcomes
from manifests import schemas
from manifests.dataset import Dataset
from manifests.history import history
from manifests.in_parallel import in_parallel
from manifests.ledger import LedgerRow
from manifests.manifest import Cell, Manifest
from manifests.results import ResultRecord, find_result, publish_result

_NUM_THREADS = 8


class ShardWork(Protocol):
    """What is to be done for one shard; see `engine.label.LabelPayload`."""

    @property
    def work_key(self) -> str: ...

    @property
    def shard(self) -> str: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...


def record_known_masks(
    dataset: Dataset,
    work: Sequence[ShardWork],
    *,
    identity: Mapping[str, Any],  # Any: JSON
    version: int,
) -> None:
    """Publishes result records for work whose masks the dataset has and whose record is missing.

    So it does where the store was opened with `scratch`: the commit that a step starts from is
    given, and only the step's own work is done anew.

    Args:
        dataset: the commit that work is planned for.
        work: one item a shard.
        identity: the teacher that is to do it, its `name` among other things.
        version: the label operation's own.

    Raises:
        ObjectMissingError, ObjectDamagedError: a commit or cell cannot be read.
    """
    layer = schemas.masks_layer(identity["name"])
    known = {}
    for item in work:
        cell = dataset.manifest.get(item.shard, layer)
        if cell is not None and cell.inputs == item.inputs:
            known[item.work_key] = cell
    if not known:
        return

    def is_unrecorded(key: str) -> bool:
        if find_result(dataset.store, key) is not None:
            return False
        # A cell that went is no finished work: it is drawn again, which brings it back.
        return dataset.store.object_size(known[key].object_id) == known[key].num_bytes

    asked = zip(known, in_parallel(is_unrecorded, known, num_threads=_NUM_THREADS), strict=True)
    unrecorded = {key: known[key] for key, is_missing in asked if is_missing}
    proved = _proved(dataset, layer, identity, version, unrecorded.values())
    for key, cell in unrecorded.items():
        if cell.shard in proved:
            record = ResultRecord(cells=(cell,), ledger=_outcomes(dataset, cell))
            publish_result(dataset.store, key, record)


def _proved(
    dataset: Dataset,
    layer: str,
    identity: Mapping[str, Any],  # Any: JSON
    version: int,
    cells: Collection[Cell],
) -> frozenset[str]:
    """Shards whose cell is in a commit that this teacher, weights, settings and code made.

    The newest such commit is not enough: a merge brings cells of other weights of that name.
    """
    proved: set[str] = set()
    manifests = _made_by(dataset, identity, version) if cells else iter(())
    for manifest in manifests:
        made = {cell.shard: (cell.object_id, cell.inputs) for cell in manifest.of_layer(layer)}
        proved.update(
            cell.shard for cell in cells if made.get(cell.shard) == (cell.object_id, cell.inputs)
        )
        if len(proved) == len(cells):
            break
    return frozenset(proved)


def _made_by(
    dataset: Dataset,
    identity: Mapping[str, Any],  # Any: JSON
    version: int,
) -> Iterator[Manifest]:
    for entry in history(dataset.store, dataset.commit_id):
        made = entry.commit.operation
        if made.version == version and made.teacher == identity:
            yield Manifest.load(dataset.store, entry.commit.manifest)


def _outcomes(dataset: Dataset, cell: Cell) -> tuple[LedgerRow, ...]:
    masks = dataset.table(cell.shard, cell.layer, columns=["status", "reason"])
    boxes = dataset.table(cell.shard, schemas.BOXES, columns=["category"])
    return mask_outcomes(cell.layer, categories=boxes["category"], masks=masks)
