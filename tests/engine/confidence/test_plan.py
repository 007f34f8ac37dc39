"""Plans: the laxest threshold that meets a target, by brute force; and what is said of none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.confidence.gold import GOLD_SCHEMA
from engine.confidence.gold_finder import GoldChoice, GoldFinder
from engine.confidence.plan import Plan, keeps, make_plan
from engine.confidence.tally import NUM_BINS, Tally, bins_of
from engine.policy import Floor, Policy, Target
from manifests.errors import InputError
from tests.engine.confidence.counted import chosen

NO_GOLD = GoldChoice(
    bins=np.zeros(0, np.int64), categories=np.zeros(0, np.int64), iou=np.zeros(0, np.float32),
    images=np.zeros(0, np.int64), certifies=np.zeros(0, bool),
)  # fmt: skip


def policy(floor: Floor | None = None, **target: Any) -> Policy:
    return Policy(name="test", target=Target(**target) if target else None, floor=floor)


def tally_of(confidence: list[float], categories: list[str] | None = None) -> Tally:
    tally = Tally()
    tally.add(chosen(confidence, categories))
    return tally


def gold_of(
    confidence: Any,
    iou: Any,
    *,
    images: Any = None,
    certifies: Any = True,
) -> GoldChoice:
    """Gold of the tally's first category; each mask on an image of its own unless told."""
    size = len(confidence)
    return GoldChoice(
        bins=bins_of(np.asarray(confidence, np.float32)), categories=np.zeros(size, np.int64),
        iou=np.asarray(iou, np.float32),
        images=np.arange(size) if images is None else np.asarray(images),
        certifies=np.broadcast_to(np.asarray(certifies), (size,)),
    )  # fmt: skip


# -- expected mean IoU ---------------------------------------------------------------------------

MASKS = st.lists(
    st.tuples(st.integers(0, 1000).map(lambda n: n / 1000), st.sampled_from(["shoe", "bag"])),
    min_size=1,
    max_size=30,
)
FLOOR = st.none() | st.builds(
    Floor, min_share=st.sampled_from([0.0, 0.2, 0.5]), min_masks=st.integers(0, 3)
)


@settings(deadline=None)
@given(MASKS, FLOOR, st.floats(0.05, 0.95))
def test_a_mean_target_takes_the_laxest_threshold_that_meets_it(
    masks: list[tuple[float, str]], floor: Floor | None, target: float
) -> None:
    values, names = [value for value, _ in masks], [name for _, name in masks]
    tally = tally_of(values, names)
    confidence = np.array(values, np.float32)
    codes = np.array([tally.categories[name] for name in names], np.int64)
    floors = tally.floors(floor)
    means = {}
    for threshold in range(NUM_BINS):
        kept = keeps(Plan(threshold=threshold, floors=floors), confidence, codes)
        if kept.any():
            means[threshold] = confidence[kept].astype(np.float64).mean()
    near = any(abs(mean - target) < 1e-9 for mean in means.values())
    expected = min((t for t, mean in means.items() if mean >= target), default=None)
    if near:
        return
    if expected is None:
        with pytest.raises(InputError, match="expected masks with a mean IoU of"):
            make_plan(policy(floor, mean_iou=target), tally, NO_GOLD)
    else:
        found = make_plan(policy(floor, mean_iou=target), tally, NO_GOLD)
        assert found.threshold == expected
        assert found.tested is None


def test_a_mean_that_is_out_of_reach_says_the_best() -> None:
    tally = tally_of([0.5, 0.6, 0.8, 0.8])
    message = (
        r"policy 'test': expected masks with a mean IoU of 0\.9, but the best 2 of 4 can be "
        r"expected to have 0\.800; set target\.mean_iou=0\.8 or less$"
    )
    with pytest.raises(InputError, match=message):
        make_plan(policy(mean_iou=0.9), tally, NO_GOLD)
    with pytest.raises(InputError, match=r"or less, or take out \[floor\]"):
        make_plan(policy(Floor(min_masks=1), mean_iou=0.9), tally, NO_GOLD)


def test_what_a_message_proposes_can_be_had() -> None:
    tally = tally_of([0.5, 0.66, 0.8121, 0.8139])
    with pytest.raises(InputError) as caught:
        make_plan(policy(mean_iou=0.9), tally, NO_GOLD)
    proposed = float(str(caught.value).split("target.mean_iou=")[1].split()[0])
    assert make_plan(policy(mean_iou=proposed), tally, NO_GOLD).threshold > 0


def test_without_a_target_everything_is_kept() -> None:
    plan = make_plan(policy(), tally_of([0.1, 0.9]), NO_GOLD)
    confidence = np.array([0.0, 0.1, np.nan], np.float32)
    assert keeps(plan, confidence, np.zeros(3, np.int64)).tolist() == [True, True, False]


@pytest.mark.parametrize("target", [{"mean_iou": 0.8}, {"max_risk": 0.05}])
def test_nothing_to_choose_from_is_said(target: dict[str, float]) -> None:
    broken = Tally()
    broken.add(chosen([0.9, 0.8], reason=["low_box_iou", "too_small"]))
    with pytest.raises(InputError, match=r"of the 2 boxes .* none meets the rules; loosen"):
        make_plan(policy(**target), broken, NO_GOLD)
    with pytest.raises(InputError, match=r"of the 0 boxes .* without a human one"):
        make_plan(policy(**target), Tally(), NO_GOLD)


# -- certified risk ------------------------------------------------------------------------------


def drawn(seed: int, size: int, *, worst: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and IoUs that are bad the oftener the lower the confidence is."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(size)
    return confidence, np.where(rng.random(size) < worst * (1 - confidence) ** 2, 0.3, 0.9)


def test_a_certificate_is_as_lax_as_gold_allows() -> None:
    confidence, _ = drawn(0, 4000)
    tally = tally_of(confidence.tolist())
    gold = gold_of(*drawn(1, 1500), certifies=np.arange(1500) % 2 == 0)
    strict, lax = (
        make_plan(policy(max_risk=risk), tally, gold) for risk in (0.05, 0.1)
    )  # fmt: skip
    assert strict.tested is not None
    assert lax.tested is not None
    assert 0 < lax.threshold < strict.threshold < 900
    for plan, risk in ((strict, 0.05), (lax, 0.1)):
        assert plan.tested is not None
        kept = gold.certifies & (gold.bins >= plan.threshold)
        assert plan.tested.holds
        assert plan.tested.threshold == plan.threshold / 1000
        assert plan.tested.gold.num_kept == kept.sum()
        assert plan.tested.gold.num_bad == (gold.iou[kept] < 0.7).sum()
        assert plan.tested.population == (bins_of(confidence) >= plan.threshold).sum()
        assert plan.tested.upper_bound <= risk
        # Other gold says where to start, so all of delta is for one sequence.
        assert plan.tested.level == 0.05


def test_without_gold_that_calibrates_delta_is_parted() -> None:
    tally = tally_of(drawn(0, 4000)[0].tolist())
    plan = make_plan(policy(max_risk=0.1), tally, gold_of(*drawn(1, 800)))
    assert plan.tested is not None
    assert plan.tested.level == 0.05 / 3


def test_gold_that_calibrates_never_certifies() -> None:
    tally = tally_of(drawn(0, 4000)[0].tolist())
    confidence, iou = drawn(1, 1000)
    with pytest.raises(InputError, match=r"at least 59 kept masks .* but there are 0; add gold"):
        make_plan(policy(max_risk=0.05), tally, gold_of(confidence, iou, certifies=False))
    # Its IoUs may be as good as they like: what certifies is bad.
    certifies = np.arange(1000) % 2 == 0
    worse = np.where(certifies, 0.1, 0.99)
    with pytest.raises(InputError, match="can support is 100"):
        make_plan(policy(max_risk=0.05), tally, gold_of(confidence, worse, certifies=certifies))


def test_too_little_gold_is_refused_with_its_number() -> None:
    tally = tally_of(drawn(0, 1000)[0].tolist())
    gold = gold_of(np.full(58, 0.9), np.full(58, 0.9))
    message = (
        r"certifying at most 5\.0% takes at least 59 kept masks with gold that certifies, but "
        r"there are 58; add gold \('maskmill gold propose'\), or set a larger target\.max_risk"
    )
    with pytest.raises(InputError, match=message):
        make_plan(policy(max_risk=0.05), tally, gold)


def test_what_cannot_be_certified_says_what_can_and_how_much_more_it_takes() -> None:
    tally = tally_of([0.9] * 1000)
    gold = gold_of(np.full(100, 0.9), [0.3, 0.3, *[0.9] * 98])  # 2 of 100, each its own image
    with pytest.raises(InputError) as caught:
        make_plan(policy(max_risk=0.05), tally, gold)
    said = str(caught.value)
    assert "policy 'test': expected at most 5.0% of the kept masks under IoU 0.7" in said
    assert "the most that 100 gold masks (2 bad) can support is 6." in said
    assert "at confidence 0.9 (100% kept)" in said
    assert "more like them would do ('maskmill gold propose')" in said
    more = int(said.split("about ")[1].split(" more")[0].replace(",", ""))
    total = 100 + more
    iou = np.where(np.arange(total) < round(total * 0.02), 0.3, 0.9)
    enough = gold_of(np.full(total, 0.9), iou)
    assert make_plan(policy(max_risk=0.05), tally, enough).tested is not None
    proposed = float(said.split("target.max_risk=")[1].split(",")[0])
    assert proposed == 0.07
    assert make_plan(policy(max_risk=proposed), tally, gold).tested is not None
    with pytest.raises(InputError):
        make_plan(policy(max_risk=proposed - 0.01), tally, gold)


def test_what_is_said_of_a_failed_test_never_contradicts_it() -> None:
    """Other gold chose where to begin, and that failed: what stricter ones would do is no news."""
    tally = tally_of([0.9] * 500 + [0.5] * 500)
    confidence = np.repeat([0.9, 0.5], 200)
    certifies = np.arange(400) % 2 == 0
    bad = (confidence == 0.5) & certifies & (np.arange(400) % 20 == 0)  # 10 of 200, all at 0.5
    gold = gold_of(confidence, np.where(bad, 0.3, 0.9), certifies=certifies)
    with pytest.raises(InputError) as caught:
        make_plan(policy(max_risk=0.05), tally, gold)
    said = str(caught.value)
    assert "the most that 200 gold masks (10 bad) can support is 8." in said
    assert "at confidence 0.5 (100% kept)" in said


def test_a_risk_above_1_is_never_proposed() -> None:
    tally = tally_of([0.9] * 100)
    with pytest.raises(InputError) as caught:
        make_plan(policy(max_risk=0.05), tally, gold_of(np.full(80, 0.9), np.full(80, 0.1)))
    assert "target.max_risk=" not in str(caught.value)
    assert "more like them" not in str(caught.value)  # more bad masks do not help
    assert str(caught.value).endswith("(100% kept); add a teacher")


def test_masks_of_few_images_certify_less_than_of_many() -> None:
    tally = tally_of([0.9] * 1000)
    confidence, iou = np.full(120, 0.9), np.full(120, 0.9)
    assert make_plan(policy(max_risk=0.05), tally, gold_of(confidence, iou)).tested is not None
    few = gold_of(confidence, iou, images=np.arange(120) // 10)
    with pytest.raises(InputError, match="but the most that 120 gold masks"):
        make_plan(policy(max_risk=0.05), tally, few)


def test_a_floor_is_certified_with_what_it_keeps() -> None:
    tally = tally_of([0.9] * 500 + [0.2] * 500, ["shoe"] * 500 + ["bag"] * 500)
    shoe, bag = tally.categories["shoe"], tally.categories["bag"]
    gold = GoldChoice(
        bins=bins_of(np.repeat(np.array([0.9, 0.2], np.float32), 200)),
        categories=np.repeat([shoe, bag], 200),
        iou=np.repeat(np.array([0.9, 0.1], np.float32), 200),
        images=np.arange(400), certifies=np.ones(400, bool),
    )  # fmt: skip
    without = make_plan(policy(max_risk=0.05), tally, gold)
    assert without.tested is not None
    assert without.tested.population == 500
    # The floor would keep bad bags at any threshold, and the certificate speaks of them, too.
    with pytest.raises(InputError, match="can support is"):
        make_plan(policy(Floor(min_share=0.2), max_risk=0.05), tally, gold)


# -- gold that the policy chooses ----------------------------------------------------------------


def gold_rows(*rows: tuple[int, str, float, float, str]) -> pa.Table:
    """(row, teacher, IoU, confidence, role) in shard `s`, each on an image of its own."""
    return pa.Table.from_pylist(
        [
            {
                "shard": "s", "row": row, "image_id": f"image {row}", "annotation_id": f"{row}",
                "source": "set", "category": "shoe", "role": role, "teacher": teacher,
                "candidate": 0, "iou": iou, "confidence": confidence, "chosen": True,
            }
            for row, teacher, iou, confidence, role in rows
        ],
        schema=GOLD_SCHEMA,
    )  # fmt: skip


def test_gold_is_what_the_policy_chooses_and_keeps() -> None:
    found = chosen([0.9, 0.8, 0.7, 0.6], reason=[None, "too_small", None, None])
    table = gold_rows(
        (0, "a", 0.95, 0.1, "certify"), (0, "b", 0.2, 0.9, "certify"),
        (1, "a", 0.85, 0.8, "certify"),  # breaks a rule
        (2, "a", 0.5, 0.33, "calibrate"),
        (3, "b", 0.4, 0.6, "certify"),  # another output is taken
    )  # fmt: skip
    finder = GoldFinder(table)
    finder.add("s", found)
    finder.add("another shard", found)
    tally = Tally()
    tally.add(found)
    gold = finder.choice(tally)
    assert gold.iou.tolist() == pytest.approx([0.95, 0.5])
    assert gold.certifies.tolist() == [True, False]
    # Of gold that certifies as the layer has it, of gold that calibrates out of fold.
    assert gold.bins.tolist() == [900, 330]
    assert len(set(gold.images.tolist())) == 2


def test_no_gold_is_no_gold() -> None:
    finder = GoldFinder(GOLD_SCHEMA.empty_table())
    finder.add("s", chosen([0.9]))
    assert len(finder.choice(Tally()).iou) == 0
