"""Ingest: an external box-labelled dataset becomes images + boxes (+ masks/human) of a branch.

scan (spool) -> fingerprint on workers -> plan in SQL -> pack on workers -> commit
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.driver import Driver, JobProgress
from engine.extend import ExtendPayload, ExtendWorker
from engine.fingerprint import (
    FINGERPRINTS,
    FingerprintPayload,
    FingerprintWorker,
    plan_fingerprints,
)
from engine.image_root import ImageRoot
from engine.ingest_config import IngestConfig
from engine.pack import VERSION, PackPayload, PackWorker
from engine.plan import IngestPlan, PlannedShard, known_images
from engine.pool import open_pool
from engine.sources.digest import digests_of
from engine.sources.protocol import Source
from engine.sources.registry import open_source
from engine.spool import Spool
from engine.task import Progress, Worker
from manifests import schemas
from manifests.cells import read_table
from manifests.dataset import Dataset, operation
from manifests.errors import InputError, JobError
from manifests.history import newest
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Manifest
from manifests.parquet import table_to_parquet
from manifests.removed import Removals
from manifests.results import ResultRecord, work_key
from manifests.store import Store
from manifests.writer import Draft, Writer

log = logging.getLogger(__name__)


def ingest(
    store: Store,
    config: IngestConfig,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> str:
    """Adds a source to a branch and commits; returns the commit id.

    Raises:
        InputError, SourceSyntaxError: the source is missing, broken, or has no images.
        JobError, JobInterruptedError: the job did not finish; finished shards are kept.
        NothingToCommitError: all of it is in the dataset already.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, config.branch)
    return writer.publish(draft_ingest(writer.dataset, config, on_progress=on_progress))


def draft_ingest(
    dataset: Dataset,
    config: IngestConfig,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> Draft:
    """What an ingest step makes of a commit; no branch is touched. Raises as `ingest`."""
    store, root = dataset.store, ImageRoot(config.source.images)
    root.check()
    source = open_source(config.source)
    inputs = digests_of(source)
    with tempfile.TemporaryDirectory(prefix="maskmill-spool-") as folder:
        spool = Spool(Path(folder))
        spool.fill(source)
        plan = IngestPlan(spool, config, images_implied=source.images_implied)
        fingerprints = plan_fingerprints(root, plan.files())
        with open_pool(
            partial(_build_worker, store), config=config.pool, default_cpus=1,
            num_tasks=max(1, len(fingerprints)),
        ) as pool:  # fmt: skip
            driver = partial(Driver, store, pool, config=config.driver, on_progress=on_progress)
            read = driver().run(fingerprints)
            plan.set_fingerprints(
                _fingerprint_table(store, read), known_images(dataset),
                taken_down=Removals.load(store, dataset.commit).image_ids,
            )  # fmt: skip
            payloads = [
                _payload(store, dataset, plan.shard(number), config, source)
                for number in range(plan.num_shards())
            ]
            records = driver().run(payloads)
        ledger = _ledger(plan, records)
        if not plan.num_images():
            raise InputError(
                f"source '{config.source.name}' has no images; look at its annotations and images"
            )
        return Draft.on(
            dataset,
            _with_shards(dataset.manifest, records),
            operation=operation(
                "ingest", version=VERSION, config=_lineage(config),
                packages=("pillow", "opencv-python-headless", "duckdb"), inputs=inputs,
            ),
            ledger=ledger,
            message=config.message or f"ingest {config.source.name}",
            categories=plan.categories(dataset.commit.categories),
            rejects=_store_rejects(store, plan, records),
            even_if_unchanged=_kept_nothing(ledger) or _is_new(dataset, config),
        )  # fmt: skip


class IngestWorker:
    """Does all three kinds of ingest payload; see `engine.task.Worker`."""

    def __init__(self, store: Store) -> None:
        self._workers: dict[type, Worker] = {
            FingerprintPayload: FingerprintWorker(store),
            PackPayload: PackWorker(store),
            ExtendPayload: ExtendWorker(store),
        }
        self._current: Worker | None = None

    @property
    def progress(self) -> Progress:
        return self._current.progress if self._current else Progress()

    def run(self, payload: object) -> ResultRecord:
        """Hands the payload to the worker of its kind."""
        worker = self._workers.get(type(payload))
        if worker is None:
            raise JobError(f"ingest worker: unknown payload {type(payload).__name__}")
        self._current = worker
        return worker.run(payload)


def _build_worker(store: Store) -> Worker:
    return IngestWorker(store)


def _fingerprint_table(store: Store, records: Sequence[ResultRecord]) -> pa.Table:
    tables = [read_table(store, record.cells[0].object_id) for record in records]
    return pa.concat_tables([FINGERPRINTS.empty_table(), *tables])


def _payload(
    store: Store, dataset: Dataset, shard: PlannedShard, config: IngestConfig, source: Source
) -> PackPayload | ExtendPayload:
    plan = store.put_bytes(table_to_parquet(shard.table)).object_id
    shaping = {
        "policy": asdict(config.policy), "source": config.source.name, "unit": source.box_unit,
    }  # fmt: skip
    if shard.extends:
        return ExtendPayload.make(
            dataset, shard.extends, plan=plan, source=config.source.name, shaping=shaping,
            box_unit=source.box_unit, policy=config.policy,
        )  # fmt: skip
    return PackPayload(
        work_key=work_key(operation="ingest", version=VERSION, inputs=[plan], config=shaping),
        plan=plan,
        num_images=shard.table.num_rows,
        root=ImageRoot(config.source.images),
        source=config.source.name,
        box_unit=source.box_unit,
        policy=config.policy,
    )


def _with_shards(manifest: Manifest, records: Iterable[ResultRecord]) -> Manifest:
    """New shards are added; an extended shard's computed layers are taken out, being stale."""
    cells = [cell for record in records for cell in record.cells]
    touched = {cell.shard for cell in cells} & set(manifest.shards())
    kept = [
        cell
        for cell in manifest
        if cell.shard not in touched or cell.layer not in schemas.COMPUTED_LAYERS
    ]
    return Manifest([*kept, *cells])


def _lineage(config: IngestConfig) -> dict[str, Any]:  # Any: JSON
    return {
        "source": asdict(config.source),
        "policy": asdict(config.policy),
        "shard_images": config.shard_images,
        "shard_bytes": config.shard_bytes,
    }


def _ledger(plan: IngestPlan, records: Iterable[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    plan.count(counter)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()


def _kept_nothing(ledger: Ledger) -> bool:
    """Whether every image failed: then the ledger itself is the news."""
    return any(
        row.layer == schemas.IMAGES and row.inputs == sum(row.failed.values())
        for row in ledger.totals()
    )


def _is_new(dataset: Dataset, config: IngestConfig) -> bool:
    """Whether no commit tells yet what became of this source, though all of it may be known."""
    known = newest(
        dataset.store, dataset.commit_id, lambda commit: config.is_made_by(commit.operation)
    )
    return known is None


def _store_rejects(store: Store, plan: IngestPlan, records: Sequence[ResultRecord]) -> str | None:
    found = [plan.rejects()]
    found += [read_table(store, record.rejects) for record in records if record.rejects]
    table = pa.concat_tables(found)
    return store.put_bytes(table_to_parquet(table)).object_id if table.num_rows else None
