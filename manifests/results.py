"""Work keys and result records: done work is found by what it is, not by who did it or when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manifests import layout
from manifests.digest import canonical_json, digest_of
from manifests.errors import ObjectMissingError, RefError
from manifests.ledger import LedgerRow
from manifests.manifest import Cell
from manifests.store import NameTakenError, Store, explained


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """ "This work is done, and here is what came of it."

    Attributes:
        cells: what the work made, already in the store.
        ledger: outcomes of the rows it saw, and nothing about its inputs.
        rejects: object id of a table of rows it did not keep, or None.
        machine: what of the machine that did it can show in the last digits; empty if nothing can.
    """

    cells: tuple[Cell, ...]
    ledger: tuple[LedgerRow, ...] = ()
    rejects: str | None = None
    machine: Mapping[str, str | int] = field(default_factory=dict)


def work_key(
    *,
    operation: str,
    version: int,
    inputs: Sequence[str],
    config: Mapping[str, Any],  # Any: JSON
) -> str:
    """SHA-256 of everything that decides an outcome (design, section 2).

    Args:
        operation: `ingest`, `label` ...
        version: that operation's own number, raised when its output changes.
        inputs: digests of what it reads, in a fixed order.
        config: settings that shape the output, weights digest included; JSON values.
    """
    return digest_of(
        {"operation": operation, "version": version, "inputs": list(inputs), "config": config}
    )


def find_result(store: Store, key: str) -> ResultRecord | None:
    """The record of finished work, if there is one and all that it names is still there."""
    data = store.read_optional(layout.result_path(key, store.scratch))
    if data is None:
        return None
    try:
        record = msgspec.json.decode(data, type=ResultRecord)
    except msgspec.MsgspecError:
        return None  # written by another version or damaged: the work is simply done again
    try:
        return record if _is_complete(store, record) else None
    except RefError:  # an object id that cannot be one
        return None


def publish_result(store: Store, key: str, record: ResultRecord) -> ResultRecord:
    """Marks work as done, after its objects are stored, and returns the record that counts.

    If another worker finished the same work first, its record wins: a result is never replaced
    while its objects exist, so two commits that hold this work hold the same masks.
    """
    data = canonical_json(record)
    try:
        store.create_if_absent(layout.result_path(key, store.scratch), data)
    except NameTakenError:
        if winner := find_result(store, key):
            return winner
        store.overwrite(layout.result_path(key, store.scratch), data)
    return record


def drop_scratch(store: Store) -> None:
    """Removes the records that a store opened with `scratch` keeps apart, and nothing else.

    The objects they name stay: those that no commit holds are `gc`'s business.

    Raises:
        RefError: the store was opened without `scratch`.
        StoreError: it cannot be reached.
    """
    folder = layout.scratch_folder(store.scratch)
    try:
        with explained(store.url, store.protocol):
            store.fs.rm(f"{store.root}/{folder}", recursive=True)
    except ObjectMissingError:
        return  # no work was finished


def _is_complete(store: Store, record: ResultRecord) -> bool:
    cells_there = all(store.object_size(cell.object_id) == cell.num_bytes for cell in record.cells)
    return cells_there and (record.rejects is None or store.object_size(record.rejects) is not None)
