"""Every path inside a store, decided here and nowhere else.

<store>/maskmill.json                       format marker, written by `init`
<store>/objects/<2 hex>/<sha256>            immutable, content-addressed
<store>/refs/heads/<branch>/<00000042>      append-only numbered log; the highest number is the head
<store>/refs/heads/<branch>/.newest         a hint: a number that its log had reached, once
<store>/refs/tags/<tag>/<00000001>
<store>/results/<2 hex>/<work key>          "this work is done, and here is its object"
<store>/scratch/<name>/<2 hex>/<work key>   the same for one command alone, which removes them
<store>/gc/sweep                            a `gc` is deleting: writers wait; see manifests.pins
<store>/gc/pins/<nonce>                     "this commit is about to be published": `gc` keeps it
<store>/clone/source                        what this store is a clone of, written before all else
<store>/clone/finished                      the clone is complete
<store>/quarantine/<sha256>                 damaged objects that `fsck` moved aside, and why
<store>/probe/<nonce>                       left by `init` while it tests conditional writes
"""

from __future__ import annotations

import re

from manifests.errors import RefError

MARKER = "maskmill.json"
HEADS = "refs/heads"
TAGS = "refs/tags"
PROBES = "probe"
SWEEP = "gc/sweep"
PINS = "gc/pins"
CLONE = "clone/source"
CLONE_FINISHED = "clone/finished"
QUARANTINE = "quarantine"
SCRATCH = "scratch"
REF_DIGITS = 8

_REF_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEX64 = re.compile(r"[0-9a-f]{64}")


def is_object_id(text: str) -> bool:
    """Whether it is 64 hex digits."""
    return _HEX64.fullmatch(text) is not None


def object_path(object_id: str) -> str:
    """Path of an object; the id must be 64 hex digits, so no id can leave the folder."""
    if not is_object_id(object_id):
        raise RefError(f"object id: expected 64 hex digits, got {object_id!r}")
    return f"objects/{object_id[:2]}/{object_id}"


def result_path(work_key: str, scratch: str = "") -> str:
    """Path of a result record; two hex digits of fan-out keep folders and prefixes small.

    `scratch` names the records of one command, which nobody else finds; empty: everybody's.
    """
    if not _HEX64.fullmatch(work_key):
        raise RefError(f"work key: expected 64 hex digits, got {work_key!r}")
    folder = scratch_folder(scratch) if scratch else "results"
    return f"{folder}/{work_key[:2]}/{work_key}"


def scratch_folder(name: str) -> str:
    """Folder of one command's own result records."""
    return f"{SCRATCH}/{check_ref_name(name)}"


def ref_entry_path(folder: str, name: str, number: int) -> str:
    """Path of one entry of a ref's log; `folder` is HEADS or TAGS."""
    return f"{folder}/{check_ref_name(name)}/{number:0{REF_DIGITS}d}"


def newest_hint_path(folder: str, name: str) -> str:
    """Path of the hint that saves listing a long log; `folder` is HEADS or TAGS."""
    return f"{folder}/{check_ref_name(name)}/.newest"


def check_ref_name(name: str) -> str:
    """The name, if it can be one.

    Raises:
        RefError: empty parts, odd characters, a part that looks like an entry number, or `..`.
    """
    parts = name.split("/")
    fine = all(
        _REF_PART.fullmatch(part) and ".." not in part and not part.isdigit() for part in parts
    )
    if not fine or len(name) > 200:
        raise RefError(
            f"ref name {name!r} is not possible: use letters, digits, '.', '_', '-' and '/', "
            "each part starting with a letter or digit and not only digits"
        )
    return name
