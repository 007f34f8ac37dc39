"""Takedowns that one side of a merge knows, done to the other: no merge brings an image back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from manifests import schemas
from manifests.cells import read_cell
from manifests.manifest import Cell, Manifest
from manifests.removed import Removals, RemovedImage
from manifests.shard_edit import without_images
from manifests.store import Store
from manifests.three_way import shard_layers


def replaced_shard(manifest: Manifest, shard: str, cells: Collection[Cell]) -> Manifest:
    """The manifest with another shard (or none) in a shard's place in the order."""
    made: list[Cell] = []
    for name in manifest.shards():
        made += cells if name == shard else manifest.of_shard(name)
    return Manifest(made)


@dataclass(slots=True)
class _Family:
    """A shard, what became of it in takedowns, and the images that went."""

    shards: set[str] = field(default_factory=set)
    image_ids: set[str] = field(default_factory=set)


def replay(
    store: Store,
    manifests: Sequence[Manifest],
    removals: Removals,
    *,
    reverted: Removals = Removals(),
) -> tuple[list[Manifest], Removals]:
    """Manifests without the images that any of them knows to be taken down.

    So a branch that still has a shard with such an image can be merged: its cells become those of
    the shard's successor. The first manifest that has a shard of the family decides on the images
    object; the others need not have theirs any more. A shard of another origin that has such an
    image, since somebody ingested it elsewhere, loses it as well.

    Args:
        store: where cells are read and written.
        manifests: two sides and their base, to be changed alike; what only the base has does not
            matter and stays.
        removals: what is to be gone.
        reverted: takedowns that do not count, but tell which shards came from which.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    made = list(manifests)
    sides = {shard for manifest in made[:-1] for shard in manifest.shards()}
    elsewhere = holders(store, manifests, removals.image_ids)
    for family in _families(removals, reverted, elsewhere):
        if not family.image_ids or sides.isdisjoint(family.shards):
            continue
        successor: str | None = None
        for number, manifest in enumerate(made):
            for shard in [name for name in manifest.shards() if name in family.shards]:
                old = shard_layers(manifest, shard)
                new = without_images(store, old, family.image_ids, successor=successor)
                heir = new[schemas.IMAGES].object_id if new else None
                if new != old:
                    made[number] = replaced_shard(made[number], shard, new.values())
                    removals = removals.with_rows(_inherited(removals, family, shard, heir))
                # After a revert the others may well hold an image that the first does not.
                successor = heir if not reverted else None
    return made, removals


def holders(
    store: Store, manifests: Sequence[Manifest], image_ids: Collection[str]
) -> dict[str, set[str]]:
    """Shard -> which of these images it has, of the sides' shards that not all manifests have.

    Raises:
        ObjectMissingError, ObjectDamagedError: an image_index cannot be read.
    """
    count = Counter(shard for manifest in manifests for shard in manifest.shards())
    found: dict[str, set[str]] = {}
    sides = manifests[:-1]
    for cell in (cell for side in sides for cell in side.of_layer(schemas.IMAGE_INDEX)):
        if image_ids and cell.shard not in found and count[cell.shard] < len(manifests):
            ids = read_cell(store, cell, columns=["image_id"])["image_id"].to_pylist()
            found[cell.shard] = set(ids) & set(image_ids)
    return {shard: ids for shard, ids in found.items() if ids}


def _families(
    removals: Removals, reverted: Removals, elsewhere: Mapping[str, Collection[str]]
) -> list[_Family]:
    """Shards that came from each other by takedowns, with the images that are to be gone."""
    families: dict[str, _Family] = {}
    for row in (*removals.rows, *reverted.rows):
        merged = _Family(shards={row.shard, *([row.successor] if row.successor else [])})
        for name in list(merged.shards):
            if known := families.get(name):
                merged.shards |= known.shards
                merged.image_ids |= known.image_ids
        if row in removals.rows:
            merged.image_ids.add(row.image_id)
        families.update(dict.fromkeys(merged.shards, merged))
    for shard, image_ids in elsewhere.items():
        families.setdefault(shard, _Family(shards={shard})).image_ids.update(image_ids)
    return list({id(family): family for family in families.values()}.values())


def _inherited(
    removals: Removals, family: _Family, shard: str, successor: str | None
) -> Iterator[RemovedImage]:
    """Rows that say of a shard that its `images` object is to go, too."""
    known = {row.image_id for row in removals.of_shard(shard)}
    own_first = sorted(removals.rows, key=lambda row: row.shard not in family.shards)
    for row in own_first:
        if row.image_id in family.image_ids - known:
            known.add(row.image_id)
            yield RemovedImage(
                image_id=row.image_id, file_name=row.file_name, source=row.source, shard=shard,
                successor=successor, reason=row.reason, author=row.author, time=row.time,
            )  # fmt: skip
