"""Makes a store of any size without a teacher; the same arguments give the same manifest.

    python benchmarks/synthetic_store.py FOLDER --images 600000 --masks 10000000
    python benchmarks/synthetic_store.py FOLDER --images 6000 --masks 100000 --seed 1 --branch new

The second line adds other images to a store that is there. Commits are those of a real job:
ingest, label (one a teacher), and filter, which really runs. Pictures are tiny, of one colour, and
decode to their declared size; masks are noisy blobs about their boxes, with the signals that they
really have. Killed on the way, the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial

from rich.progress import track
from synthetic_boxes import CATEGORIES
from synthetic_photos import ShardPlan
from synthetic_shards import VERSION, make_shard

from engine.filter import FilterConfig, filter_masks
from engine.ingest_config import ImagePolicy
from engine.policy import Policy
from manifests import schemas
from manifests.commit import Category
from manifests.dataset import Dataset, init, operation
from manifests.errors import NothingToCommitError
from manifests.ledger import Ledger, LedgerCounter
from manifests.refs import Refs
from manifests.results import ResultRecord
from manifests.store import Store
from manifests.writer import Writer

_HUMAN_EVERY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlan:
    """The arguments; see `main` for what each means."""

    images: int
    masks: int
    seed: int = 0
    teachers: tuple[str, ...] = ("sam_vit_t",)
    candidates: int = 0
    shard_images: int = 1000

    def shards(self) -> Iterator[ShardPlan]:
        """Images in shards of one size, masks spread evenly over the images."""
        for number, first in enumerate(range(0, self.images, self.shard_images)):
            last = min(first + self.shard_images, self.images)
            first_mask, last_mask = (self.masks * n // self.images for n in (first, last))
            yield ShardPlan(
                seed=self.seed, number=number, source=f"synthetic_{self.seed}",
                first_image=first, num_images=last - first,
                first_annotation=first_mask, num_masks=last_mask - first_mask,
                teachers=self.teachers, candidates=self.candidates,
                has_human=number % _HUMAN_EVERY == 0,
            )  # fmt: skip


def make_store(store: Store, plan: StorePlan, *, branch: str = "main", workers: int = 2) -> str:
    """Makes the store if there is none, adds the plan's images to a branch; the last commit id."""
    if not store.is_there():
        init(store)
    refs = Refs(store)
    if branch not in refs.branches():
        refs.create_branch(branch, refs.resolve("main"))
    records = _make_shards(store, plan, workers)
    _commit_ingest(store, plan, branch, records)
    for teacher in plan.teachers:
        _commit_label(store, plan, branch, records, teacher)
    policy = replace(Policy.load("default"), teachers=plan.teachers)
    with contextlib.suppress(NothingToCommitError):
        filter_masks(store, FilterConfig(policy=policy, branch=branch))
    return refs.resolve(branch)


def _make_shards(store: Store, plan: StorePlan, workers: int) -> list[ResultRecord]:
    """One shard a process at a time; what comes back is a few KB a shard."""
    shards, make = list(plan.shards()), partial(make_shard, store)
    if workers < 2:
        return [make(shard) for shard in shards]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(track(pool.map(make, shards), total=len(shards), description="shards"))


def _commit_ingest(
    store: Store, plan: StorePlan, branch: str, records: Sequence[ResultRecord]
) -> None:
    config = {
        "source": {"name": f"synthetic_{plan.seed}", "format": "synthetic", **asdict(plan)},
        "policy": asdict(ImagePolicy(min_sharpness=0.0)),
        "shard_images": plan.shard_images,
    }
    writer = Writer(store, branch)
    layers = {schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN}
    _commit_layers(
        writer, records, layers,
        operation=operation("ingest", version=VERSION, config=config),
        message=f"ingest synthetic_{plan.seed}",
        categories=_categories(writer.dataset, plan),
    )  # fmt: skip


def _commit_label(
    store: Store, plan: StorePlan, branch: str, records: Sequence[ResultRecord], teacher: str
) -> None:
    config = {"synthetic_seed": plan.seed, "candidates": plan.candidates}
    identity = {"name": teacher, "version": 0, "weights_sha256": None, "config": config}
    _commit_layers(
        Writer(store, branch), records, {schemas.masks_layer(teacher)},
        operation=operation(
            "label", version=VERSION, config={"teacher": teacher, "teacher_config": config},
            teacher=identity,
        ),
        message=f"label {teacher}, synthetic",
    )  # fmt: skip


def _commit_layers(
    writer: Writer,
    records: Sequence[ResultRecord],
    layers: set[str],
    **details: object,
) -> None:
    cells = [cell for record in records for cell in record.cells if cell.layer in layers]
    with contextlib.suppress(NothingToCommitError):
        writer.commit(
            writer.dataset.manifest.with_cells(cells),
            ledger=_ledger(records, layers),
            **details,  # type: ignore[arg-type]  # checked by `Writer.commit`
        )


def _ledger(records: Sequence[ResultRecord], layers: set[str]) -> Ledger:
    counter = LedgerCounter()
    for record in records:
        counter.add_ledger(row for row in record.ledger if row.layer in layers)
    return counter.ledger()


def _categories(dataset: Dataset, plan: StorePlan) -> tuple[Category, ...]:
    before = {category.name: category.source_ids for category in dataset.commit.categories}
    source = f"synthetic_{plan.seed}"
    return tuple(
        Category(name=name, source_ids={**before.get(name, {}), source: str(number)})
        for number, name in enumerate(CATEGORIES, start=1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", metavar="STORE", help="a folder or any fsspec URL")
    parser.add_argument("--images", type=int, default=600_000)
    parser.add_argument("--masks", type=int, default=10_000_000, help="boxes, a mask each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--branch", default="main", help="made from main if it is not there")
    parser.add_argument("--teachers", nargs="+", default=["sam_vit_t"])
    parser.add_argument(
        "--candidates", type=int, default=0, help="further masks a row; SAM itself gives 2"
    )
    parser.add_argument("--shard-images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args()
    plan = StorePlan(
        images=given.images, masks=given.masks, seed=given.seed, teachers=tuple(given.teachers),
        candidates=given.candidates, shard_images=given.shard_images,
    )  # fmt: skip
    started = time.perf_counter()
    commit_id = make_store(Store(given.store), plan, branch=given.branch, workers=given.workers)
    dataset = Dataset(Store(given.store), commit_id)
    peaks = [resource.getrusage(who).ru_maxrss / 1024
             for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]  # fmt: skip
    size = sum(cell.num_bytes for cell in dataset.manifest)
    print(f"{given.branch} at {commit_id[:12]}, manifest {dataset.commit.manifest[:12]}: "
          f"{len(dataset.manifest):,} cells, {size / 1e9:.2f} GB; "
          f"{time.perf_counter() - started:.0f} s, peak {peaks[0]:.0f} MiB here, "
          f"{peaks[1]:.0f} MiB in a worker")  # fmt: skip


if __name__ == "__main__":
    main()
