"""Damaged objects moved aside: copied to `quarantine/`, read back, and only then taken out.

Nothing is deleted: the bytes stay, with a note of what they should have been and who needed them.
But they are out of the way, so that running their step again makes the object anew; left in their
place they would be taken for work that is done.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from manifests import layout
from manifests.commit import now
from manifests.digest import canonical_json
from manifests.errors import ObjectMissingError, StoreError
from manifests.findings import CellName
from manifests.fsck_quick import hash_object
from manifests.store import NameTakenError, Store, StoredObject, explained
from manifests.whole_writes import write_local

_NOTE = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineNote:
    """Why an object was moved; it lies beside the bytes.

    Attributes:
        object_id: what its bytes should hash to.
        why: the sentence of the finding.
        cells, refs, commits: who needed it.
        found: what the bytes hash to; `num_bytes` is how many they are.
        time: when it was moved.
    """

    object_id: str
    why: str
    cells: tuple[CellName, ...] = ()
    refs: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    found: str = ""
    num_bytes: int = 0
    time: str = ""


def move_aside(store: Store, note: QuarantineNote) -> str | None:
    """Moves a damaged object; returns its path in the quarantine, or None if it is sound or gone.

    Args:
        note: `found`, `num_bytes` and `time` are filled in here.

    Raises:
        StoreError: the store does not answer, or the copy came out different; the object is then
            still where it was.
    """
    source = layout.object_path(note.object_id)
    try:
        found = hash_object(store, source)
    except ObjectMissingError:
        return None
    if found.object_id == note.object_id:
        return None  # somebody has made it again meanwhile
    target = _copied(store, source, note.object_id, found)
    whole = replace(note, found=found.object_id, num_bytes=found.num_bytes, time=now())
    with contextlib.suppress(NameTakenError):  # an earlier fsck was killed behind this line
        store.create_if_absent(f"{target}{_NOTE}", canonical_json(asdict(whole)))
    # Read once more: a writer that made the object again meanwhile must not lose it.
    if hash_object(store, source) == found:
        store.remove(source)
    return target


def read_notes(store: Store) -> Iterator[tuple[str, QuarantineNote]]:
    """What is in quarantine: path -> why. A note that is damaged itself is passed over."""
    for name in store.list_names(layout.QUARANTINE):
        if not name.endswith(_NOTE):
            continue
        path = f"{layout.QUARANTINE}/{name}"
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            note = msgspec.json.decode(store.read_optional(path) or b"", type=QuarantineNote)
            yield path.removesuffix(_NOTE), note


def _copied(store: Store, source: str, object_id: str, found: StoredObject) -> str:
    """The path of a copy that has been read back; the same damage is kept once."""
    for number in itertools.count(1):
        name = object_id if number == 1 else f"{object_id}-{number}"
        target = f"{layout.QUARANTINE}/{name}"
        there = _hash_optional(store, target)
        if there is None:
            _copy(store, source, target)
            there = _hash_optional(store, target)
            if there != found:
                raise StoreError(
                    f"{target} in {store.url} came out different from {source}, which is left "
                    "where it is; run 'maskmill fsck' again"
                )
        if there == found:
            return target
    raise StoreError(f"no name is free for {object_id} in {layout.QUARANTINE}")


def _hash_optional(store: Store, key: str) -> StoredObject | None:
    try:
        return hash_object(store, key)
    except ObjectMissingError:
        return None


def _copy(store: Store, source: str, target: str) -> None:
    with explained(store.url, store.protocol):
        if store.protocol == "file":
            write_local(f"{store.root}/{target}", Path(store.root, source), exclusive=True)
        else:
            store.fs.cp_file(f"{store.root}/{source}", f"{store.root}/{target}")
