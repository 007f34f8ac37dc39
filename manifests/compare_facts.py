"""How what two commits say beside their cells differs, a sentence a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from manifests import schemas
from manifests.cells import read_table
from manifests.commit import Category
from manifests.ledger import Ledger
from manifests.removed import Removals
from manifests.same_rows import row_difference
from manifests.store import Store


def differing_categories(expected: Sequence[Category], found: Sequence[Category]) -> Iterator[str]:
    """By name; their order counts, too."""
    before = {category.name: category for category in expected}
    after = {category.name: category for category in found}
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield f"category '{name}' is missing"
        elif name not in before:
            yield f"category '{name}' is extra"
        elif asdict(before[name]) != asdict(after[name]):
            yield f"category '{name}': {_facts(before[name])} became {_facts(after[name])}"
    if set(before) == set(after) and list(before) != list(after):
        yield "the categories are in another order"


def _facts(category: Category) -> str:
    return f"{category.supercategory or 'no supercategory'} {dict(category.source_ids)}"


def differing_ledger(expected: Ledger, found: Ledger) -> Iterator[str]:
    """By layer and category."""
    before = {(row.layer, row.category): asdict(row) for row in expected.rows}
    after = {(row.layer, row.category): asdict(row) for row in found.rows}
    for key in sorted({*before, *after}):
        name = f"ledger of {key[0]}, {key[1] or '(none)'}"
        if key not in before or key not in after:
            yield f"{name}: the row is {'extra' if key in after else 'missing'}"
            continue
        old, new = before[key], after[key]
        changed = [f"{what} {old[what]} became {new[what]}" for what in old
                   if old[what] != new[what]]  # fmt: skip
        if changed:
            yield f"{name}: {', '.join(changed)}"


def differing_rejects(store: Store, expected: str | None, found: str | None) -> Iterator[str]:
    """At most one sentence; reads the tables only if their object ids differ.

    Raises:
        ObjectMissingError, ObjectDamagedError: a table cannot be read.
    """
    if expected == found:
        return
    empty = schemas.REJECTS_SCHEMA.empty_table()
    tables = [
        read_table(store, object_id).cast(schemas.REJECTS_SCHEMA) if object_id else empty
        for object_id in (expected, found)
    ]
    if detail := row_difference(*tables):
        yield f"rejects: {detail}"


def differing_removals(expected: Removals, found: Removals) -> Iterator[str]:
    """By image and shard; who took it down and when does not count."""
    before, after = (
        {(row.image_id, row.shard, row.successor, row.reason) for row in removals.rows}
        for removals in (expected, found)
    )
    for what, rows in (("missing", before - after), ("extra", after - before)):
        for image_id, shard, *_ in sorted(rows, key=str):
            yield f"takedown of image {image_id[:12]} from shard {shard[:12]} is {what}"


def differing_attached(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """By role, such as `calibrator`: their bytes are a function of what they were made from."""
    for role in sorted({*expected, *found}):
        before, after = expected.get(role), found.get(role)
        if before != after:
            yield f"{role} {(before or 'none')[:12]} became {(after or 'none')[:12]}"


def differing_quality(
    expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[str]:  # Any: JSON
    """By figure; of categories and certificate at most one sentence each."""
    for name in sorted({*expected, *found}):
        before, after = expected.get(name), found.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names = {key for key in {*before, *after} if before.get(key) != after.get(key)}
            yield f"quality: {name} differs in {', '.join(sorted(names))}"
        elif not isinstance(before, Mapping | list) and not isinstance(after, Mapping | list):
            yield f"quality: {name} {before} became {after}"
        else:
            yield f"quality: {name} differs"
