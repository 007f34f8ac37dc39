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

Floats = NDArray[np.float64]

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
        # Those of one lane compete for room; those of one group of it by size, groups by turns.
        pa.field("lane", pa.string()),
        pa.field("group", pa.string()),
        pa.field("size", pa.float64()),
    ]
)
_MASKS = "masks"
_LANES = (_MASKS, DROPPED, KEPT, OTHER_MASK)
_FLIP = ["category", "before", "after"]


class ExampleHeap:
    """The best examples seen so far: about `limit` and one of each group, however many come.

    Masks do not compete with verdicts, nor one kind of flip with another: there may be `limit` of
    each, so that few dropped masks are not lost among many that somebody else drew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._best = dict.fromkeys(_LANES, EXAMPLES.empty_table())

    def add(self, found: pa.Table) -> None:
        """More EXAMPLES; of two that are equally large the first one counts as larger."""
        for lane, best in self._best.items():
            more = found.filter(pc.equal(found["lane"], lane))
            if more.num_rows:
                both = pa.concat_tables([best, more]).combine_chunks()
                rows = whole_turns(_chunk(both, "group"), both["size"].to_numpy(), self._limit)
                self._best[lane] = both.take(pa.array(rows))

    def chosen(self) -> tuple[Example, ...]:
        """Masks, then each kind of flip: the largest of each group by falling size, then the
        second of each ..."""
        return tuple(
            Example(**row)
            for best in self._best.values()
            for row in self._first(best).drop_columns(["lane", "group", "size"]).to_pylist()
        )

    def _first(self, best: pa.Table) -> pa.Table:
        sizes = best["size"].to_numpy()
        order = np.lexsort((-sizes, _turns(_chunk(best, "group"), sizes)))
        return best.take(pa.array(order[: self._limit]))


def whole_turns(groups: pa.Array, sizes: Floats, limit: int) -> Ints:
    """Rows, in their order, that the fewest whole turns take which give `limit` rows or all.

    What is chosen of a whole is in what is chosen of any part of it, so shards can be thinned out
    one by one: with fewer competitors, a part never takes fewer turns than the whole.
    """
    turns = _turns(groups, sizes)
    if limit >= len(turns):
        return np.arange(len(turns))
    last = np.partition(turns, limit - 1)[limit - 1] if limit else -1
    return np.flatnonzero(turns <= last)


def _turns(groups: pa.Array, sizes: Floats) -> Ints:
    """[N] how many of its own group are larger, or as large and before it."""
    codes = pc.dictionary_encode(groups).indices.to_numpy()
    order = np.lexsort((-sizes, codes))
    place = np.arange(len(order))
    is_first = np.diff(codes[order], prepend=-1) != 0
    turns = np.empty(len(order), dtype=np.int64)
    turns[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return turns


def mask_examples(aligned: AlignedPair, layer: str, masks: PairedMasks, limit: int) -> pa.Table:
    """EXAMPLES of one layer of one pair of shards."""
    groups = _joined([layer, aligned.categories_after(masks.after)])
    sizes = masks.moved_px / np.sqrt(np.maximum(masks.union_px * masks.image_px, 1))
    rows = whole_turns(groups, sizes, limit)
    return filled(
        EXAMPLES, len(rows), lane=_MASKS, layer=layer, kind=pa.array(masks.kind[rows], pa.string()),
        category=aligned.categories_after(masks.after[rows]),
        **_places(aligned, masks.before[rows], masks.after[rows]),
        iou=pc.if_else(pa.array(masks.kind[rows] == CHANGED), pa.array(masks.iou[rows]), None),
        moved_px=pa.array(masks.moved_px[rows]),
        group=groups.take(pa.array(rows)), size=pa.array(sizes[rows]),
    )  # fmt: skip


def flip_examples(aligned: AlignedPair, flipped: FlippedRows, limit: int) -> pa.Table:
    """EXAMPLES of flipped verdicts of one pair of shards."""
    sizes = _shuffled(aligned.after, flipped.after)
    kinds = [_flips_of_kind(aligned, flipped, kind, sizes, limit) for kind in _LANES[1:]]
    return pa.concat_tables(kinds)


def _flips_of_kind(
    aligned: AlignedPair, flipped: FlippedRows, kind: str, sizes: Floats, limit: int
) -> pa.Table:
    mine = np.flatnonzero(pc.equal(flipped.events["kind"], kind))
    events = flipped.events.take(pa.array(mine)).combine_chunks()
    groups = _joined([_chunk(events, name) for name in _FLIP])
    rows = whole_turns(groups, sizes[mine], limit)
    chosen, places = events.take(pa.array(rows)), mine[rows]
    return filled(
        EXAMPLES, len(rows), lane=kind, layer=VERDICTS, kind=kind,
        **{name: _chunk(chosen, name) for name in _FLIP},
        **_places(aligned, flipped.before[places], flipped.after[places]),
        moved_px=0, group=groups.take(pa.array(rows)), size=pa.array(sizes[places]),
    )  # fmt: skip


def _places(aligned: AlignedPair, before: Ints, after: Ints) -> dict[str, pa.Array | str | None]:
    return {
        "shard_before": aligned.pair.before,
        "row_before": pa.array(before),
        "shard_after": aligned.pair.after,
        "row_after": pa.array(after),
    }


def _shuffled(side: Side | None, rows: Ints) -> Floats:
    """[M] a number for each row that depends on its shard and place alone."""
    if side is None:
        return np.zeros(len(rows))
    return np.random.default_rng(int(side.shard[:16], 16)).random(side.num_boxes)[rows]


def _chunk(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _joined(parts: Sequence[str | pa.Array]) -> pa.Array:
    """[N] one string of several."""
    return pc.binary_join_element_wise(*parts, "\0", null_handling="replace", null_replacement="-")
