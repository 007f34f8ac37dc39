"""A commit: small canonical JSON that names a manifest, says how it came about, and balances."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from manifests.consequences import commit_lost, telling
from manifests.digest import canonical_json
from manifests.errors import ObjectDamagedError, StoreError
from manifests.ledger import Ledger
from manifests.store import Store

FORMAT = 1
_LATER_FIELDS = ("removed", "changes", "base", "attached", "quality")
_LATER_FIELDS_OF_OPERATION = ("inputs", "machines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A category of the dataset, known by its name.

    Attributes:
        name: unique in the dataset; what the `boxes` layer holds.
        supercategory: as the first source that has one says.
        source_ids: source name -> that source's own id, so that an export can give ids back.
    """

    name: str
    supercategory: str | None = None
    source_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalInput:
    """A file, or the files of a folder, that an operation read from outside the store.

    Attributes:
        url: where it was, absolute.
        sha256: of a file: its own. Of a folder: that of the lines which `sha256sum` prints for its
            files, in the order of their names. Of names alone: that of their lines.
        num_files, num_bytes: how much that was.
    """

    url: str
    sha256: str
    num_files: int = 1
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What made a commit, with all that is needed to make it again.

    Attributes:
        name: `init`, `ingest`, `label`, `filter` ...
        version: the operation's own output version.
        config: its whole configuration, as JSON values; `config_digest` is its SHA-256.
        teacher: the teacher's identity (name, version, weights_sha256, config), if one took part.
        code: versions of maskmill and of the packages that shape its output.
        inputs: what it read from outside the store, by role: "annotations", "image_names" ...
        machines: the kinds of machine that did the work (device, threads ...), where that can show
            in the last digits of the outcome.
    """

    name: str
    version: int
    config: Mapping[str, Any]  # Any: JSON
    config_digest: str
    teacher: Mapping[str, Any] | None = None  # Any: JSON
    code: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, ExternalInput] = field(default_factory=dict)
    machines: tuple[Mapping[str, str | int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChanges:
    """How many cells of one layer a commit added, replaced and removed against its first parent."""

    added: int = 0
    replaced: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One step of a dataset's history; its id is the SHA-256 of its canonical JSON.

    Attributes:
        rejects: names a Parquet object with one row for every image and box that the operation did
            not keep, or None if there was none.
        removed: names a Parquet object with REMOVED_SCHEMA: every image that was taken down in this
            commit or before it; None if there is none. See manifests.removed.
        changes: layer -> cells changed against the first parent, so that a log needs no manifest;
            None in commits of older versions.
        base: the commit that the operation worked on, if its branch had moved on by the end and the
            outcome was merged with the first parent; None: the first parent itself.
        attached: objects of the operation's outcome that are no cells, by name: `calibrator`,
            `gold`, or a student's `weights` and `state`; kept, sent and checked like cells.
        quality: of a `filter` with calibrated confidence: kept share, expected mean IoU, thresholds
            and certificate; see engine.confidence.quality.
    """

    parents: tuple[str, ...]
    manifest: str
    author: str
    message: str
    time: str
    operation: Operation
    categories: tuple[Category, ...] = ()
    ledger: Ledger = Ledger()
    rejects: str | None = None
    removed: str | None = None
    changes: Mapping[str, CellChanges] | None = None
    base: str | None = None
    attached: Mapping[str, str] | None = None
    quality: Mapping[str, Any] | None = None  # Any: JSON
    format: int = FORMAT

    @property
    def hanging(self) -> Mapping[str, str]:
        """Object id -> its role, for the objects that the commit itself names, but its manifest."""
        named = {"rejects": self.rejects, "removed": self.removed, **(self.attached or {})}
        return {object_id: role for role, object_id in named.items() if object_id}

    def to_bytes(self) -> bytes:
        """Canonical JSON.

        Raises:
            LedgerImbalanceError: the ledger does not balance.
        """
        self.ledger.check()
        values = msgspec.to_builtins(self)
        for name in _LATER_FIELDS:  # a commit without them has the bytes it always had
            if values[name] is None:
                del values[name]
        for name in _LATER_FIELDS_OF_OPERATION:
            if not values["operation"][name]:
                del values["operation"][name]
        return canonical_json(values)

    def save(self, store: Store) -> str:
        """Stores the commit and returns its id.

        Raises:
            LedgerImbalanceError: the ledger does not balance; nothing is stored.
        """
        return store.put_bytes(self.to_bytes()).object_id

    @staticmethod
    def load(store: Store, commit_id: str) -> Commit:
        """Reads a commit.

        Raises:
            ObjectMissingError, ObjectDamagedError: the object is not there or not a commit.
            StoreError: a newer maskmill wrote it.
        """
        with telling(commit_lost(commit_id), who="it"):
            data = store.get_bytes(commit_id)
        try:
            commit = msgspec.json.decode(data, type=Commit)
        except msgspec.MsgspecError as error:
            raise ObjectDamagedError(f"object {commit_id[:12]} is not a commit: {error}") from error
        if commit.format != FORMAT:
            raise StoreError(
                f"commit {commit_id[:12]} has format {commit.format}, expected {FORMAT}; use the "
                "maskmill version that wrote it"
            )
        return commit


def now() -> str:
    """The current time as commits write it: RFC 3339, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def default_author() -> str:
    """`$MASKMILL_AUTHOR`, or the login name; never fails."""
    try:
        return os.environ.get("MASKMILL_AUTHOR") or getpass.getuser()
    except (KeyError, OSError):  # a container user without a passwd entry
        return f"uid {os.getuid()}"
