"""Building tables of the protocol's three schemas from plain columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.sources.protocol import ANNOTATION_ENTRIES, CATEGORY_ENTRIES, IMAGE_ENTRIES, SourceBatch

INT32_MAX = 2**31 - 1


def image_batch(
    *,
    source_image_id: pa.Array,
    file_name: pa.Array,
    height: pa.Array | None = None,
    width: pa.Array | None = None,
    not_exhaustive: pa.Array | None = None,
    negative: pa.Array | None = None,
    defect: pa.Array | None = None,
) -> SourceBatch:
    """Image entries; a column left out is null, and a null id becomes the empty string."""
    columns = [
        source_image_id.fill_null(""), file_name, height, width, not_exhaustive, negative, defect,
    ]  # fmt: skip
    return SourceBatch(kind="images", table=_table(IMAGE_ENTRIES, columns))


def annotation_batch(
    *,
    source_image_id: pa.Array,
    source_category_id: pa.Array,
    box_xyxy: pa.Array,
    source_annotation_id: pa.Array | None = None,
    is_crowd: pa.Array | None = None,
    is_group_of: pa.Array | None = None,
    flags: pa.Array | None = None,
    score: pa.Array | None = None,
    segmentation: pa.Array | None = None,
    defect: pa.Array | None = None,
) -> SourceBatch:
    """Annotation entries; a column left out is null (crowd and group-of: false), a null id "".

    A box with a defect becomes null.
    """
    never = pa.array(np.zeros(len(box_xyxy), dtype=bool))
    columns = [
        source_image_id.fill_null(""),
        source_annotation_id,
        source_category_id.fill_null(""),
        box_xyxy,
        never if is_crowd is None else is_crowd,
        never if is_group_of is None else is_group_of,
        flags,
        score,
        segmentation,
        defect,
    ]
    return SourceBatch(kind="annotations", table=_table(ANNOTATION_ENTRIES, columns))


def category_batch(
    ids: Sequence[str],
    names: Sequence[str],
    supercategories: Sequence[str | None] | None = None,
) -> SourceBatch:
    """Category entries."""
    parents = supercategories if supercategories is not None else [None] * len(ids)
    columns = [pa.array(column, pa.string()) for column in (ids, names, parents)]
    return SourceBatch(kind="categories", table=_table(CATEGORY_ENTRIES, columns))


def broken_rows_batch(count: int) -> Iterator[SourceBatch]:
    """Annotation entries for rows of which nothing could be read."""
    if count:
        nothing = pa.nulls(count, pa.string())
        yield annotation_batch(
            source_image_id=nothing,
            source_category_id=nothing,
            box_xyxy=pa.nulls(count, pa.list_(pa.float64(), 4)),
            defect=pa.array(["malformed_row"] * count, pa.string()),
        )


def box_column(boxes: NDArray[np.float64], *, defect: pa.Array | None = None) -> pa.Array:
    """[N, 4] float64 as a column of boxes, null for rows with a defect."""
    mask = None if defect is None else defect.is_valid()
    values = pa.array(np.ascontiguousarray(boxes, dtype=np.float64).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, 4, mask=mask)


def flag_column(flags: Sequence[str], present: Sequence[NDArray[np.bool_]]) -> pa.Array:
    """For each row the list of those `flags` whose array in `present` is set; null without any.

    The few combinations are built once and looked up, which is much faster than list by list.
    """
    code = np.zeros(len(present[0]), dtype=np.int64)
    for bit, is_set in enumerate(present):
        code |= is_set.astype(np.int64) << bit
    combinations = [
        [flag for bit, flag in enumerate(flags) if number >> bit & 1] or None
        for number in range(2 ** len(flags))
    ]
    return pa.array(combinations, pa.list_(pa.string())).take(pa.array(code))


def first_defect(defects: Sequence[tuple[str, NDArray[np.bool_]]], *, rows: int) -> pa.Array | None:
    """For each row the first of the words whose array is set; None where no row has one."""
    if not any(is_set.any() for _, is_set in defects):
        return None
    words = np.full(rows, None, dtype=object)
    for word, is_set in reversed(defects):
        words[is_set] = word
    return pa.array(words, pa.string())


def flat_boxes(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """[N, 4] of N sequences of 4 numbers."""
    numbers = itertools.chain.from_iterable(boxes)
    return np.fromiter(numbers, np.float64, 4 * len(boxes)).reshape(-1, 4)


def _table(schema: pa.Schema, columns: Sequence[pa.Array | None]) -> pa.Table:
    rows = len(columns[0]) if columns[0] is not None else 0
    filled = [
        pa.nulls(rows, field.type) if column is None else column
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(filled, schema=schema)
