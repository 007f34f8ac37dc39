"""Taking images down: shards written again without them, and the record of what went and why.

The bytes themselves go with the next `gc`: the old shard's `images` object is garbage from then on,
although older commits name it. Whoever merges or ingests later leaves the images out as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from manifests import schemas
from manifests.commit import default_author, now
from manifests.dataset import Dataset, operation
from manifests.errors import InputError
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Cell, Manifest
from manifests.models import is_model
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.shard_edit import without_images
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.takedown_replay import replaced_shard
from manifests.three_way import shard_layers
from manifests.writer import Draft, Writer

VERSION = 1
TAKEN_DOWN = "taken_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakedownPlan:
    """What is to go and what will be said of it.

    Attributes:
        images: shard -> image ids.
        reason, author, time: see RemovedImage.
        successors: shard -> the new shard, where its images object is in the store already.
    """

    images: Mapping[str, Collection[str]]
    reason: str
    author: str
    time: str
    successors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise InputError("a takedown needs a reason, which history will show; give --reason")
        if not any(self.images.values()):
            raise InputError("nothing to take down: no image was named")


@dataclass(frozen=True, slots=True, kw_only=True)
class Takedown:
    """What was done.

    Attributes:
        commit_id: what was committed.
        images: those that were taken down.
        num_boxes: that went with them.
        still_in: other branches and tags whose commits show the images yet.
        trained_on: students whose dataset had one of them.
    """

    commit_id: str
    images: tuple[RemovedImage, ...]
    num_boxes: int
    still_in: tuple[str, ...]
    trained_on: tuple[str, ...] = ()


def take_down(
    store: Store,
    branch: str,
    images: Mapping[str, Collection[str]],
    *,
    reason: str,
    author: str = "",
    message: str = "",
) -> Takedown:
    """Commits the branch without these images.

    Args:
        store: the store.
        branch: the branch to commit to; others keep the images until it is done there, or merged.
        images: shard -> image ids, as from `find_images`.
        reason: why, for everybody who meets the gap later.
        author: who wants it; empty: whoever runs this.
        message: the commit's; empty: one is made.

    Raises:
        InputError: no images, or no reason.
        CommitConflictError: the branch moved meanwhile, and touched the same shards.
    """
    writer = Writer(store, branch)
    plan = TakedownPlan(images=images, reason=reason, author=author or default_author(), time=now())
    draft, rows = draft_takedown(writer.dataset, plan)
    before = _boxes(writer.dataset.manifest)
    still_in = list(_still_in(writer.dataset, branch, images))
    return Takedown(
        commit_id=writer.publish(replace(draft, message=message or draft.message)),
        images=rows,
        num_boxes=before - _boxes(draft.manifest),
        still_in=tuple(f"{kind} {name}" for kind, name in still_in if not is_model(name)),
        trained_on=tuple(name for _, name in still_in if is_model(name)),
    )


def draft_takedown(dataset: Dataset, plan: TakedownPlan) -> tuple[Draft, tuple[RemovedImage, ...]]:
    """The commit without these images, and its new rows of the removed table.

    Raises: as `take_down`, but for conflicts.
    """
    store, manifest, counter = dataset.store, dataset.manifest, _inputs(dataset)
    rows: list[RemovedImage] = []
    for shard, image_ids in plan.images.items():
        old = shard_layers(manifest, shard)
        new = without_images(store, old, image_ids, successor=plan.successors.get(shard))
        successor = new[schemas.IMAGES].object_id if new else None
        rows += _rows(dataset, shard, successor, plan)
        _count(counter, old, new)
        manifest = replaced_shard(manifest, shard, new.values())
    draft = Draft.on(
        dataset,
        manifest,
        operation=operation("rm", version=VERSION, config=_config(rows, plan)),
        ledger=_ledger(counter, manifest),
        message=f"take down {len(rows):,} image{'s' if len(rows) > 1 else ''}: {plan.reason}",
        removals=Removals.load(store, dataset.commit).with_rows(rows),
    )
    return draft, tuple(rows)


def _rows(
    dataset: Dataset, shard: str, successor: str | None, plan: TakedownPlan
) -> list[RemovedImage]:
    columns = ["image_id", "file_name", "source"]
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=columns).select(columns)
    said = {"reason": plan.reason, "author": plan.author, "time": plan.time}
    wanted = set(plan.images[shard])
    return [
        RemovedImage(**row, shard=shard, successor=successor, **said)
        for row in index.to_pylist()
        if row["image_id"] in wanted
    ]


def _config(rows: Sequence[RemovedImage], plan: TakedownPlan) -> dict[str, object]:
    ids = sorted(row.image_id for row in rows)
    return {"image_ids": ids, "reason": plan.reason, "author": plan.author, "time": plan.time}


def _still_in(
    dataset: Dataset, branch: str, images: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str]]:
    """Other branches and tags whose commit has one of the images, in these shards or in others."""
    refs = Refs(dataset.store)
    named = [("branch", name, id_) for name, id_ in refs.branches().items() if name != branch]
    named += [("tag", name, commit_id) for name, commit_id in refs.tags().items()]
    holders = dict.fromkeys(images, True) | {
        shard: False for shard in dataset.manifest.shards() if shard not in images
    }
    wanted = {image_id for ids in images.values() for image_id in ids}
    for kind, name, commit_id in named:
        other = Dataset(dataset.store, commit_id)
        for shard in other.manifest.shards():
            if shard not in holders:
                ids = other.table(shard, schemas.IMAGE_INDEX, columns=["image_id"])["image_id"]
                holders[shard] = not wanted.isdisjoint(ids.to_pylist())
        if any(holders[shard] for shard in other.manifest.shards()):
            yield kind, name


def _inputs(dataset: Dataset) -> LedgerCounter:
    counter = LedgerCounter()
    for cell in dataset.manifest.of_layer(schemas.IMAGES):
        counter.add_inputs(schemas.IMAGES, count=cell.num_rows)
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_inputs(schemas.BOXES, category, count)
    return counter


def _count(counter: LedgerCounter, old: Mapping[str, Cell], new: Mapping[str, Cell]) -> None:
    """What a shard lost."""
    before, after = old[schemas.IMAGES].num_rows, new[schemas.IMAGES].num_rows if new else 0
    counter.add_dropped(schemas.IMAGES, reason=TAKEN_DOWN, count=before - after)
    if schemas.BOXES not in old:
        return
    left = rows_by_category(new[schemas.BOXES]) if new else {}
    for category, count in rows_by_category(old[schemas.BOXES]).items():
        lost = count - left.get(category, 0)
        counter.add_dropped(schemas.BOXES, category, reason=TAKEN_DOWN, count=lost)


def _ledger(counter: LedgerCounter, after: Manifest) -> Ledger:
    for cell in after.of_layer(schemas.IMAGES):
        counter.add_kept(schemas.IMAGES, count=cell.num_rows)
    for cell in after.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_kept(schemas.BOXES, category, count)
    return counter.ledger()


def _boxes(manifest: Manifest) -> int:
    return sum(cell.num_rows for cell in manifest.of_layer(schemas.BOXES))
