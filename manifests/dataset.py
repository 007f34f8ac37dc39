"""A commit opened for reading: shards, layers and cells by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata
from typing import Any

import pyarrow as pa

from manifests.cells import read_cell
from manifests.commit import Commit, ExternalInput, Operation, default_author, now
from manifests.consequences import cell_lost, manifest_lost, telling
from manifests.digest import canonical_json, sha256_hex
from manifests.errors import RefError
from manifests.image_tar import stream_rows
from manifests.manifest import Cell, Manifest
from manifests.refs import Refs
from manifests.schemas import IMAGES
from manifests.store import Store
from manifests.taken_down import why_gone

DEFAULT_BRANCH = "main"
_PACKAGES = ("maskmill", "numpy", "pyarrow", "pycocotools")


class Dataset:
    """One commit of a store, and everything that can be read from it."""

    def __init__(self, store: Store, commit_id: str) -> None:
        """Raises ObjectMissingError or ObjectDamagedError if the commit cannot be read."""
        self.store = store
        self.commit_id = commit_id
        self.commit = Commit.load(store, commit_id)
        with telling(manifest_lost(self.commit.manifest), who=f"commit {commit_id[:12]}"):
            self.manifest = Manifest.load(store, self.commit.manifest)

    @staticmethod
    def open(store: Store, ref: str = DEFAULT_BRANCH) -> Dataset:
        """Resolves a branch, tag, or commit id once.

        Raises:
            StoreError: there is no store.
            RefError: there is no such ref; the message names the nearest.
        """
        store.check_is_store()
        return Dataset(store, Refs(store).resolve(ref))

    def table(self, shard: str, layer: str, *, columns: list[str] | None = None) -> pa.Table:
        """A cell's rows.

        Raises:
            RefError: the shard has no such layer.
            ObjectMissingError, ObjectDamagedError: the cell is not there, is not whole, or does not
                have the rows its manifest says; the message names it, what cannot be done without
                it, and what brings it back.
        """
        who = f"commit {self.commit_id[:12]}"
        return read_cell(self.store, self.cell(shard, layer), columns=columns, who=who)

    def images(self, shard: str, index: pa.Table) -> Iterator[bytes]:
        """The stored bytes of some rows of the shard's image_index, in one pass over its tar.

        Args:
            index: those rows, with the columns `image_tar.STREAM_COLUMNS`.

        Raises:
            ObjectMissingError, ObjectDamagedError: as `table`; images that were taken down are
                explained. Some damage is found only after the last image.
        """
        object_id = self.cell(shard, IMAGES).object_id
        lost = cell_lost(shard=shard, layer=IMAGES, object_id=object_id)
        why = partial(why_gone, self.store, shard)
        with telling(lost, who=f"commit {self.commit_id[:12]}", why_gone=why):
            yield from stream_rows(self.store, object_id, index)

    def cell(self, shard: str, layer: str) -> Cell:
        """The manifest's entry. Raises RefError if the shard has no such layer."""
        found = self.manifest.get(shard, layer)
        if found is None:
            have = ", ".join(self.manifest.layers()) or "none"
            raise RefError(
                f"commit {self.commit_id[:12]} has no layer '{layer}' for shard {shard[:12]}; "
                f"layers here: {have}"
            )
        return found


def init(store: Store) -> str:
    """Makes a store with an empty first commit on branch `main`; returns that commit's id.

    Raises:
        StoreError: one is there already, or the object store ignores conditional writes.
    """
    refs = Refs(store)
    # A store without branches: an `init` was killed before its first commit, and is finished now.
    if not (store.is_there() and not refs.branches()):
        store.create()
    commit = Commit(
        parents=(),
        manifest=Manifest().save(store),
        author=default_author(),
        message="empty store",
        time=now(),
        operation=operation("init", version=1, config={}),
    )
    commit_id = commit.save(store)
    refs.advance(DEFAULT_BRANCH, expected=None, commit=commit_id, reason="init")
    return commit_id


def operation(
    name: str,
    *,
    version: int,
    config: Mapping[str, Any],  # Any: JSON
    teacher: Mapping[str, Any] | None = None,  # Any: JSON
    packages: tuple[str, ...] = (),
    inputs: Mapping[str, ExternalInput] | None = None,
    machines: tuple[Mapping[str, str | int], ...] = (),
) -> Operation:
    """An operation with its configuration digest and the versions of the code behind it."""
    return Operation(
        name=name,
        version=version,
        config=config,
        config_digest=sha256_hex(canonical_json(config)),
        teacher=teacher,
        code={package: metadata.version(package) for package in (*_PACKAGES, *packages)},
        inputs=inputs or {},
        machines=machines,
    )
