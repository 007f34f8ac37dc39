"""Tallies: what a histogram says is what explicit masks say, at every threshold and floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.confidence.plan import Plan, keeps
from engine.confidence.tally import NUM_BINS, Tally, bins_of, is_kept, thresholds_to_test
from engine.policy import Floor
from tests.engine.confidence.counted import chosen

NAN = float("nan")
# Many at the edges of bins, where a mask and a threshold may be rounded to different sides.
CONFIDENCE = (
    st.integers(0, 1000).map(lambda n: n / 1000)
    | st.integers(1, 1000).map(lambda n: float(np.nextafter(np.float32(n / 1000), np.float32(0))))
    | st.floats(0, 1, width=32)
)
MASK = st.tuples(
    CONFIDENCE | st.just(NAN),
    st.sampled_from(["shoe", "bag", "hat"]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, None, None, "low_box_iou"]),
)
MASKS = st.lists(MASK, min_size=1, max_size=40)
FLOOR = st.none() | st.builds(
    Floor, min_share=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), min_masks=st.integers(0, 5)
)
Rows = list[tuple[float, str, bool, str | None]]


def tally_of(rows: Rows, *, num_shards: int = 1) -> Tally:
    tally = Tally()
    for number in range(num_shards):
        if part := rows[number::num_shards]:
            confidence, categories, is_human, reason = map(list, zip(*part, strict=True))
            tally.add(chosen(confidence, categories, is_human=is_human, reason=reason))
    return tally


def mine(rows: Rows) -> list[tuple[np.float32, str]]:
    """(confidence, category) of masks that a policy may keep or not."""
    return [
        (np.float32(confidence), category)
        for confidence, category, is_human, reason in rows
        if not (math.isnan(confidence) or is_human or reason)
    ]


# -- bins ----------------------------------------------------------------------------------------


def test_a_mask_is_cut_where_its_confidence_as_float32_is() -> None:
    for number in range(NUM_BINS):
        edge = np.float32(number / 1000)
        around = np.array([edge, np.nextafter(edge, np.float32(2))], np.float32)
        assert bins_of(around).tolist() == [number, number], number
        if number:
            assert bins_of(np.nextafter(around[:1], np.float32(-1))).tolist() == [number - 1]
    assert bins_of(np.array([NAN, 1.0], np.float32)).tolist() == [-1, 1000]
    assert len(bins_of(np.zeros(0, np.float32))) == 0


@settings(deadline=None)
@given(st.lists(CONFIDENCE, min_size=1, max_size=30), st.integers(0, 1000))
def test_bins_part_masks_as_comparing_does(values: list[float], threshold: int) -> None:
    confidence = np.array(values, np.float32)
    expected = confidence >= np.float32(threshold / 1000)
    np.testing.assert_array_equal(bins_of(confidence) >= threshold, expected)


# -- counting ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(MASKS, FLOOR, st.integers(1, 3))
def test_every_threshold_keeps_what_explicit_masks_say(
    rows: Rows, floor: Floor | None, num_shards: int
) -> None:
    tally = tally_of(rows, num_shards=num_shards)
    floors = tally.floors(floor)
    counts, sums = tally.kept(floors)
    masks = mine(rows)
    confidence = np.array([value for value, _ in masks], np.float32)
    codes = np.array([tally.categories[name] for _, name in masks], np.int64)
    thresholds = {0, 1, 499, 500, 999, 1000, *bins_of(confidence).tolist()}
    for threshold in thresholds:
        explicit = keeps(Plan(threshold=threshold, floors=floors), confidence, codes)
        assert counts[threshold] == explicit.sum()
        assert sums[threshold] == pytest.approx(confidence[explicit].astype(float).sum())
    assert (np.diff(counts) <= 0).all()


@settings(deadline=None)
@given(MASKS, FLOOR)
def test_floors_keep_what_they_promise_and_the_most_confident_of_it(
    rows: Rows, floor: Floor | None
) -> None:
    tally, masks = tally_of(rows), mine(rows)
    floors = tally.floors(floor)
    for name, place in tally.categories.items():
        values = sorted((value for value, category in masks if category == name), reverse=True)
        stays = [
            value for value in values if bins_of(np.array([value], np.float32))[0] >= floors[place]
        ]
        if floor is None:
            assert stays == []
            continue
        wanted = max(math.ceil(floor.min_share * len(values) - 1e-9), floor.min_masks)
        wanted = min(wanted, len(values))
        assert len(stays) >= wanted
        assert stays == values[: len(stays)]
        # No more than that, but for masks that are as confident as the last one.
        last = bins_of(np.array(values[wanted - 1 : wanted], np.float32))
        others = bins_of(np.array(stays[wanted:], np.float32))
        assert (others == last).all() if wanted else stays == []


def test_it_counts_boxes_of_the_rules_and_of_humans_apart() -> None:
    tally = tally_of(
        [
            (0.9, "shoe", False, None), (0.2, "shoe", False, "low_box_iou"),
            (0.8, "bag", True, None), (NAN, "bag", False, "no_mask"), (0.5, "bag", False, None),
        ]
    )  # fmt: skip
    shoe, bag = tally.categories["shoe"], tally.categories["bag"]
    assert tally.num_rows[[shoe, bag]].tolist() == [2, 1]
    assert tally.counts.sum(axis=1)[[shoe, bag]].tolist() == [1, 1]
    assert tally.sums.sum() == pytest.approx(1.4)


def test_categories_grow_with_the_shards() -> None:
    tally = Tally()
    tally.add(chosen([0.9], ["shoe"]))
    tally.add(chosen([0.1, 0.2], ["bag", "shoe"]))
    tally.add(chosen([], []))
    assert list(tally.categories) == ["shoe", "bag"]
    assert tally.counts.sum(axis=1).tolist() == [2, 1]


def test_no_masks_at_all() -> None:
    tally = Tally()
    counts, sums = tally.kept(tally.floors(Floor(min_masks=3)))
    assert counts.sum() == sums.sum() == 0
    assert thresholds_to_test(counts, 40) == []
    assert not is_kept(np.array([-1]), np.array([0]), 0, np.array([0])).any()


# -- thresholds ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(CONFIDENCE, min_size=1, max_size=60), st.integers(1, 12))
def test_thresholds_to_test_go_from_strict_to_all_in_even_steps(
    values: list[float], num_levels: int
) -> None:
    tally = Tally()
    tally.add(chosen(values))
    counts, _ = tally.kept(tally.floors(None))
    found = list(thresholds_to_test(counts, num_levels))
    assert found == sorted(set(found), reverse=True)
    assert counts[found[-1]] == len(values)
    for level in range(1, num_levels + 1):
        wanted = len(values) * level / num_levels
        strictest = max(place for place in range(NUM_BINS) if counts[place] >= wanted)
        assert strictest in found
    assert len(found) <= num_levels
