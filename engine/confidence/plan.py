"""From a policy's target to a threshold: by the expected mean IoU, or certified by gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.confidence.certificate import (
    GoldKept,
    Tested,
    gold_kept,
    least_gold,
    likeness_of,
    p_value,
    starts_of,
    tested_thresholds,
)
from engine.confidence.gold_finder import GoldChoice
from engine.confidence.outputs import Bools, Floats
from engine.confidence.roles import CALIBRATE, CERTIFY
from engine.confidence.tally import NUM_BINS, Tally, bins_of, is_kept, thresholds_to_test
from engine.policy import Policy, Target
from manifests.errors import InputError

Ints = NDArray[np.int64]
_NUM_LEVELS = 40
_MOST_WANTED = 1_000_000
_OTHER_RISKS = tuple(round(0.01 * step, 2) for step in range(1, 51))
"""Those that are tried when one cannot be certified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the line is.

    Attributes:
        threshold: the bin from which masks are kept; 0: all.
        floors: [C] the bin from which a category's masks stay in any case.
        tested: the certified threshold; None: nothing was to be certified.
    """

    threshold: int
    floors: Ints
    tested: Tested | None = None


def make_plan(policy: Policy, tally: Tally, gold: GoldChoice) -> Plan:
    """The laxest threshold that meets the target.

    Raises:
        InputError: none does; says the best that can be had.
    """
    floors = tally.floors(policy.floor)
    target = policy.target
    # A floor without a target is no floor: there is nothing that it saves masks from.
    if target is None:
        return Plan(threshold=0, floors=floors)
    if not tally.counts.any():
        raise InputError(
            f"policy '{policy.name}': a target expects masks to choose from, but of the "
            f"{int(tally.num_rows.sum()):,} boxes with a teacher's mask and without a human one "
            "none meets the rules; loosen the rules, or take out [target]"
        )
    if target.mean_iou is not None:
        return Plan(threshold=_by_mean(policy, tally, floors, target.mean_iou), floors=floors)
    return _certified(policy, tally, gold, floors)


def _by_mean(policy: Policy, tally: Tally, floors: Ints, mean_iou: float) -> int:
    kept, sums = tally.kept(floors)
    means = sums / np.maximum(kept, 1)
    reached = np.flatnonzero((means >= mean_iou) & (kept > 0))
    if not len(reached):
        best = int(np.argmax(np.where(kept > 0, means, -1)))
        raise InputError(
            f"policy '{policy.name}': expected masks with a mean IoU of {mean_iou:g}, but the best "
            f"{int(kept[best]):,} of {int(kept[0]):,} can be expected to have {means[best]:.3f}; "
            f"set target.mean_iou={np.floor(means[best] * 1000) / 1000:g} or less"
            f"{', or take out [floor]' if policy.floor else ''}"
        )
    return int(reached[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tests:
    """What gold says of each threshold that one might set, strict to lax.

    Attributes:
        places: the thresholds, as bins.
        populations: kept masks without gold.
        certify, calibrate: kept gold of either role; no `calibrate`: there is no such gold.
    """

    places: Sequence[int]
    populations: Sequence[int]
    certify: Sequence[GoldKept]
    calibrate: Sequence[GoldKept]

    def run(self, max_risk: float, delta: float) -> tuple[list[Tested], list[Tested]]:
        """All thresholds with enough gold and what came of them; and those where tests began."""
        least = least_gold(max_risk, delta)
        chosen = [n for n, gold in enumerate(self.certify) if gold.num_kept >= least]
        if not chosen:
            return [], []
        learned = [self.calibrate[n] for n in chosen] if self.calibrate else []
        starts = starts_of(learned, len(chosen), max_risk=max_risk)
        found = tested_thresholds(
            [self.places[n] / 1000 for n in chosen], [self.certify[n] for n in chosen],
            [self.populations[n] for n in chosen], max_risk=max_risk, delta=delta, starts=starts,
        )  # fmt: skip
        return found, [found[start] for start in starts]


def _certified(policy: Policy, tally: Tally, gold: GoldChoice, floors: Ints) -> Plan:
    target = policy.target or Target(max_risk=0.05)
    max_risk = target.max_risk or 0.0
    kept, _ = tally.kept(floors)
    tests = _tests(target, kept, gold, floors)
    found, began = tests.run(max_risk, target.delta)
    if not found:
        raise InputError(
            f"policy '{policy.name}': certifying at most {max_risk:.1%} takes at least "
            f"{least_gold(max_risk, target.delta)} kept masks with gold that certifies, but there "
            f"are {int(gold.certifies.sum())}; add gold ('maskmill gold propose'), or set a larger "
            "target.max_risk"
        )
    held = [tested for tested in found if tested.holds]
    if not held:
        raise InputError(_not_certified(policy, tests, began, int(kept[0])))
    # A sequence that began later may hold where an earlier one stopped: the laxest counts.
    threshold = round(held[-1].threshold * 1000)
    return Plan(threshold=threshold, floors=floors, tested=held[-1])


def _tests(target: Target, kept: Ints, gold: GoldChoice, floors: Ints) -> _Tests:
    bad = gold.iou < np.float32(target.iou_bound)
    count = partial(gold_kept, likeness=likeness_of(bad, gold.images))
    places = thresholds_to_test(kept, _NUM_LEVELS)
    by_role = {
        role: [count(_kept_gold(gold, role, place, floors), bad, gold.images) for place in places]
        for role in (CERTIFY, CALIBRATE)
    }
    return _Tests(
        places=places, populations=[int(kept[place]) for place in places],
        certify=by_role[CERTIFY],
        calibrate=[] if gold.certifies.all() else by_role[CALIBRATE],
    )  # fmt: skip


def _kept_gold(gold: GoldChoice, role: str, threshold: int, floors: Ints) -> Bools:
    wanted = gold.certifies if role == CERTIFY else ~gold.certifies
    if not len(gold.bins):
        return wanted
    kept: Bools = wanted & is_kept(gold.bins, gold.categories, threshold, floors)
    return kept


def _not_certified(policy: Policy, tests: _Tests, began: Sequence[Tested], num_all: int) -> str:
    """What the tests that failed can support, and what could be had instead."""
    target = policy.target or Target(max_risk=0.05)
    tested = min(began, key=lambda one: one.upper_bound)
    bound = tested.upper_bound
    laxer = [
        risk
        for risk in _OTHER_RISKS
        if risk > (target.max_risk or 0.0)
        and any(one.holds for one in tests.run(risk, target.delta)[0])
    ][:1]
    set_it = f"set target.max_risk={laxer[0]:g}, or " if laxer else ""
    return (
        f"policy '{policy.name}': expected at most {target.max_risk:.1%} of the kept masks under "
        f"IoU {target.iou_bound:g} with {1 - target.delta:.0%} confidence, but the most that "
        f"{tested.gold.num_kept:,} gold masks ({tested.gold.num_bad} bad) can support is "
        f"{bound:.1%}, at confidence {tested.threshold:g} ({tested.population / num_all:.0%} "
        f"kept); {_more_gold(tested, target)}{set_it}add a teacher"
    )


def _more_gold(tested: Tested, target: Target) -> str:
    """How much gold like this would do."""
    n, k = tested.gold.effective
    max_risk = target.max_risk or 0.0
    if n == 0 or k / n >= max_risk:
        return ""
    wanted = n
    while wanted < _MOST_WANTED:
        share = wanted / n
        p = p_value(wanted, round(k * share), max_risk=max_risk, population=tested.population)
        if p <= tested.level:
            more = int(np.ceil(tested.gold.num_kept * (share - 1)))
            return f"about {more:,} more like them would do ('maskmill gold propose'); or "
        wanted = int(wanted * 1.25) + 1
    return ""


def keeps(plan: Plan, confidence: Floats, codes: Ints) -> Bools:
    """[N] whether masks of these confidences are kept; `codes` are places in the tally's list."""
    floors = plan.floors if len(plan.floors) else np.full(1, NUM_BINS, np.int64)
    return is_kept(bins_of(confidence), codes, plan.threshold, floors)
