"""A few boxes of a diff to look at: the largest changes, always the same, of all categories.

A change of a mask is large if it moves much of the mask and much of the picture: the size is
moved / sqrt(union * image), the geometric mean of both shares. Flipped verdicts have no size; they
are shuffled by their shard and row. Groups (a teacher's category; a category's flips from one state
to another) take turns: the largest of each, then the second of each, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.diff_masks import CHANGED, PairedMasks
from manifests.diff_result import DROPPED, KEPT, OTHER_MASK, Example
from manifests.diff_rows import AlignedPair
from manifests.diff_side import Ints, Side
from manifests.diff_sums import filled
from manifests.diff_verdicts import FlippedRows
from manifests.schemas import VERDICTS

EXAMPLES = pa.schema(
    [
        pa.field("layer", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("category", pa.string()),
        pa.field("shard_before", pa.string()),
        pa.field("row_before", pa.int64()),
        pa.field("shard_after", pa.string()),
        pa.field("row_after", pa.int64()),
        pa.field("before", pa.string()),
        pa.field("after", pa.string()),
        pa.field("iou", pa.float64()),
        pa.field("moved_px", pa.int64()),
        # Those of one group compete with each other, by size.
        pa.field("group", pa.string()),
        pa.field("size", pa.float64()),
    ]
)
_ORDER = [
    ("group", "ascending"), ("size", "descending"),
    ("shard_after", "ascending"), ("row_after", "ascending"),
    ("shard_before", "ascending"), ("row_before", "ascending"), ("layer", "ascending"),
]  # fmt: skip
_SHOWN_FLIPS = pa.array([DROPPED, KEPT, OTHER_MASK])


class ExampleHeap:
    """The best examples seen so far: about `limit` and one of each group, however many come."""

    def __init__(self, limit: int) -> None:
        self._limit, self._best = limit, EXAMPLES.empty_table()

    def add(self, found: pa.Table) -> None:
        """More EXAMPLES."""
        if found.num_rows:
            self._best = spread(pa.concat_tables([self._best, found]), self._limit)

    def chosen(self) -> tuple[Example, ...]:
        """At most `limit`: the first of each group by falling size, then the second of each ..."""
        ranked, rank = _ranked(self._best)
        sizes = ranked["size"].to_numpy()
        order = np.lexsort((-sizes, rank))[: self._limit]
        rows = ranked.take(pa.array(order)).drop_columns(["group", "size"]).to_pylist()
        return tuple(Example(**row) for row in rows)


def spread(examples: pa.Table, limit: int) -> pa.Table:
    """Whole turns of the groups, as few as give `limit` rows.

    What is chosen of a whole is in what is chosen of any part of it, so shards can be thinned out
    one by one: with fewer competitors, a part never takes fewer turns than the whole.
    """
    if limit < 1:
        return examples.slice(0, 0)
    ranked, rank = _ranked(examples)
    if ranked.num_rows <= limit:
        return ranked
    last = np.partition(rank, limit - 1)[limit - 1]
    return ranked.filter(pa.array(rank <= last))


def _ranked(examples: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
    """Sorted by group and falling size, and [N] the place of each in its group."""
    ranked = examples.sort_by(_ORDER).combine_chunks()
    groups = pc.rank(ranked["group"], tiebreaker="dense").to_numpy()
    is_first = np.diff(groups, prepend=0) > 0
    place = np.arange(len(groups))
    rank: NDArray[np.int64] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return ranked, rank


def mask_examples(aligned: AlignedPair, layer: str, paired: PairedMasks, limit: int) -> pa.Table:
    """EXAMPLES of one layer of one pair of shards."""
    categories = aligned.categories_after(paired.after)
    sizes = paired.moved_px / np.sqrt(np.maximum(paired.union_px * paired.image_px, 1))
    found = filled(
        EXAMPLES, len(sizes), layer=layer, kind=pa.array(paired.kind, pa.string()),
        category=categories, **_places(aligned, paired.before, paired.after),
        iou=pc.if_else(pa.array(paired.kind == CHANGED), pa.array(paired.iou), None),
        moved_px=pa.array(paired.moved_px), group=_joined([layer, categories]),
        size=pa.array(sizes),
    )  # fmt: skip
    return spread(found, limit)


def flip_examples(aligned: AlignedPair, flipped: FlippedRows, limit: int) -> pa.Table:
    """EXAMPLES of flipped verdicts of one pair of shards."""
    states = {
        name: flipped.events[name].combine_chunks()
        for name in ("category", "kind", "before", "after")
    }
    found = filled(
        EXAMPLES, flipped.events.num_rows, layer=VERDICTS, **states,
        **_places(aligned, flipped.before, flipped.after),
        moved_px=0, group=_joined([VERDICTS, *states.values()]),
        size=_shuffled(aligned.after, flipped.after),
    )  # fmt: skip
    return spread(found.filter(pc.is_in(found["kind"], value_set=_SHOWN_FLIPS)), limit)


def _places(aligned: AlignedPair, before: Ints, after: Ints) -> dict[str, pa.Array | str | None]:
    return {
        "shard_before": aligned.pair.before,
        "row_before": pa.array(before),
        "shard_after": aligned.pair.after,
        "row_after": pa.array(after),
    }


def _shuffled(side: Side | None, rows: Ints) -> pa.Array:
    """[M] a number for each row that depends on its shard and place alone."""
    if side is None:
        return pa.nulls(len(rows), pa.float64())
    numbers = np.random.default_rng(int(side.shard[:16], 16)).random(side.num_boxes)
    return pa.array(numbers[rows])


def _joined(parts: Sequence[str | pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "\0", null_handling="replace", null_replacement="-")
