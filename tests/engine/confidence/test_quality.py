"""What a commit says of what a filter by confidence keeps, and what nobody should miss of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.confidence import quality as module
from engine.confidence.calibrator import Calibrator
from engine.confidence.certificate import GoldKept
from engine.confidence.certificate import Tested as Outcome
from engine.confidence.plan import Plan
from engine.confidence.quality import (
    quality_of,
    quality_sentences,
)
from engine.confidence.tally import NUM_BINS, Tally
from engine.policy import Floor, Policy, Target, Weights
from manifests.dataset import Dataset
from manifests.prior import PRIOR_NOTE, is_by_prior
from tests.engine.confidence.counted import chosen
from tests.engine.confidence.known_confidence import knowing
from tests.engine.confidence.planted_masks import Plan as Photos
from tests.engine.confidence.planted_masks import memory, planted
from tests.engine.confidence.test_calibrator import calibrator

NAN = float("nan")
ID = "12ab" * 16


def tally_of() -> Tally:
    """Three shoes and two bags; one shoe breaks a rule, one more box has no mask."""
    tally = Tally()
    tally.add(
        chosen(
            [0.9, 0.6, 0.8, 0.7, 0.5, NAN], ["shoe", "shoe", "shoe", "bag", "bag", "bag"],
            reason=[None, None, "too_small", None, None, "no_mask"],
        )
    )  # fmt: skip
    return tally


def quality(
    plan: Plan | None = None, *, made_by: Calibrator | None = None, tally: Tally | None = None,
    **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    counted = tally or tally_of()
    floors = np.full(len(counted.categories), NUM_BINS, np.int64)
    return quality_of(
        Policy(name="test", teachers=("a",), **fields), plan or Plan(threshold=650, floors=floors),
        counted, made_by or calibrator(), ID,
    )  # fmt: skip


def test_the_figures_of_what_is_kept() -> None:
    found = quality(target=Target(mean_iou=0.8))
    assert {key: found[key] for key in found if key != "categories"} == {
        "calibrator": ID, "is_prior": False, "threshold": 0.65, "num_rows": 5, "num_kept": 2,
        "kept_share": 0.4, "expected_mean_iou": 0.8, "certificate": None, "notes": [],
    }  # fmt: skip
    assert found["categories"] == {
        "shoe": {"num_rows": 3, "num_kept": 1, "expected_mean_iou": 0.9, "threshold": 0.65},
        "bag": {"num_rows": 2, "num_kept": 1, "expected_mean_iou": 0.7, "threshold": 0.65},
    }  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_floor_gives_a_category_a_threshold_of_its_own() -> None:
    tally = tally_of()
    floors = tally.floors(Floor(min_masks=2))
    found = quality(Plan(threshold=850, floors=floors), target=Target(mean_iou=0.8))
    assert {name: one["threshold"] for name, one in found["categories"].items()} == {
        "shoe": 0.6, "bag": 0.5,
    }  # fmt: skip
    assert found["num_kept"] == 4
    assert found["expected_mean_iou"] == pytest.approx((0.9 + 0.6 + 0.7 + 0.5) / 4)


def test_a_category_of_which_nothing_is_kept_has_no_mean() -> None:
    floors = np.full(2, NUM_BINS, np.int64)
    found = quality(Plan(threshold=750, floors=floors), target=Target(mean_iou=0.8))
    assert found["categories"]["bag"] == {
        "num_rows": 2, "num_kept": 0, "expected_mean_iou": None, "threshold": 0.75,
    }  # fmt: skip


def test_what_nobody_should_miss() -> None:
    floors = np.full(2, NUM_BINS, np.int64)
    none = quality(Plan(threshold=1000, floors=floors), target=Target(mean_iou=0.8))
    assert none["notes"] == ["policy 'test' keeps none of 5 masks"]
    assert none["expected_mean_iou"] is None
    everything = Tally()
    everything.add(chosen([0.9, 0.8]))
    kept = Plan(threshold=0, floors=floors[:1])
    assert quality(kept, tally=everything, weights=Weights(by="confidence"))["notes"] == [
        "policy 'test' keeps all of 2 masks"
    ]
    prior = replace(calibrator(), gold=None)
    assert quality(made_by=prior)["notes"] == [PRIOR_NOTE]
    assert quality(made_by=prior)["is_prior"]
    nothing = Tally()
    empty = quality(Plan(threshold=0, floors=floors[:0]), tally=nothing)
    assert (empty["num_rows"], empty["kept_share"], empty["notes"]) == (0, 0.0, [])


def test_a_certificate_says_what_it_speaks_of() -> None:
    floors = np.full(2, NUM_BINS, np.int64)
    gold = GoldKept(num_kept=1200, num_bad=31, num_images=400, design_effect=1.23456)
    outcome = Outcome(threshold=0.65, population=52_000, gold=gold, level=0.05, holds=True)
    target = Target(max_risk=0.05, iou_bound=0.75, delta=0.1)
    plan = Plan(threshold=650, floors=floors, tested=outcome)
    found = quality(plan, target=target)["certificate"]
    assert found["sentence"] == (
        "with 90% confidence at most 5.0% of the 52,000 kept masks without gold have an IoU under "
        "0.75; 31 of 1,200 kept gold masks on 400 images do"
    )
    assert {key: found[key] for key in found if key not in {"sentence", "upper_bound"}} == {
        "max_risk": 0.05, "iou_bound": 0.75, "delta": 0.1, "threshold": 0.65, "num_gold": 1200,
        "num_images": 400, "num_bad": 31, "population": 52_000, "design_effect": 1.235,
    }  # fmt: skip
    assert 31 / 1200 < found["upper_bound"] == round(outcome.upper_bound, 4) < 0.05


def test_sentences_for_people() -> None:
    assert quality_sentences({}) == []
    [kept] = quality_sentences(quality())
    assert kept == "kept 2 of 5 masks without a human one (40.0%), expected mean IoU 0.800"
    none = quality(Plan(threshold=1000, floors=np.full(2, NUM_BINS)))
    assert quality_sentences(none)[0].endswith("expected mean IoU -")
    certified = {**quality(), "certificate": {"sentence": "it holds"}}
    assert quality_sentences(certified)[1] == "certificate: it holds"


def test_so_many_categories_that_a_commit_would_grow_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_CATEGORIES", 2)
    tally = Tally()
    tally.add(chosen([0.9] * 6, ["hat", "bag", "bag", "shoe", "shoe", "shoe"]))
    found = quality(Plan(threshold=0, floors=np.full(3, NUM_BINS, np.int64)), tally=tally)
    assert list(found["categories"]) == ["shoe", "bag"]
    assert found["num_rows"] == 6


@pytest.mark.parametrize("is_prior", [True, False])
def test_a_commit_of_calibrate_says_that_it_is_a_prior(is_prior: bool) -> None:
    plan = Photos(num_images=2, is_gold=lambda number: not is_prior)
    made = knowing(planted(memory("notes"), plan), is_prior=is_prior)
    assert is_by_prior(made) == is_prior
    assert not is_by_prior(Dataset(made.store, made.commit.parents[0]))
