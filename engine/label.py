"""Label: a teacher draws a mask for every box, one shard a task, into `masks/<teacher>`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Self

from engine.driver import Driver, DriverConfig, JobProgress
from engine.finished import record_known_masks
from engine.pool import PoolConfig, open_pool
from engine.task import Worker
from manifests import schemas
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.digest import canonical_json
from manifests.errors import InputError
from manifests.history import newest
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Cell, Manifest
from manifests.results import ResultRecord, work_key
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.writer import Draft, Writer

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when the masks layer of the same teacher and boxes would come out different."""

_PACKAGES = ("pillow", "opencv-python-headless")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """Settings of one label step.

    Attributes:
        teacher: a name of `teachers.registry`.
        teacher_config: that teacher's own settings.
        branch: the branch to read and to commit to.
        message: the commit's message; empty: one is made.
        image_batch: images given to the teacher together, at most; out of memory halves it. A
            teacher may well take fewer at a time: SAM takes one on a CPU.
        retry_failed: boxes that the layer has as failed are tried once more.
        pool: where the workers run.
        driver: how patient the job is.
    """

    teacher: str
    teacher_config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    branch: str = DEFAULT_BRANCH
    message: str = ""
    image_batch: int = 8
    retry_failed: bool = False
    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()

    def __post_init__(self) -> None:
        if self.image_batch < 1:
            raise InputError(f"image_batch: expected at least 1, got {self.image_batch}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPayload:
    """One shard to label, or the images [start, stop) of it.

    Attributes:
        work_key: see `engine.task.Payload`.
        shard: shard id.
        teacher: registry name; its layer is `masks/<teacher>`.
        images, image_index, boxes: the shard's cells, as object ids.
        carried: object id of an older masks cell, whose rows are kept unless pending or failed; or
            "".
        start, stop: image rows of this payload; `is_part` if they are not all of the shard's.
        parts: work keys of finished parts, whose rows are taken instead of being predicted again.
        failures: image row -> ledger word, for images that cannot be done.
    """

    work_key: str
    shard: str
    teacher: str
    images: str
    image_index: str
    boxes: str
    carried: str
    start: int
    stop: int
    is_part: bool = False
    parts: tuple[str, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"label {self.teacher} {self.shard[:12]}[{self.start}:{self.stop}]"

    @property
    def num_items(self) -> int:
        return self.stop - self.start

    @property
    def inputs(self) -> tuple[str, ...]:
        """Object ids that the masks cell is computed from."""
        found = (self.images, self.image_index, self.boxes)
        return (*found, self.carried) if self.carried else found

    def part(self, start: int, stop: int) -> Self:
        """See `engine.task.Payload.part`."""
        first, last = self.start + start, self.start + stop
        key = work_key(
            operation="label-part", version=VERSION, inputs=[self.work_key],
            config={"start": first, "stop": last},
        )  # fmt: skip
        return replace(self, work_key=key, start=first, stop=last, is_part=True)

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """See `engine.task.Payload.assembled`."""
        return replace(self, parts=tuple(parts), failures=dict(failures))


def label(
    store: Store,
    config: LabelConfig,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> str:
    """Labels every shard of the branch and commits the layer; returns the commit id.

    Work that is done, here or on another branch or machine, is found in the store and not repeated.

    Raises:
        InputError: an unknown teacher or setting, or nothing to label.
        WeightsError: the teacher's weights are not to be had.
        JobError, JobInterruptedError: the job did not finish; finished shards are kept.
        CommitConflictError: the branch moved meanwhile.
        NothingToCommitError: the layer is there already, from this teacher, weights and settings.
    """
    writer = Writer(store, config.branch)
    return writer.publish(draft_label(writer.dataset, config, on_progress=on_progress))


def draft_label(
    dataset: Dataset,
    config: LabelConfig,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> Draft:
    """What a label step makes of a commit; no branch is touched. Raises as `label`."""
    from teachers import registry

    store = dataset.store
    identity = registry.identity(config.teacher, config.teacher_config)
    payloads = plan_label(
        dataset, identity.name, asdict(identity), retry_failed=config.retry_failed
    )
    record_known_masks(dataset, payloads, identity=asdict(identity), version=VERSION)
    build = partial(_build_worker, store, config)
    cpus = 0 if config.pool.gpus_per_worker == 0 else 4
    with open_pool(build, config=config.pool, default_cpus=cpus, num_tasks=len(payloads)) as pool:
        driver = Driver(store, pool, config=config.driver, on_progress=on_progress)
        records = driver.run(payloads)
    layer = schemas.masks_layer(identity.name)
    return Draft.on(
        dataset,
        _with_layer(dataset.manifest, records),
        operation=operation(
            "label", version=VERSION, config=_lineage(config), teacher=asdict(identity),
            packages=(*_PACKAGES, *registry.spec(identity.name).packages),
            machines=_machines(dataset.manifest, records),
        ),
        ledger=_ledger(dataset, layer, records),
        message=config.message or f"label with {identity.name}",
    )  # fmt: skip


def plan_label(
    dataset: Dataset,
    teacher: str,
    identity: Mapping[str, Any],  # Any: JSON
    *,
    retry_failed: bool = False,
) -> list[LabelPayload]:
    """One payload a shard, in the order of the manifest.

    Rows that the same teacher with the same settings drew are carried over where a shard has got
    new boxes or origins since; another teacher of that name (other weights) draws all of them.

    Raises:
        InputError: the dataset has no shards.
    """
    shards = dataset.manifest.shards()
    if not shards:
        raise InputError(
            f"commit {dataset.commit_id[:12]} has no images to label; run 'maskmill ingest' first"
        )
    is_same = _drawn_by(dataset, teacher, identity)
    payloads = []
    for shard in shards:
        known = dataset.manifest.get(shard, schemas.masks_layer(teacher)) if is_same else None
        payloads.append(_payload(dataset, shard, identity, known, retry_failed=retry_failed))
    return payloads


def _drawn_by(dataset: Dataset, teacher: str, identity: Mapping[str, Any]) -> bool:  # Any: JSON
    """Whether the dataset's masks of that teacher come from just this identity and this code."""
    last = newest(
        dataset.store,
        dataset.commit_id,
        lambda commit: (commit.operation.teacher or {}).get("name") == teacher,
    )
    if last is None:
        return False
    made = last.commit.operation
    return made.version == VERSION and made.teacher == identity


def _payload(
    dataset: Dataset,
    shard: str,
    identity: Mapping[str, Any],  # Any: JSON
    known: Cell | None,
    *,
    retry_failed: bool,
) -> LabelPayload:
    images, index, boxes = (
        dataset.cell(shard, layer) for layer in (schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES)
    )
    inputs = (images.object_id, index.object_id, boxes.object_id)
    carried = _carried(known, inputs, retry_failed=retry_failed)
    key = work_key(
        operation="label", version=VERSION, config=dict(identity),
        inputs=[*inputs, carried] if carried else inputs,
    )  # fmt: skip
    return LabelPayload(
        work_key=key,
        shard=shard,
        teacher=identity["name"],
        images=images.object_id,
        image_index=index.object_id,
        boxes=boxes.object_id,
        carried=carried,
        start=0,
        stop=index.num_rows,
    )


def _carried(known: Cell | None, inputs: tuple[str, ...], *, retry_failed: bool) -> str:
    """See `LabelPayload.carried`. A cell that is up to date gets the key that it was made with."""
    if known is None:
        return ""
    is_current = known.inputs[: len(inputs)] == inputs
    if not is_current or (retry_failed and known.statistics.get(schemas.FAILED)):
        return known.object_id
    return next(iter(known.inputs[len(inputs) :]), "")


def _build_worker(store: Store, config: LabelConfig) -> Worker:
    """Runs in the worker's process: the only place where the teacher's model is loaded."""
    from engine.label_worker import LabelWorker
    from teachers import registry

    teacher = registry.build(config.teacher, config.teacher_config)
    return LabelWorker(store, teacher, image_batch=config.image_batch)


def _with_layer(manifest: Manifest, records: Sequence[ResultRecord]) -> Manifest:
    """Cells computed from masks that were drawn anew, verdicts above all, are taken out."""
    made: list[Cell] = []
    replaced: set[tuple[str, str]] = set()
    for cell in (cell for record in records for cell in record.cells):
        known = manifest.get(cell.shard, cell.layer)
        if known and known.object_id == cell.object_id and known.inputs[:3] == cell.inputs[:3]:
            continue  # failed boxes were tried again, in vain
        if known and known.object_id != cell.object_id:
            replaced.add((known.shard, known.object_id))
        made.append(cell)
    fresh = [
        cell
        for cell in manifest
        if not any((cell.shard, object_id) in replaced for object_id in cell.inputs)
    ]
    return Manifest([*fresh, *made])


def _lineage(config: LabelConfig) -> dict[str, Any]:  # Any: JSON
    """What shapes the masks; where and how patiently the job ran does not belong to it."""
    return {
        "teacher": config.teacher,
        "teacher_config": dict(config.teacher_config),
        "image_batch": config.image_batch,
        "retry_failed": config.retry_failed,
    }


def _machines(
    before: Manifest, records: Sequence[ResultRecord]
) -> tuple[Mapping[str, str | int], ...]:
    """The kinds of machine that drew masks which the commit before did not have, each once."""
    kinds = {
        canonical_json(record.machine): record.machine
        for record in records
        if record.machine
        and any(cell != before.get(cell.shard, cell.layer) for cell in record.cells)
    }
    return tuple(kinds[key] for key in sorted(kinds))


def _ledger(dataset: Dataset, layer: str, records: Sequence[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_inputs(layer, category, count)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()
