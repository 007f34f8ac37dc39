"""Which objects another store needs for some commits, in the order in which they may be sent.

Cells and what hangs on commits first, then manifests, then commits, parents before children: a
transfer that is killed leaves orphans, and a commit that is there has all that it names.

A cell's `inputs` are not sent. They say what it was computed from; what still exists of them is in
the manifest by itself. Result records are not sent either: they are a cache of work done here, and
`label` makes them again from the commits (see engine.finished).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from manifests.commit import Commit
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.in_parallel import in_parallel
from manifests.negotiate import CommitLinks, NewCommits
from manifests.parquet import parquet_to_table
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.schemas import IMAGES
from manifests.store import Store

_COLUMNS = ["shard", "layer", "object", "bytes"]
_NUM_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedObject:
    """An object to send.

    Attributes:
        num_bytes: its size; None: nobody but the store it is in knows.
        commit_id: the oldest commit to be sent that needs it.
        layer, shard: of a cell; "" for all else.
        role: `cell`, `manifest`, `commit`, or what `Commit.hanging` calls it.
    """

    object_id: str
    num_bytes: int | None
    commit_id: str
    role: str
    layer: str = ""
    shard: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        what = f"{self.layer} of shard {self.shard[:12]}" if self.shard else f"the {self.role}"
        commit = f"commit {self.commit_id[:12]}"
        return commit if self.role == "commit" else f"{what} in {commit}"


@dataclass(slots=True, kw_only=True)
class TransferPlan:
    """What to send: `contents`, then `manifests`, then `commits`, one after the other.

    Attributes:
        num_withheld: images objects that were taken down and do not travel.
    """

    contents: dict[str, PlannedObject] = field(default_factory=dict)
    manifests: dict[str, PlannedObject] = field(default_factory=dict)
    commits: dict[str, PlannedObject] = field(default_factory=dict)
    num_withheld: int = 0


def plan_transfer(
    stores: Sequence[Store], source: Store, found: NewCommits, *, shown: Collection[str]
) -> TransferPlan:
    """The union of what the new commits name, without what their common parents name.

    Args:
        stores: where manifests are read from, the nearest first.
        source: where the objects come from.
        found: the commits to send.
        shown: ids of the commits that branches will be at: they keep images that were taken down
            elsewhere, as they do when `gc` runs.

    Raises:
        ObjectMissingError, ObjectDamagedError: a manifest cannot be read.
    """
    plan = TransferPlan()
    common = _common_objects(stores, found.common)
    for manifest in _read_manifests(source, found.commits):
        commit_id = manifest.links.commit_id
        for shard, layer, object_id, num_bytes in manifest.cells():
            if object_id in plan.contents or object_id in common:
                continue
            plan.contents[object_id] = PlannedObject(
                object_id=object_id, num_bytes=num_bytes, commit_id=commit_id, role="cell",
                layer=layer, shard=shard,
            )  # fmt: skip
        plan.manifests[manifest.links.manifest] = PlannedObject(
            object_id=manifest.links.manifest, num_bytes=manifest.num_bytes, role="manifest",
            commit_id=commit_id,
        )  # fmt: skip
    for links in found.commits:
        for extra, role in links.hanging.items():
            plan.contents.setdefault(extra, _object(links, extra, role))
        plan.commits[links.commit_id] = _object(links, links.commit_id, "commit")
    _withhold(plan, source, shown)
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    """A manifest's size and columns, and the oldest of the commits that have it."""

    links: CommitLinks
    num_bytes: int
    table: pa.Table

    def cells(self) -> Iterator[tuple[str, str, str, int]]:
        """(shard, layer, object, bytes) of each cell."""
        columns = [self.table[name].to_pylist() for name in _COLUMNS]
        return zip(*columns, strict=True)


def _object(links: CommitLinks, object_id: str, role: str) -> PlannedObject:
    return PlannedObject(object_id=object_id, num_bytes=None, commit_id=links.commit_id, role=role)


def _common_objects(stores: Sequence[Store], commits: Sequence[CommitLinks]) -> set[str]:
    """Objects the other side has for sure; where a manifest is gone, they are simply asked for."""
    known: set[str] = set()
    for object_id in {links.manifest for links in commits}:
        for store in stores:
            try:
                table = _manifest_columns(store.get_bytes(object_id), object_id)
            except (ObjectMissingError, ObjectDamagedError):
                continue
            known.update(table["object"].to_pylist())
            break
    return known


def _withhold(plan: TransferPlan, source: Store, shown: Collection[str]) -> None:
    """Takes images out that any ref of the source knows to be taken down, and no branch shows.

    They do not travel even while the source has them: `gc` has just not been there yet.
    """
    images = {one.object_id for one in plan.contents.values() if one.layer == IMAGES}
    if not images:
        return
    refs = Refs(source)
    heads = sorted({*refs.branches().values(), *refs.tags().values()})
    taken_down = set()
    for removals in in_parallel(partial(_removals, source), heads, num_threads=_NUM_READERS):
        taken_down.update(images.intersection(removals.shards))
    for head in shown if taken_down else ():
        manifest = Commit.load(source, head).manifest
        table = _manifest_columns(source.get_bytes(manifest), manifest)
        taken_down.difference_update(table["object"].to_pylist())
    for object_id in taken_down:
        del plan.contents[object_id]
    plan.num_withheld = len(taken_down)


def _removals(store: Store, commit_id: str) -> Removals:
    return Removals.load(store, Commit.load(store, commit_id))


def _read_manifests(source: Store, commits: Sequence[CommitLinks]) -> Iterator[_Manifest]:
    """Each manifest once, in the order of the commits."""
    first: dict[str, CommitLinks] = {}
    for links in commits:
        first.setdefault(links.manifest, links)

    def read(links: CommitLinks) -> _Manifest:
        data = source.get_bytes(links.manifest)
        table = _manifest_columns(data, links.manifest)
        return _Manifest(links=links, num_bytes=len(data), table=table)

    return in_parallel(read, first.values(), num_threads=_NUM_READERS)


def _manifest_columns(data: bytes, object_id: str) -> pa.Table:
    try:
        return parquet_to_table(data, columns=_COLUMNS)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ObjectDamagedError(f"object {object_id[:12]} is not a manifest") from error
