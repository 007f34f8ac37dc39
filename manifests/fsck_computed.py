"""Full fsck of `agreement` and `confidence`: columns that name outputs, and shares in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.findings import Flaw
from manifests.fsck_masks import MaskFacts, misaligned
from manifests.fsck_tables import Bools, BoxFacts, as_bools, as_ints, check_schema, flaw, rows_where
from manifests.manifest import Cell

Masks = Mapping[str, MaskFacts | None]
"""Masks layers that a shard has; None for one that could not be read, or that came later."""


def check_agreement(cell: Cell, table: pa.Table, boxes: BoxFacts, masks: Masks) -> Iterator[Flaw]:
    """Agreement has the rows of the boxes, and an IoU only for masks that are there."""
    if table.num_rows != len(boxes.image_rows):
        yield misaligned(cell, table.num_rows, len(boxes.image_rows))
        return
    for name in table.column_names:
        pair = schemas.pair_of(name)
        teachers = {schemas.output_of(output)[0] for output in pair}
        if len(teachers) < 2 or not all(teachers) or name != schemas.pair_name(*pair):
            how = f"has a column '{name}', which names no pair of masks of two teachers"
            yield flaw(cell, "schema", how)
        else:
            yield from _check_shares(cell, table, name)
            yield from _check_outputs(cell, table, name, pair, masks)


def check_confidence(cell: Cell, table: pa.Table, boxes: BoxFacts, masks: Masks) -> Iterator[Flaw]:
    """Confidence has the rows of the boxes, and names an output that is there and has it."""
    if table.num_rows != len(boxes.image_rows):
        yield misaligned(cell, table.num_rows, len(boxes.image_rows))
        return
    known = table.select(table.column_names[: len(schemas.CONFIDENCE_SCHEMA)])
    found = list(check_schema(cell, known, schemas.CONFIDENCE_SCHEMA))
    yield from found
    if found:
        return
    outputs = table.column_names[len(schemas.CONFIDENCE_SCHEMA) :]
    for name in ("confidence", *outputs):
        yield from _check_shares(cell, table, name)
    for name in outputs:
        yield from _check_outputs(cell, table, name, (name,), masks)
    yield from _check_named(cell, table, outputs)


def _check_shares(cell: Cell, table: pa.Table, name: str) -> Iterator[Flaw]:
    """float32 in [0, 1], or null."""
    column = table[name]
    if column.type != pa.float32():
        yield flaw(cell, "schema", f"has '{name}' as {column.type}, expected float")
        return
    values = column.to_numpy()
    is_wrong = as_bools(pc.is_valid(column)) & ~((values >= 0) & (values <= 1))
    if is_wrong.any():
        how = f"has a '{name}' that is not from 0 to 1 in {rows_where(is_wrong)}"
        yield flaw(cell, "share", how)


def _check_outputs(
    cell: Cell, table: pa.Table, name: str, outputs: Sequence[str], masks: Masks
) -> Iterator[Flaw]:
    """A column has a value only where its outputs have a mask."""
    has_value = as_bools(pc.is_valid(table[name]))
    for output in outputs:
        teacher, candidate = schemas.output_of(output)
        layer = schemas.masks_layer(teacher)
        if layer not in masks:
            how = f"has '{name}', but its shard does not have masks of '{layer}'"
            yield flaw(cell, "output", how)
            continue
        facts = masks[layer]
        if facts is None or len(facts.is_ok) != len(has_value):
            continue  # that is told of the masks themselves
        is_bad = has_value & ~_is_there(facts, candidate)
        if is_bad.any():
            how = f"has '{name}' of a mask that '{layer}' does not have in {rows_where(is_bad)}"
            yield flaw(cell, "output", how)


def _is_there(facts: MaskFacts, candidate: int) -> Bools:
    there: Bools = facts.is_ok & (facts.num_candidates >= candidate)
    return there


def _check_named(cell: Cell, table: pa.Table, outputs: Sequence[str]) -> Iterator[Flaw]:
    """The output that a row names has the confidence of the row; no confidence, no output."""
    confidence = table["confidence"].to_numpy()
    has_one = as_bools(pc.is_valid(table["confidence"]))
    named = table["teacher"].combine_chunks()
    is_odd = has_one != as_bools(pc.is_valid(named))
    if is_odd.any():
        how = f"has a confidence of no mask, or a mask without any, in {rows_where(is_odd)}"
        yield flaw(cell, "output", how)
    candidates = as_ints(table["candidate"])
    is_other = has_one & ~is_odd
    for name in outputs:
        teacher, candidate = schemas.output_of(name)
        mine = as_bools(pc.equal(named, schemas.masks_layer(teacher))) & (candidates == candidate)
        is_same = np.equal(table[name].to_numpy(), confidence)
        is_other &= ~(mine & is_same)
    if is_other.any():
        how = f"names an output that does not have the row's confidence in {rows_where(is_other)}"
        yield flaw(cell, "output", how)
