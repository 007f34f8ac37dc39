"""What a store's refs reach: commits, their manifests, and every object that these name."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow.compute as pc

from manifests import schemas
from manifests.cells import read_table
from manifests.commit import Commit
from manifests.errors import ObjectDamagedError
from manifests.models import is_model
from manifests.refs import RefEntry, Refs
from manifests.removed import Removals
from manifests.store import Store

_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Commits that are kept with all their history.

    `heads` show their images; of what only `others` reach, images that were taken down may go.
    Taken down is what `heads` or `tags`, which are among the others, say themselves: a takedown
    of their history that they do not know any more was reverted.
    """

    heads: frozenset[str]
    others: frozenset[str]
    tags: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.heads | self.others


def find_roots(store: Store, *, now: float, keep_log_s: float) -> Roots:
    """Heads of branches; as others tags, students, and where a branch was within `keep_log_s`.

    `now` is in seconds since 1970. An entry whose time cannot be told is kept.

    Raises:
        ObjectDamagedError: an entry of a log cannot be read, so nobody knows what it keeps.
    """
    refs = Refs(store)
    heads: set[str] = set()
    tags = frozenset(refs.tags().values())
    others = set(tags)
    for name, log in refs.logs().items():
        (others if is_model(name) else heads).add(log[-1].commit)
        for entry, after in itertools.pairwise(log):
            if now - _seconds(after, otherwise=now) < keep_log_s:
                others.add(entry.commit)
    return Roots(heads=frozenset(heads - {""}), others=frozenset(others - {""}), tags=tags)


@dataclass(slots=True)
class Reachable:
    """Grows with every `add`; holds ids as 32 bytes, so that millions fit."""

    store: Store
    commits: set[str] = field(default_factory=set)
    objects: set[bytes] = field(default_factory=set)
    taken_down: set[bytes] = field(default_factory=set)
    shown: set[bytes] = field(default_factory=set)
    _manifests: set[str] = field(default_factory=set)

    def add(self, roots: Roots) -> None:
        """Everything that these commits reach and that is not known yet.

        Raises:
            ObjectMissingError, ObjectDamagedError: a commit or manifest of theirs cannot be read,
                so nobody knows what it keeps.
        """
        manifests: set[str] = set()
        front = roots.all - self.commits
        with ThreadPoolExecutor(_THREADS) as threads:
            while front:
                self.commits |= front
                loaded = list(threads.map(lambda id_: Commit.load(self.store, id_), sorted(front)))
                for commit in loaded:
                    manifests |= {commit.manifest}
                    self._name(commit.manifest, *commit.hanging)
                parents = {parent for commit in loaded for parent in commit.parents}
                front = frozenset(parents - self.commits)
            self._name(*self.commits)
            new = sorted(manifests - self._manifests)
            self._manifests |= manifests
            for objects, _ in threads.map(self._cells, new):
                self.objects |= objects
            for commit_id in roots.heads | roots.tags:
                self._note_takedowns(Commit.load(self.store, commit_id))
            heads = {Commit.load(self.store, id_).manifest for id_ in roots.heads}
            for _, images in threads.map(self._cells, sorted(heads)):
                self.shown |= images

    def __contains__(self, object_id: str) -> bool:
        """Whether an object must stay."""
        raw = bytes.fromhex(object_id)
        return raw in self.objects and (raw not in self.taken_down or raw in self.shown)

    def is_taken_down(self, object_id: str) -> bool:
        """Whether it is a shard's images, some of which were taken down, and no head shows it."""
        raw = bytes.fromhex(object_id)
        return raw in self.taken_down and raw not in self.shown

    def _name(self, *object_ids: str | None) -> None:
        self.objects.update(bytes.fromhex(object_id) for object_id in object_ids if object_id)

    def _note_takedowns(self, commit: Commit) -> None:
        if commit.removed is not None:
            shards = Removals.load(self.store, commit).shards
            self.taken_down.update(bytes.fromhex(shard) for shard in shards)

    def _cells(self, manifest: str) -> tuple[set[bytes], set[bytes]]:
        """Objects that a manifest names, and those of them that are images."""
        table = read_table(self.store, manifest, columns=["layer", "object"])
        try:
            ids = [bytes.fromhex(object_id) for object_id in table["object"].to_pylist()]
        except ValueError as error:
            raise ObjectDamagedError(f"object {manifest[:12]} is not a manifest") from error
        is_images = pc.equal(table["layer"], schemas.IMAGES).to_pylist()
        return set(ids), {id_ for id_, yes in zip(ids, is_images, strict=True) if yes}


def _seconds(entry: RefEntry, *, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(entry.time).timestamp()
    except ValueError:
        return otherwise
