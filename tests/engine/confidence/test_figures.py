"""Figures of a confidence: what slow loops find, perfect rankings, ties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.confidence.choice import NEVER, Choice
from engine.confidence.figures import (
    auroc,
    calibration_error,
    figures,
    reliability,
    risk_at_coverage,
    share_kept,
)
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Floats, Output

BOUND = 0.7
PAIRS = st.lists(
    st.tuples(st.integers(0, 10).map(lambda n: n / 10), st.floats(0, 1, width=32)),
    min_size=1,
    max_size=40,
)


def columns(pairs: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    confidence, iou = zip(*pairs, strict=True)
    return np.array(confidence, np.float32), np.array(iou, np.float32)


@settings(deadline=None)
@given(PAIRS)
def test_auroc_counts_pairs_and_ties_by_half(pairs: list[tuple[float, float]]) -> None:
    confidence, iou = columns(pairs)
    good, bad = confidence[iou >= BOUND], confidence[iou < BOUND]
    found = auroc(confidence, iou, BOUND)
    if not len(good) or not len(bad):
        assert found is None
        return
    won = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
    assert found == pytest.approx(np.mean(won))


@settings(deadline=None)
@given(PAIRS)
def test_calibration_error_and_reliability_are_those_of_loops(
    pairs: list[tuple[float, float]],
) -> None:
    ordered = sorted(pairs, key=lambda pair: np.float32(pair[0]))
    size, rest = divmod(len(ordered), 10)
    bins, start = [], 0
    for number in range(10):
        stop = start + size + (number < rest)
        bins.append(ordered[start:stop])
        start = stop
    bins = [rows for rows in bins if rows]
    means = [(np.mean([c for c, _ in rows]), np.mean([i for _, i in rows])) for rows in bins]
    error = sum(abs(c - i) * len(rows) for (c, i), rows in zip(means, bins, strict=True))
    confidence, iou = columns(pairs)
    assert calibration_error(confidence, iou) == pytest.approx(error / len(pairs), abs=1e-5)
    shown = reliability(confidence, iou)
    assert [row["num"] for row in shown] == [len(rows) for rows in bins]
    for row, (mean_confidence, mean_iou) in zip(shown, means, strict=True):
        assert row["confidence"] == pytest.approx(mean_confidence, abs=1e-4)
        assert row["iou"] == pytest.approx(mean_iou, abs=1e-4)
        assert row["low"] <= row["high"]


@settings(deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_the_share_kept_is_the_largest_that_a_threshold_gives(
    pairs: list[tuple[float, float]], max_risk: float
) -> None:
    confidence, iou = columns(pairs)
    best = 0.0
    for threshold in np.unique(confidence):
        kept = confidence >= threshold
        if (iou[kept] < BOUND).mean() <= max_risk:
            best = max(best, float(kept.mean()))
    assert share_kept(confidence, iou, max_risk=max_risk, iou_bound=BOUND) == pytest.approx(best)


def test_masks_of_the_same_confidence_are_kept_together_or_not_at_all() -> None:
    iou = np.array([0.9, 0.9, 0.1, 0.1], np.float32)
    assert share_kept(np.full(4, 0.5, np.float32), iou, max_risk=0.05) == 0


def test_risk_at_coverage_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidence, iou = rng.random(30).astype(np.float32), rng.random(30).astype(np.float32)
    found = risk_at_coverage(confidence, iou, BOUND)
    order = sorted(range(30), key=lambda n: -confidence[n])
    for number in range(30):
        bad = sum(iou[place] < BOUND for place in order[: number + 1])
        assert found[number] == pytest.approx(bad / (number + 1))


def test_a_perfect_and_a_reversed_ranking() -> None:
    iou = np.linspace(0, 1, 101).astype(np.float32)
    assert auroc(iou, iou) == 1
    assert auroc(1 - iou, iou) == 0
    assert calibration_error(iou, iou) == pytest.approx(0, abs=1e-6)
    assert share_kept(iou, iou, max_risk=0.0) == pytest.approx(31 / 101)
    assert share_kept(iou, iou, max_risk=1.0) == 1
    assert share_kept(1 - iou, iou, max_risk=0.0) == 0
    assert auroc(iou, np.ones_like(iou)) is None


def gold_of(iou: dict[str, list[float]]) -> GoldBoxes:
    size = len(next(iter(iou.values())))
    return GoldBoxes(
        table=pa.table(
            {
                "image_id": [f"image {number // 2}" for number in range(size)],
                "category": ["bag"] * size,
            }
        ),
        iou={Output.of(name): np.array(values, np.float32) for name, values in iou.items()},
        features={},
    )


def test_figures_of_the_outputs_that_are_taken() -> None:
    nan = float("nan")
    gold = gold_of(
        {"a": [0.9, 0.5, 0.8, nan], "a.1": [1.0, 0.4, nan, nan], "b": [0.2, 0.6, 0.7, 0.3]}
    )
    confidence = {
        Output.of("a"): np.array([0.9, 0.5, 0.8, nan], np.float32),
        Output.of("a.1"): np.array([0.9, 0.4, nan, nan], np.float32),
        Output.of("b"): np.array([0.3, 0.6, 0.7, 0.4], np.float32),
    }
    found = figures(Choice(base=Output.of("a"), margin=NEVER), gold, confidence)
    assert found["mean_iou"] == {
        "fused": round((0.9 + 0.5 + 0.8 + 0.3) / 4, 4),
        "oracle": round((1.0 + 0.6 + 0.8 + 0.3) / 4, 4),
        "a": round((0.9 + 0.5 + 0.8) / 4, 4),  # a mask that is missing is worth nothing
        "b": 0.45,
    }
    assert (found["num_images"], found["num_boxes"]) == (2, 4)
    assert found["auroc"] == 1
    assert found["risk_at_coverage"]["1.0"] == 0.5
    assert found["risk_at_coverage"]["0.5"] == 0
    assert found["share_kept_at_5_percent"] == 0.5


def test_boxes_of_which_nothing_is_known_are_left_out() -> None:
    nan = float("nan")
    gold = gold_of({"a": [0.9, 0.1, nan], "other": [0.5, 0.5, 0.5]})
    confidence = {Output.of("a"): np.array([0.8, 0.2, nan], np.float32)}
    found = figures(Choice(base=Output.of("a"), margin=0.1), gold, confidence)
    assert found["num_boxes"] == 2
    assert found["mean_iou"]["fused"] == 0.5
    assert found["auroc"] == 1
