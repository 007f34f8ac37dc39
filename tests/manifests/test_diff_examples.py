"""Which changes a diff shows: the largest, of every category, the same ones however it is cut."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import schemas
from manifests.dataset import Dataset
from manifests.diff import DiffOptions, diff
from manifests.diff_examples import EXAMPLES, ExampleHeap, whole_turns
from manifests.diff_result import Example
from manifests.diff_sums import filled
from tests.manifests.conftest import DatasetBuilder, filled_box, mask_row
from tests.manifests.edits import SAM, SIZE, edited, setter

Item = tuple[str, int]


def table(items: list[Item], first_row: int = 0) -> pa.Table:
    """EXAMPLES of (group, size), numbered by their rows."""
    rows = pa.array(range(first_row, first_row + len(items)), pa.int64())
    return filled(
        EXAMPLES, len(items), lane="masks", layer=SAM, kind="changed",
        row_before=rows, row_after=rows,
        shard_before="a", shard_after="a", moved_px=1,
        group=pa.array([group for group, _ in items], pa.string()),
        category=pa.array([group for group, _ in items], pa.string()),
        size=pa.array([size for _, size in items], pa.float64()),
    )  # fmt: skip


def chosen(parts: list[list[Item]], limit: int) -> list[int]:
    heap, first_row = ExampleHeap(limit), 0
    for part in parts:
        found = table(part, first_row)
        rows = whole_turns(found["group"].combine_chunks(), found["size"].to_numpy(), limit)
        heap.add(found.take(pa.array(rows)))
        first_row += len(part)
    return [example.row_after for example in heap.chosen()]


items = st.tuples(st.sampled_from("abcde"), st.integers(0, 9))


@settings(deadline=None)
@given(st.lists(st.lists(items, max_size=12), max_size=6), st.integers(0, 9))
def test_thinning_out_part_by_part_chooses_what_the_whole_would(
    parts: list[list[Item]], limit: int
) -> None:
    everything = [item for part in parts for item in part]
    turns: Counter[str] = Counter()
    ranked = []
    for row in sorted(range(len(everything)), key=lambda n: (-everything[n][1], n)):
        group, size = everything[row]
        ranked.append((turns[group], -size, row))
        turns[group] += 1
    expected = [(turn, size) for turn, size, _ in sorted(ranked)][:limit]
    found = chosen(parts, limit)
    place = {row: (turn, size) for turn, size, row in ranked}
    assert [place[row] for row in found] == expected


def test_one_category_does_not_take_all() -> None:
    items = [("shoe", 9), ("shoe", 8), ("shoe", 7), ("hat", 2), ("cup", 1)]
    assert chosen([items], 4) == [0, 3, 4, 1]


def test_memory_is_bounded() -> None:
    heap = ExampleHeap(3)
    for number in range(50):
        heap.add(table([("shoe", number), ("hat", -number)], 2 * number))
    assert heap._best["masks"].num_rows <= 4
    assert [one.row_after for one in heap.chosen()] == [98, 1, 96]


def shop(builder: DatasetBuilder) -> tuple[Dataset, str]:
    builder.image("a.jpg")
    builder.box("shoe", (0, 0, 10, 10))
    builder.box("shoe", (0, 0, 4, 4))
    builder.box("hat", (2, 2, 6, 6))
    builder.box("hat", (10, 2, 14, 6), keep=False, reason="low_box_iou")
    shard = builder.shard()
    return builder.commit(), shard


def test_large_changes_of_large_masks_come_first(builder: DatasetBuilder) -> None:
    before, shard = shop(builder)
    gone = mask_row(None, SIZE, status=schemas.FAILED, reason="empty_mask")
    small = mask_row(filled_box((0, 0, 4, 1), SIZE), SIZE)  # 12 of 16 px moved
    large = mask_row(filled_box((0, 0, 5, 10), SIZE), SIZE)  # 50 of 100
    after = edited(before, shard, SAM, setter(0, **large))
    after = edited(after, shard, SAM, setter(1, **small))
    after = edited(after, shard, SAM, setter(2, **gone))
    found = diff(before, after, options=DiffOptions(max_examples=9)).examples
    place = {"shard_before": shard, "shard_after": shard, "before": None, "after": None}
    assert found == (
        Example(layer=SAM, kind="changed", category="shoe", row_before=0, row_after=0, iou=0.5,
                moved_px=50, **place),
        Example(layer=SAM, kind="removed", category="hat", row_before=2, row_after=2, iou=None,
                moved_px=16, **place),
        Example(layer=SAM, kind="changed", category="shoe", row_before=1, row_after=1, iou=0.25,
                moved_px=12, **place),
    )  # fmt: skip


def test_flips_from_every_state_to_every_other(builder: DatasetBuilder) -> None:
    before, shard = shop(builder)
    after = before
    for row, reason in ((0, "too_small"), (1, "too_small"), (2, "too_small"), (3, "other")):
        after = edited(after, shard, schemas.VERDICTS, setter(row, keep=False, reason=reason))
    found = diff(before, after, options=DiffOptions(max_examples=9)).examples
    assert {(one.kind, one.category, one.before, one.after) for one in found} == {
        ("dropped", "shoe", "kept", "too_small"), ("dropped", "hat", "kept", "too_small"),
    }  # fmt: skip
    assert len(found) == 3, "another reason is nothing to look at"
    few = diff(before, after, options=DiffOptions(max_examples=2)).examples
    assert {one.category for one in few} == {"shoe", "hat"}
    assert few == found[:2]
    unnamed = diff(before, after, options=DiffOptions(max_examples=9, by_category=False)).examples
    assert [one.category for one in unnamed] == [None] * 3


def test_none_wanted(builder: DatasetBuilder) -> None:
    before, shard = shop(builder)
    after = edited(before, shard, schemas.VERDICTS, setter(0, keep=False, reason="other"))
    assert diff(before, after).examples == ()
