"""Taking images down: shards written again without them, and the record of what went and why.

The bytes themselves go with the next `gc`: the old shard's `images` object is garbage from then on,
although older commits name it. Whoever merges or ingests later leaves the images out as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from manifests import schemas
from manifests.commit import default_author, now
from manifests.dataset import Dataset, operation
from manifests.errors import InputError
from manifests.ledger import Ledger, LedgerCounter
from manifests.manifest import Cell, Manifest
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.shard_edit import without_images
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.takedown_replay import replaced_shard
from manifests.three_way import shard_layers
from manifests.writer import Writer

VERSION = 1
TAKEN_DOWN = "taken_down"
_FEW = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which images: by id or its beginning (6 hex digits or more), by file name, by source id.

    A file name is what the source called it, or the part after its last `/`.
    """

    image_ids: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()
    source_image_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        short = [text for text in self.image_ids if len(text) < 6]
        if short:
            raise InputError(f"image id '{short[0]}': expected at least 6 hex digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Takedown:
    """What was done. `still_in` are other branches and tags whose commits show the images yet."""

    commit_id: str
    images: tuple[RemovedImage, ...]
    num_boxes: int
    still_in: tuple[str, ...]


def find_images(dataset: Dataset, wanted: Wanted) -> dict[str, list[str]]:
    """Shard -> ids of the images that are meant; reads every shard's index, a few columns of it.

    Raises:
        InputError: a word means no image, or the beginning of an id fits several.
    """
    search = _Search(wanted)
    for cell in dataset.manifest.of_layer(schemas.IMAGE_INDEX):
        columns = ["image_id", "file_name", "source_image_id", "origins"]
        search.look(cell.shard, dataset.table(cell.shard, cell.layer, columns=columns).to_pylist())
    search.check(dataset)
    return search.found


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
    count = sum(len(ids) for ids in images.values())
    if not reason.strip():
        raise InputError("a takedown needs a reason, which history will show; give --reason")
    if not count:
        raise InputError("nothing to take down: no image was named")
    writer = Writer(store, branch)
    dataset = writer.dataset
    manifest, rows, counter = dataset.manifest, [], _inputs(dataset)
    for shard, image_ids in images.items():
        old = shard_layers(manifest, shard)
        new = without_images(store, old, image_ids)
        successor = new[schemas.IMAGES].object_id if new else None
        rows += _rows(dataset, shard, image_ids, successor, reason, author or default_author())
        _count(counter, old, new)
        manifest = replaced_shard(manifest, shard, new.values())
    removals = Removals.load(store, dataset.commit).with_rows(rows)
    commit_id = writer.commit(
        manifest,
        operation=operation("rm", version=VERSION, config=_config(rows, reason)),
        ledger=_ledger(counter, dataset.manifest, manifest),
        message=message or f"take down {count:,} image{'s' if count > 1 else ''}: {reason}",
        removals=removals,
    )
    return Takedown(
        commit_id=commit_id,
        images=tuple(rows),
        num_boxes=_boxes(dataset.manifest) - _boxes(manifest),
        still_in=tuple(_still_in(dataset, branch, images)),
    )


class _Search:
    """Finds what words mean, shard by shard."""

    def __init__(self, wanted: Wanted) -> None:
        self._ids, self._files = wanted.image_ids, set(wanted.file_names)
        self._sources = set(wanted.source_image_ids)
        self._hits: dict[str, set[str]] = {}  # word -> image ids
        self.found: dict[str, list[str]] = {}

    def look(self, shard: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Adds a shard's matches."""
        for row in rows:
            image_id = str(row["image_id"])
            words = [f"id {text}" for text in self._ids if image_id.startswith(text)]
            words += [f"file {name}" for name in self._names(row) & self._files]
            words += [f"source id {name}" for name in self._origin(row) & self._sources]
            for word in words:
                self._hits.setdefault(word, set()).add(image_id)
            if words:
                self.found.setdefault(shard, []).append(image_id)

    def check(self, dataset: Dataset) -> None:
        """Raises InputError where a word means nothing, or an id's beginning too much."""
        words = [f"id {text}" for text in self._ids]
        words += [f"file {name}" for name in sorted(self._files)]
        words += [f"source id {name}" for name in sorted(self._sources)]
        lost = [word for word in words if word not in self._hits]
        if lost:
            more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
            raise InputError(
                f"commit {dataset.commit_id[:12]} has no image with {lost[0]}{more}; look for it "
                "with 'maskmill sql', in the table images"
            )
        for word, ids in self._hits.items():
            if word.startswith("id ") and len(ids) > 1:
                few = ", ".join(sorted(ids)[:_FEW])
                raise InputError(f"image {word} is the beginning of {few}; give more digits")

    @staticmethod
    def _names(row: Mapping[str, object]) -> set[str]:
        origins = row["origins"]
        names = {str(row["file_name"])}
        names |= {str(o["file_name"]) for o in origins} if isinstance(origins, list) else set()
        return names | {name.rsplit("/", 1)[-1] for name in names}

    @staticmethod
    def _origin(row: Mapping[str, object]) -> set[str]:
        origins = row["origins"]
        ids = {str(row["source_image_id"])}
        return ids | ({str(o["source_image_id"]) for o in origins} if origins else set())  # type: ignore[attr-defined]  # a list of structs


def _rows(
    dataset: Dataset,
    shard: str,
    image_ids: Collection[str],
    successor: str | None,
    reason: str,
    author: str,
) -> list[RemovedImage]:
    columns = ["image_id", "file_name", "source"]
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=columns).select(columns)
    time = now()
    return [
        RemovedImage(
            **row, shard=shard, successor=successor, reason=reason, author=author, time=time
        )
        for row in index.to_pylist()
        if row["image_id"] in set(image_ids)
    ]


def _config(rows: Sequence[RemovedImage], reason: str) -> dict[str, object]:
    return {"image_ids": sorted(row.image_id for row in rows), "reason": reason}


def _still_in(dataset: Dataset, branch: str, images: Mapping[str, Collection[str]]) -> list[str]:
    """Other branches and tags whose commit has one of the images, in these shards or in others."""
    refs = Refs(dataset.store)
    named = [(f"branch {name}", id_) for name, id_ in refs.branches().items() if name != branch]
    named += [(f"tag {name}", commit_id) for name, commit_id in refs.tags().items()]
    holders = dict.fromkeys(images, True) | {
        shard: False for shard in dataset.manifest.shards() if shard not in images
    }
    wanted = {image_id for ids in images.values() for image_id in ids}
    found = []
    for name, commit_id in named:
        other = Dataset(dataset.store, commit_id)
        for shard in other.manifest.shards():
            if shard not in holders:
                ids = other.table(shard, schemas.IMAGE_INDEX, columns=["image_id"])["image_id"]
                holders[shard] = not wanted.isdisjoint(ids.to_pylist())
        if any(holders[shard] for shard in other.manifest.shards()):
            found.append(name)
    return found


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


def _ledger(counter: LedgerCounter, before: Manifest, after: Manifest) -> Ledger:
    for cell in after.of_layer(schemas.IMAGES):
        counter.add_kept(schemas.IMAGES, count=cell.num_rows)
    for cell in after.of_layer(schemas.BOXES):
        for category, count in rows_by_category(cell).items():
            counter.add_kept(schemas.BOXES, category, count)
    return counter.ledger()


def _boxes(manifest: Manifest) -> int:
    return sum(cell.num_rows for cell in manifest.of_layer(schemas.BOXES))
