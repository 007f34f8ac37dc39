"""Full fsck of the layers that lie on boxes: masks and verdicts, in whole columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.findings import Flaw
from manifests.fsck_tables import (
    Bools,
    BoxFacts,
    IndexFacts,
    Ints,
    as_bools,
    as_ints,
    flaw,
    rows_where,
)
from manifests.manifest import Cell
from manifests.rle_columns import measure
from manifests.rle_runs import FAULTS

_STATUSES = pa.array([schemas.OK, schemas.SKIPPED, schemas.FAILED, schemas.ABSENT, schemas.PENDING])
_NEEDED = ("counts", "area_px", "mask_box_xyxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """What boxes and verdicts are compared with; [N] one entry a row."""

    is_ok: Bools
    num_candidates: Ints
    heights: Ints
    widths: Ints


def mask_facts(table: pa.Table) -> MaskFacts:
    """From a table with MASKS_SCHEMA."""
    return MaskFacts(
        is_ok=as_bools(pc.equal(table["status"], schemas.OK)),
        num_candidates=as_ints(pc.list_value_length(table["candidates"])),
        heights=as_ints(table["height"]),
        widths=as_ints(table["width"]),
    )


def check_masks(cell: Cell, table: pa.Table, facts: MaskFacts) -> Iterator[Flaw]:
    """What needs no other cell: statuses, and that each RLE is what the row says of it."""
    is_strange = ~as_bools(pc.is_in(table["status"], value_set=_STATUSES))
    if is_strange.any():
        place = rows_where(is_strange)
        yield flaw(cell, "status", f"has a status that nobody knows in {place}")
    has_mask = as_bools(pc.is_valid(table["counts"]))
    is_odd = has_mask != facts.is_ok
    if is_odd.any():
        how = f"has a mask without status 'ok', or no mask with it, in {rows_where(is_odd)}"
        yield flaw(cell, "status", how)
    yield from _check_shapes(
        cell, table.select(_NEEDED), facts, np.arange(table.num_rows), what="mask"
    )
    candidates = table["candidates"].combine_chunks()
    structs = candidates.flatten()
    flat = pa.table({name: pc.struct_field(structs, name) for name in _NEEDED})
    rows = as_ints(pc.list_parent_indices(candidates))
    is_bare = ~as_bools(pc.is_valid(flat["counts"]))
    if is_bare.any():
        how = f"has a candidate without a mask in {rows_where(is_bare, rows=rows)}"
        yield flaw(cell, "candidate", how)
    yield from _check_shapes(cell, flat, facts, rows, what="candidate")


def check_masks_on_boxes(
    cell: Cell, facts: MaskFacts, boxes: BoxFacts, index: IndexFacts
) -> Iterator[Flaw]:
    """Masks have the rows of the boxes, and the sizes of their images."""
    if len(facts.is_ok) != len(boxes.image_rows):
        yield misaligned(cell, len(facts.is_ok), len(boxes.image_rows))
        return
    is_known = (boxes.image_rows >= 0) & (boxes.image_rows < len(index.heights))
    rows = np.where(is_known, boxes.image_rows, 0)
    is_other = is_known & (
        (facts.heights != _at(index.heights, rows)) | (facts.widths != _at(index.widths, rows))
    )
    if is_other.any():
        how = f"has masks of another size than their image in {rows_where(is_other)}"
        yield flaw(cell, "mask_size", how)


def check_verdicts(
    cell: Cell, table: pa.Table, boxes: BoxFacts, layers: Mapping[str, MaskFacts | None]
) -> Iterator[Flaw]:
    """Verdicts have the rows of the boxes, and name masks that are there.

    Args:
        layers: the shard's masks layers; None for one that could not be read.
    """
    if table.num_rows != len(boxes.image_rows):
        yield misaligned(cell, table.num_rows, len(boxes.image_rows))
        return
    keep = as_bools(table["keep"])
    named = table["teacher"].combine_chunks()
    is_nameless = keep & ~as_bools(pc.is_valid(named))
    if is_nameless.any():
        yield flaw(cell, "verdict", f"keeps a box without a mask in {rows_where(is_nameless)}")
    candidate = as_ints(table["candidate"])
    for layer in pc.unique(named.drop_null()).to_pylist():
        mine = as_bools(pc.equal(named, layer))
        if layer not in layers:
            how = f"names masks of '{layer}', which its shard does not have, in {rows_where(mine)}"
            yield flaw(cell, "verdict", how)
            continue
        facts = layers[layer]
        if facts is None or len(facts.is_ok) != len(mine):
            continue  # that is told of the masks themselves
        is_bad = mine & keep & ~facts.is_ok
        if is_bad.any():
            how = f"keeps a mask that '{layer}' does not have in {rows_where(is_bad)}"
            yield flaw(cell, "verdict", how)
        is_bad = mine & ((candidate < 0) | (candidate > facts.num_candidates))
        if is_bad.any():
            how = f"names a candidate that '{layer}' does not have in {rows_where(is_bad)}"
            yield flaw(cell, "verdict", how)


def misaligned(cell: Cell, num_rows: int, num_boxes: int) -> Flaw:
    """A layer that does not have the rows of the boxes."""
    how = f"has {num_rows:,} rows, but its boxes have {num_boxes:,}"
    return flaw(cell, "misaligned", how)


def _check_shapes(
    cell: Cell, table: pa.Table, facts: MaskFacts, rows: Ints, *, what: str
) -> Iterator[Flaw]:
    """Each RLE is valid for its image's size, and area and box are its own."""
    has_mask = as_bools(pc.is_valid(table["counts"]))
    if not has_mask.any():
        return
    masks, rows = table.filter(pa.array(has_mask)), rows[has_mask]
    counts = masks["counts"].combine_chunks()
    found = measure(counts, heights=facts.heights[rows], widths=facts.widths[rows])
    is_bad = found.faults > 0
    if is_bad.any():
        fault = FAULTS[found.faults[np.flatnonzero(is_bad)[0]]]
        how = f"has a {what} whose RLE {fault} in {rows_where(is_bad, rows=rows)}"
        yield flaw(cell, "rle", how)
    area = masks["area_px"].combine_chunks()
    is_wrong = ~is_bad & ~as_bools(pc.equal(area, pa.array(found.area_px)))
    if is_wrong.any():
        how = f"has a {what} whose area is not that of its RLE in {rows_where(is_wrong, rows=rows)}"
        yield flaw(cell, "area", how)
    box = _boxes(masks["mask_box_xyxy"].combine_chunks())
    is_wrong = ~is_bad & ~(box == found.box_xyxy).all(axis=1)
    if is_wrong.any():
        how = f"has a {what} whose box is not that of its RLE in {rows_where(is_wrong, rows=rows)}"
        yield flaw(cell, "mask_box", how)


def _boxes(column: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """[N, 4]; NaN where there is none."""
    box = np.full((len(column), 4), np.nan, np.float32)
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    box[as_bools(pc.is_valid(column))] = flat.reshape(-1, 4)
    return box


def _at(values: Ints, rows: Ints) -> Ints:
    return values[rows] if len(values) else np.zeros(len(rows), np.int64)
