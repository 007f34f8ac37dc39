"""Certificates: exact tails, no false statement more often than promised, also of alike masks."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from engine.confidence import certificate
from engine.confidence.certificate import (
    GoldKept,
    gold_kept,
    least_gold,
    likeness_of,
    p_value,
    starts_of,
    upper_bound,
)

RISK, DELTA = 0.05, 0.05


def alone(n: int, k: int) -> GoldKept:
    """Gold of one mask an image."""
    return GoldKept(num_kept=n, num_bad=k, num_images=n, design_effect=1.0)


# -- the tail ------------------------------------------------------------------------------------


def by_enumeration(n: int, k: int, max_risk: float, population: int) -> float:
    """The largest chance of at most k bad, over all worlds in which too many others are bad."""
    total, worst = n + population, 0.0
    for bad in range(total + 1):
        if bad - k <= max_risk * population + 1e-9:
            continue  # with k bad in the gold, few enough of the others would be
        draws = list(combinations(range(total), n))
        worst = max(worst, sum(sum(one < bad for one in draw) <= k for draw in draws) / len(draws))
    return worst


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.01, 0.99), st.data())
def test_the_p_value_is_the_worst_case_counted_out(
    n: int, population: int, max_risk: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n))
    expected = by_enumeration(n, k, max_risk, population)
    found = p_value(n, k, max_risk=max_risk, population=population)
    assert found == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.5), st.integers(0, 3000), st.data())
def test_the_p_value_falls_with_more_gold_fewer_bad_and_more_risk(
    n: int, max_risk: float, population: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n - 1))
    here = p_value(n, k, max_risk=max_risk, population=population)
    assert 0 <= here <= 1
    assert p_value(n, k + 1, max_risk=max_risk, population=population) >= here - 1e-12
    assert p_value(n + 1, k, max_risk=max_risk, population=population) <= here + 1e-12
    assert p_value(n, k, max_risk=max_risk * 1.5, population=population) <= here + 1e-12


@pytest.mark.parametrize(("n", "k"), [(60, 0), (120, 2), (500, 15), (500, 30)])
def test_many_others_make_it_binomial(n: int, k: int) -> None:
    expected = binom.cdf(k, n, RISK)
    assert p_value(n, k, max_risk=RISK, population=0) == pytest.approx(expected)
    assert p_value(n, k, max_risk=RISK, population=10**8) == pytest.approx(expected, rel=1e-3)
    small = p_value(n, k, max_risk=RISK, population=2 * n)
    assert abs(small - expected) > 1e-3 * expected  # so it is not the same for few


def test_no_gold_refutes_nothing_and_no_others_are_never_too_many() -> None:
    assert p_value(0, 0, max_risk=RISK, population=100) == 1
    assert p_value(5, 5, max_risk=0.9, population=3) == p_value(5, 5, max_risk=0.9, population=4)
    assert p_value(5, 0, max_risk=1 - 1e-12, population=10) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.sampled_from([0, 37, 5000]), st.data())
def test_the_upper_bound_is_where_the_test_turns(
    n: int, population: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n))
    bound = upper_bound(n, k, delta=DELTA, population=population)
    assert k / n <= bound <= 1
    if bound < 1:
        assert p_value(n, k, max_risk=bound, population=population) <= DELTA
        step = 1e-6 if population == 0 else 1.01 / population
        if bound - step > k / n:
            assert p_value(n, k, max_risk=bound - step, population=population) > DELTA


def test_the_bound_of_a_binomial_is_clopper_and_pearsons() -> None:
    from scipy.stats import beta

    for n, k in ((59, 0), (200, 4), (30, 29)):
        expected = beta.ppf(1 - DELTA, k + 1, n - k)
        assert upper_bound(n, k, delta=DELTA, population=0) == pytest.approx(expected, abs=1e-6)
    assert upper_bound(0, 0, delta=DELTA, population=0) == 1
    assert upper_bound(20, 20, delta=DELTA, population=0) == 1


@pytest.mark.parametrize("max_risk", [0.01, 0.05, 0.1, 0.3])
def test_the_least_gold_certifies_and_one_less_does_not(max_risk: float) -> None:
    least = least_gold(max_risk, DELTA)
    assert p_value(least, 0, max_risk=max_risk, population=0) <= DELTA
    assert p_value(least - 1, 0, max_risk=max_risk, population=0) > DELTA
    assert least_gold(0.05, 0.05) == 59


# -- masks of one image --------------------------------------------------------------------------


def kept(is_bad: list[bool], images: list[int], *, likeness: float = 0.0) -> GoldKept:
    everything = np.ones(len(is_bad), dtype=bool)
    return gold_kept(everything, np.array(is_bad), np.array(images), likeness=likeness)


def test_one_mask_an_image_counts_as_one() -> None:
    found = kept([True] * 3 + [False] * 17, list(range(20)), likeness=1.0)
    assert found.design_effect == pytest.approx(1)
    assert (found.num_kept, found.num_bad, found.num_images) == (20, 3, 20)
    assert kept([False] * 20, list(range(20)), likeness=1.0).effective == (20, 0)


@pytest.mark.parametrize("size", [2, 5, 10])
def test_masks_that_are_all_the_same_in_an_image_count_as_one(size: int) -> None:
    num_images = 50
    bad = np.repeat(np.arange(num_images) % 10 == 0, size)
    images = np.repeat(np.arange(num_images) * 7 + 3, size)
    found = gold_kept(np.ones(len(bad), bool), bad, images, likeness=0.0)
    assert found.design_effect == pytest.approx(size, rel=0.021)
    n, k = found.effective
    assert num_images - 2 <= n <= num_images
    assert k == 5
    assert likeness_of(bad, images) == pytest.approx(1.0, abs=0.01)


def test_masks_that_differ_in_an_image_count_in_full() -> None:
    bad = np.tile([True, False, False, False], 40)  # one in each image: less than by chance
    images = np.repeat(np.arange(40), 4)
    assert gold_kept(np.ones(160, bool), bad, images, likeness=0.0).effective == (160, 40)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_design_effect_is_that_of_a_slow_loop(rows: list[tuple[int, bool]]) -> None:
    images, bad = [image for image, _ in rows], [is_bad for _, is_bad in rows]
    n, k, names = len(rows), sum(bad), sorted(set(images))
    expected = 1.0
    if 1 < k < n and len(names) > 1:
        share, squares = k / n, 0.0
        for name in names:
            squares += sum(b - share for i, b in rows if i == name) ** 2
        variance = len(names) / (len(names) - 1) * squares / n**2
        expected = max(1.0, variance / (share * (1 - share) / (n - 1)))
    found = kept(bad, images)
    assert found.design_effect == pytest.approx(expected)
    n_effective, k_effective = found.effective
    assert n_effective <= n
    assert k_effective * found.design_effect >= k or k_effective == n_effective
    size = sum(images.count(name) ** 2 for name in names) / n
    seen = min(1.0, (expected - 1) / (size - 1)) if size > 1 else 0.0
    with_bad = len({image for image, is_bad in rows if is_bad})
    alike = (with_bad * seen + 5 * 0.5) / (with_bad + 5)
    with_likeness = kept(bad, images, likeness=0.5)
    assert with_likeness.design_effect == pytest.approx(max(expected, 1 + alike * (size - 1)))
    if size > 1:
        of_all = likeness_of(np.array(bad), np.array(images))
        assert of_all == pytest.approx((with_bad * seen + 1) / (with_bad + 1))


def test_no_bad_mask_at_all_does_not_say_that_masks_are_independent() -> None:
    nothing_bad, images = np.zeros(60, bool), np.repeat(np.arange(6), 10)
    likeness = likeness_of(nothing_bad, images)
    assert likeness == 1
    found = gold_kept(np.ones(60, bool), nothing_bad, images, likeness=likeness)
    assert found.effective == (6, 0)


def test_many_images_with_independent_bad_masks_show_that_they_are() -> None:
    rng = np.random.default_rng(5)
    images = np.repeat(np.arange(400), 5)
    assert likeness_of(rng.random(2000) < 0.1, images) < 0.06
    assert likeness_of(np.repeat(rng.random(400) < 0.1, 5), images) > 0.9


# -- sequences of thresholds ---------------------------------------------------------------------


def certified(
    golds: list[GoldKept], starts: list[int], populations: list[int] | None = None
) -> list[certificate.Tested]:
    return certificate.tested_thresholds(
        [1 - place / 100 for place in range(len(golds))], golds, populations or [0] * len(golds),
        max_risk=RISK, delta=DELTA, starts=starts,
    )  # fmt: skip


def test_nothing_is_certified_beyond_the_first_failure_of_its_own_start() -> None:
    good, bad = alone(400, 2), alone(400, 40)
    golds = [good, good, bad, good, bad, good]
    assert [tested.holds for tested in certified(golds, [0])] == [True, True, *[False] * 4]
    assert [tested.holds for tested in certified(golds, [0, 3])] == [
        True, True, False, True, False, False,
    ]  # fmt: skip
    assert [tested.holds for tested in certified(golds, [2])] == [False] * 6
    found = certified(golds, [0, 3, 5])
    assert {tested.level for tested in found} == {DELTA / 3}
    assert [tested.threshold for tested in found][:2] == [1.0, 0.99]


def test_a_bound_holds_at_the_level_that_it_was_tested_with() -> None:
    [tested] = certified([alone(200, 3)], [0], [1000])
    assert tested.holds
    expected = upper_bound(200, 3, delta=DELTA, population=1000)
    assert tested.upper_bound == expected < RISK


def test_without_other_gold_sequences_start_blind_and_with_it_where_most_is_to_be_won() -> None:
    assert starts_of([], 40, max_risk=RISK) == [0, 16, 28]
    assert starts_of([], 1, max_risk=RISK) == [0]
    others = [alone(20, 0), alone(100, 1), alone(300, 4), alone(500, 40)]
    assert starts_of(others, 4, max_risk=RISK) == [2]


def simulated(
    seed: int, *, num_runs: int, num_images: int, likeness: float, mean_size: float
) -> float:
    """Share of runs in which what is certified is false, of a dataset at the edge of its risk.

    Whole images are gold, drawn at random; confidence says something, but not all.
    """
    rng, num_false = np.random.default_rng(seed), 0
    for _ in range(num_runs):
        sizes = rng.geometric(1 / mean_size, num_images * 4)
        image = np.repeat(np.arange(len(sizes)), sizes)
        of_image, of_mask = rng.random(len(sizes)), rng.random(len(image))
        luck = np.where(rng.random(len(image)) < likeness, of_image[image], of_mask)
        confidence = rng.random(len(image))
        bad = luck < 0.16 * (1 - confidence)
        is_gold = image < num_images  # the images are exchangeable
        thresholds = np.arange(0.95, -0.01, -0.05)
        likeness_seen = likeness_of(bad[is_gold], image[is_gold])
        golds = [
            gold_kept(
                (confidence >= at)[is_gold], bad[is_gold], image[is_gold], likeness=likeness_seen
            )
            for at in thresholds
        ]
        others = [(confidence >= at) & ~is_gold for at in thresholds]
        found = certificate.tested_thresholds(
            thresholds.tolist(), golds, [int(other.sum()) for other in others],
            max_risk=RISK, delta=DELTA, starts=starts_of([], len(golds), max_risk=RISK),
        )  # fmt: skip
        num_false += any(
            tested.holds and bad[other].mean() > RISK
            for tested, other in zip(found, others, strict=True)
        )
    return num_false / num_runs


@pytest.mark.parametrize(
    ("likeness", "mean_size", "num_images"),
    [(0.0, 1.0, 300), (0.0, 5.0, 60), (0.3, 5.0, 60), (1.0, 10.0, 30)],
)
def test_what_is_certified_is_seldom_false(
    likeness: float, mean_size: float, num_images: int
) -> None:
    num_runs = 120
    share = simulated(
        3, num_runs=num_runs, num_images=num_images, likeness=likeness, mean_size=mean_size
    )
    assert share <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / num_runs)


@pytest.mark.parametrize("likeness", [0.0, 1.0])
def test_one_threshold_is_falsely_certified_as_seldom_as_promised(likeness: float) -> None:
    """Ten masks an image, 6% bad: if masks of an image are alike, 30 of 300 images say little."""
    rng, num_runs, num_false = np.random.default_rng(11), 1000, 0
    num_images, size = 30, 10
    images = np.repeat(np.arange(num_images), size)
    everything = np.ones(num_images * size, dtype=bool)
    for _ in range(num_runs):
        alike = rng.random(num_images)[images] < 0.06
        bad = alike if likeness else rng.random(len(images)) < 0.06
        gold = gold_kept(everything, bad, images, likeness=likeness_of(bad, images))
        num_false += p_value(*gold.effective, max_risk=RISK, population=0) <= DELTA
    assert num_false / num_runs <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / num_runs)


def test_enough_gold_of_good_masks_is_certified() -> None:
    """The other side: what holds with room to spare is not refused."""
    rng, images = np.random.default_rng(2), np.repeat(np.arange(100), 5)
    bad = rng.random(500) < 0.01
    gold = gold_kept(np.ones(500, bool), bad, images, likeness=likeness_of(bad, images))
    assert certified([gold], [0], [2000])[0].holds
