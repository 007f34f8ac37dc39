"""Fits: a planted signal is learnt, noise is not, and nothing crosses from image to image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.confidence.calibrator import Calibrator
from engine.confidence.figures import auroc, calibration_error
from engine.confidence.fit import Fitted, best_of, deal, fit, fit_curve, fit_shifts
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Floats, Output

A, A1, B = (Output.of(name) for name in ("a", "a.1", "b"))
NAMES = ("f0", "f1", "f2")
NAN = float("nan")


def gold_of(
    iou: Mapping[Output, Floats],
    features: Mapping[Output, Floats],
    images: Any,
    categories: list[str] | None = None,
) -> GoldBoxes:
    size = len(images)
    return GoldBoxes(
        table=pa.table(
            {
                "image_id": pa.array([f"image {image}" for image in images], pa.string()),
                "category": pa.array(categories or ["shoe"] * size, pa.string()),
            }
        ),
        iou=iou,
        features=features,
    )


def fitted(gold: GoldBoxes, *, seed: int = 0) -> Fitted:
    teachers = sorted({output.teacher for output in gold.iou})
    return fit(gold, dict.fromkeys(teachers, NAMES), {name: {} for name in teachers}, seed=seed)


def planted(seed: int, size: int = 300, *, per_image: int = 3) -> GoldBoxes:
    """IoU is what the first signal says, and a little luck; the second is noise, the third is 7."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=size)
    iou = 1 / (1 + np.exp(-2 * signal)) * 0.8 + 0.2 * rng.random(size)
    features = np.stack([signal, rng.normal(size=size), np.full(size, 7.0)], 1)
    images = np.arange(size) // per_image
    return gold_of({A: iou.astype(np.float32)}, {A: features.astype(np.float32)}, images)


def bytes_of(found: Fitted) -> bytes:
    return Calibrator(
        heads=found.heads, choice=found.choice, chosen=found.chosen, certify_share=0.5
    ).to_bytes()


@pytest.fixture(scope="module")
def learnt() -> Fitted:
    return fitted(planted(0))


# -- what is learnt ------------------------------------------------------------------------------


def test_a_planted_signal_is_learnt_out_of_fold(learnt: Fitted) -> None:
    gold = learnt.gold
    confidence = learnt.confidence[A]
    found = auroc(confidence, gold.iou[A])
    assert found is not None
    assert found > 0.9
    assert calibration_error(confidence, gold.iou[A]) < 0.05
    fresh = planted(1)
    head = learnt.heads["a"]
    again = head.expected_iou(fresh.features[A], np.zeros(fresh.num_boxes, np.float32))
    on_others = auroc(again, fresh.iou[A])
    assert on_others is not None
    assert on_others > 0.9
    assert np.abs(again - fresh.iou[A]).mean() < 0.12


def test_noise_and_what_images_have_in_common_are_not_learnt() -> None:
    """Boxes of an image share their IoU and signals that mark it: a leak would look like skill."""
    rng, num_images = np.random.default_rng(2), 60
    images = np.repeat(np.arange(num_images), 5)
    iou = np.where(rng.random(num_images) < 0.5, 0.95, 0.4)[images]
    marks = rng.normal(size=(num_images, 3))[images]
    gold = gold_of({A: iou.astype(np.float32)}, {A: marks.astype(np.float32)}, images)
    found = fitted(gold)
    skill = auroc(found.confidence[A], gold.iou[A])
    assert skill is not None
    assert abs(skill - 0.5) < 0.15
    # Seen images are told apart, or the test would show nothing.
    seen = auroc(found.heads["a"].raw(gold.features[A]), gold.iou[A])
    assert seen is not None
    assert seen > 0.65


def test_all_boxes_of_an_image_are_in_one_fold() -> None:
    images = np.random.default_rng(3).integers(0, 40, 300)
    folds = deal(images, 0)
    assert all(len(set(folds[images == image])) == 1 for image in range(40))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert np.bincount(folds).min() > 30
    assert (deal(images, 1) != folds).any()


# -- signals that say nothing --------------------------------------------------------------------


def test_a_signal_that_was_constant_in_gold_says_nothing_elsewhere(learnt: Fitted) -> None:
    values = planted(4).features[A]
    other = values.copy()
    other[:, 2] = np.linspace(-100, 100, len(other))
    head = learnt.heads["a"]
    np.testing.assert_allclose(head.raw(other), head.raw(values), atol=1e-6)


def test_a_signal_that_nobody_gives_says_nothing() -> None:
    gold = planted(0)
    features = gold.features[A].copy()
    features[:, 2] = np.nan
    features[::7, 1] = np.nan
    found = fitted(gold_of(gold.iou, {A: features}, np.arange(300) // 3))
    assert np.isfinite(found.confidence[A]).all()
    known = features.copy()
    known[:, 2] = 5
    head = found.heads["a"]
    np.testing.assert_array_equal(head.raw(known), head.raw(features))
    skill = auroc(found.confidence[A], gold.iou[A])
    assert skill is not None
    assert skill > 0.9


def test_iou_that_never_differs() -> None:
    gold = planted(0, 60)
    found = fitted(gold_of({A: np.full(60, 0.8, np.float32)}, gold.features, np.arange(60)))
    np.testing.assert_allclose(found.confidence[A], 0.8, atol=0.02)


# -- little gold ---------------------------------------------------------------------------------


def test_two_images_are_enough_to_fit() -> None:
    gold = planted(0, 40, per_image=20)
    assert np.isfinite(fitted(gold).confidence[A]).all()


def test_a_teacher_that_drew_for_one_image_alone_has_no_head() -> None:
    """Nothing could be said of it out of fold."""
    gold = planted(0, 60)
    rare = np.full(60, NAN, np.float32)
    rare[:3] = 0.9
    both = gold_of(
        {**gold.iou, B: rare}, {**gold.features, B: gold.features[A]}, np.arange(60) // 3
    )
    found = fitted(both)
    assert sorted(found.heads) == ["a"]
    assert list(found.confidence) == [A]


def test_more_gold_than_needed_is_cut_by_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.confidence import fit as module

    monkeypatch.setattr(module, "_MAX_BOXES", 100)
    found = fitted(planted(0, 150, per_image=7)).gold
    assert 80 < found.num_boxes <= 100
    names, counts = np.unique(found.words("image_id"), return_counts=True)
    assert all(count == 7 or name == "image 21" for name, count in zip(names, counts, strict=True))


def test_the_same_seed_gives_the_same_bytes(learnt: Fitted) -> None:
    assert bytes_of(fitted(planted(0))) == bytes_of(learnt)
    assert bytes_of(fitted(planted(0), seed=1)) != bytes_of(learnt)


# -- several outputs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several() -> Fitted:
    """`a` is good in the even boxes, `b` in the odd ones, `a.1` is bad and often not there."""
    rng, size = np.random.default_rng(6), 240
    signal = {output: rng.normal(size=(size, 3)).astype(np.float32) for output in (A, A1, B)}
    good = {A: np.arange(size) % 2 == 0, A1: np.zeros(size, bool), B: np.arange(size) % 2 == 1}
    iou = {}
    for output, values in signal.items():
        values[:, 0] = good[output] + rng.normal(size=size) * 0.1
        iou[output] = np.where(good[output], 0.9, 0.4).astype(np.float32)
    iou[A1][::2] = NAN
    iou[B][5] = NAN
    return fitted(gold_of(iou, signal, np.arange(size) // 2))


def test_the_better_output_is_taken(several: Fitted) -> None:
    _, iou = best_of(several.taken, several.confidence, several.gold.iou)
    assert iou.mean() > 0.88


def test_confidence_is_there_where_an_output_is(several: Fitted) -> None:
    for output in (A, A1, B):
        known = np.isfinite(several.gold.iou[output])
        np.testing.assert_array_equal(np.isfinite(several.confidence[output]), known)
        values = several.confidence[output][known]
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("seed", [0, 3])
def test_what_is_taken_promises_no_more_than_it_holds(seed: int) -> None:
    """Of eight outputs, the one with the highest confidence is the luckiest, too."""
    rng, size = np.random.default_rng(seed), 120
    outputs = [Output(teacher=name, candidate=0) for name in "abcdefgh"]
    signals = {output: rng.normal(size=(size, 3)).astype(np.float32) for output in outputs}
    iou = {
        output: np.clip(0.5 + 0.12 * values[:, 0] + 0.25 * rng.normal(size=size), 0, 1).astype(
            np.float32
        )
        for output, values in signals.items()
    }
    found = fitted(gold_of(iou, signals, np.arange(size)))
    best, true = best_of(found.taken, found.confidence, found.gold.iou)
    assert abs(best.mean() - true.mean()) < 0.01  # 0.035 and 0.041 without the last curve


# -- curves and shifts ---------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3, 3, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=80
    )
)
def test_a_curve_never_falls(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    curve = fit_curve(x, y)
    values = curve(np.linspace(-5, 5, 200).astype(np.float32))
    assert (np.diff(values) >= -1e-6).all()
    assert np.isfinite(values).all()
    assert (np.diff(curve.x) >= 0).all()


def test_a_curve_finds_the_line_and_is_flat_where_nothing_rises() -> None:
    rng = np.random.default_rng(7)
    x = rng.random(4000).astype(np.float32)
    curve = fit_curve(x, (0.2 + 0.5 * x + 0.05 * rng.normal(size=4000)).astype(np.float32))
    inside = np.linspace(0.05, 0.95, 10).astype(np.float32)
    np.testing.assert_allclose(curve(inside), 0.2 + 0.5 * inside, atol=0.02)
    falling = fit_curve(x, (1 - x).astype(np.float32))
    np.testing.assert_allclose(falling(inside), 0.5, atol=0.02)
    unknown = fit_curve(np.append(x, np.nan).astype(np.float32), np.append(x, 0).astype(np.float32))
    np.testing.assert_allclose(unknown(inside), inside, atol=0.02)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 12), st.sampled_from(["x", "y", "z"]), st.floats(-1, 1, width=32)
    ),
    min_size=2,
    max_size=60,
)  # fmt: skip


@settings(deadline=None)
@given(ROWS)
def test_shifts_are_those_of_a_slow_loop(rows: list[tuple[int, str, float]]) -> None:
    category = {box: name for box, name, _ in reversed(rows)}  # a box has one category
    of_box = {box: np.mean([value for other, _, value in rows if other == box]) for box in category}
    groups = {
        name: [of_box[box] for box in of_box if category[box] == name]
        for name in set(category.values())
    }
    n, num_groups = len(of_box), len(groups)
    means = {name: float(np.mean(values)) for name, values in groups.items()}
    within = sum((v - means[name]) ** 2 for name, values in groups.items() for v in values)
    within /= max(1, n - num_groups)
    between = sum(len(values) * means[name] ** 2 for name, values in groups.items()) / n
    between -= within * num_groups / n
    found = fit_shifts(
        np.array([category[box] for box, _, _ in rows], dtype=object),
        np.array([value for _, _, value in rows], np.float32),
        np.array([box for box, _, _ in rows], np.int64),
    )
    if abs(between) < 1e-6:
        return
    if between < 0:
        assert found == {}
        return
    assert set(found) == set(groups)
    for name, values in groups.items():
        expected = means[name] * len(values) / (len(values) + within / between)
        assert found[name] == pytest.approx(expected, abs=2e-5)


def test_small_categories_are_shrunk_more() -> None:
    rng = np.random.default_rng(9)
    names = np.array(["many"] * 500 + ["few"] * 4 + ["rest"] * 500, dtype=object)
    residuals = np.concatenate([np.full(504, 0.1), np.full(500, -0.1)])
    residuals += rng.normal(size=1004) * 0.2
    residuals[500:504] = [0.3, -0.1, 0.3, -0.1]  # a mean of 0.1, as the many have
    found = fit_shifts(names, residuals.astype(np.float32), np.arange(1004))
    assert found["many"] == pytest.approx(0.1, abs=0.02)
    assert 0 < found["few"] < 0.8 * found["many"]


def test_one_category_and_no_difference() -> None:
    rng = np.random.default_rng(11)
    alike = fit_shifts(
        np.array(["x"] * 300 + ["y"] * 300, dtype=object),
        (rng.normal(size=600) * 0.2).astype(np.float32), np.arange(600),
    )  # fmt: skip
    assert all(abs(shift) < 0.03 for shift in alike.values())
    one = fit_shifts(np.array(["x"] * 9, dtype=object), np.zeros(9, np.float32), np.arange(9))
    assert one.get("x", 0.0) == 0
    assert math.isfinite(sum(one.values()))
