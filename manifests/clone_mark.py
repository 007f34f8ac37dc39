"""What a store is a clone of, and whether it is finished: `clone` goes on with no other store."""

from __future__ import annotations

import json

from manifests import layout
from manifests.digest import canonical_json, sha256_hex
from manifests.errors import InputError, StoreError
from manifests.store import NameTakenError, Store


def begin_clone(source: Store, target: Store) -> None:
    """Makes the target, or finds that it is an unfinished clone of that source.

    What it is a clone of is written first: without that, nobody could tell a clone that was killed
    from a store that is just empty.

    Raises:
        StoreError: it is something else, or its conditional writes do not exclude.
    """
    if source.url == target.url:
        raise InputError(f"{source.url} is both source and target; name two stores")
    taken = f"a maskmill store is at {target.url} already"
    mark = canonical_json({"source": _identity(source), "url": source.url})
    found = target.read_optional(layout.CLONE)
    if found is None:
        if target.is_there():
            raise StoreError(
                f"{taken}; send to it with 'maskmill push --store {source.url} {target.url} "
                "--all --tags'"
            )
        target.probe_conditional_writes()
        found = _written(target, mark)
    if not _is_clone_of(found, source):
        raise StoreError(f"{taken}, the clone of another store; choose another place")
    if target.read_optional(layout.CLONE_FINISHED) is not None:
        raise StoreError(
            f"{taken}, a finished clone of {source.url}; bring it up to date with 'maskmill pull "
            f"--store {target.url} {source.url} --all --tags'"
        )
    if not target.is_there():
        target.create()


def finish_clone(target: Store) -> None:
    """Says that the clone is complete: from now on it is a store like any other."""
    target.create_if_absent(layout.CLONE_FINISHED, b"")


def _written(target: Store, mark: bytes) -> bytes:
    try:
        target.create_if_absent(layout.CLONE, mark)
    except NameTakenError as error:
        return error.found
    return mark


def _is_clone_of(mark: bytes, source: Store) -> bool:
    try:
        return bool(json.loads(mark)["source"] == _identity(source))
    except (ValueError, KeyError, TypeError):
        return False


def _identity(store: Store) -> str:
    """The same wherever a store was moved to: its marker holds a nonce."""
    return sha256_hex(store.read_optional(layout.MARKER) or b"")
