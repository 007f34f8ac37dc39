"""From a policy's target to a threshold: by the expected mean IoU, or certified by gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.certificate import (
    Tested,
    gold_kept,
    least_gold,
    p_value,
    starts_of,
    tested_thresholds,
)
from engine.confidence.chosen import Chosen
from engine.confidence.gold import GOLD_SCHEMA
from engine.confidence.outputs import Bools, Floats
from engine.confidence.roles import CALIBRATE, CERTIFY
from engine.confidence.tally import NUM_BINS, Tally, bins_of, is_kept, thresholds_to_test
from engine.policy import Policy, Target
from manifests import schemas
from manifests.errors import InputError

Ints = NDArray[np.int64]
_NUM_LEVELS = 40
_MOST_WANTED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldChoice:
    """Gold boxes whose chosen mask breaks no rule; M of them.

    Attributes:
        bins: [M] of the chosen mask's confidence.
        categories: [M] places in `Tally.categories`.
        iou: [M] of the chosen mask with the human one.
        images: [M] a number for each image.
        certifies: [M] the others calibrate.
    """

    bins: Ints
    categories: Ints
    iou: Floats
    images: Ints
    certifies: Bools


@dataclass(slots=True)
class GoldFinder:
    """Collects, shard by shard, what the policy chooses for gold boxes."""

    table: pa.Table | None
    _parts: list[pa.Table] = field(default_factory=list)

    def add(self, shard: str, chosen: Chosen) -> None:
        """Looks a shard's gold up."""
        if self.table is None:
            return
        mine = self.table.filter(pc.equal(self.table["shard"], shard))
        if not mine.num_rows:
            return
        rows = mine["row"].to_numpy()
        place = {output.name: number for number, output in enumerate(chosen.outputs)}
        pairs = zip(mine["teacher"].to_pylist(), mine["candidate"].to_pylist(), strict=True)
        outputs = [place.get(schemas.output_name(*pair), -2) for pair in pairs]
        is_mine = (chosen.taken[rows] == np.array(outputs)) & chosen.passes[rows]
        found = mine.filter(pa.array(is_mine))
        confidence = pa.array(chosen.confidence[rows[is_mine]], pa.float32())
        joined = found.set_column(
            found.schema.get_field_index("confidence"),
            "confidence",
            pc.if_else(pc.equal(found["role"], CERTIFY), confidence, found["confidence"]),
        )
        self._parts.append(joined.cast(GOLD_SCHEMA))

    def choice(self, tally: Tally) -> GoldChoice:
        """What was found."""
        found = pa.concat_tables([GOLD_SCHEMA.empty_table(), *self._parts])
        if not found.num_rows:
            nothing = np.zeros(0, np.int64)
            return GoldChoice(
                bins=nothing, categories=nothing, iou=np.zeros(0, np.float32), images=nothing,
                certifies=np.zeros(0, bool),
            )  # fmt: skip
        images = found["image_id"].combine_chunks().dictionary_encode().indices
        names = found["category"].to_pylist()
        return GoldChoice(
            bins=bins_of(found["confidence"].to_numpy()),
            categories=np.array([tally.categories[name] for name in names], np.int64),
            iou=found["iou"].to_numpy(),
            images=np.asarray(images).astype(np.int64),
            certifies=np.asarray(pc.equal(found["role"], CERTIFY)),
        )


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


def _certified(policy: Policy, tally: Tally, gold: GoldChoice, floors: Ints) -> Plan:
    target = policy.target or Target(max_risk=0.05)
    max_risk = target.max_risk or 0.0
    kept, _ = tally.kept(floors)
    bad = gold.iou < np.float32(target.iou_bound)
    places = []
    for place in thresholds_to_test(kept, _NUM_LEVELS):
        there = _kept_gold(gold, CERTIFY, place, floors)
        if there.sum() >= least_gold(max_risk, target.delta):
            places.append(place)
    if not places:
        num = int(gold.certifies.sum())
        raise InputError(
            f"policy '{policy.name}': certifying at most {max_risk:.1%} takes at least "
            f"{least_gold(max_risk, target.delta)} kept masks with gold that certifies, but there "
            f"are {num}; add gold ('maskmill gold propose'), or set a larger target.max_risk"
        )
    by_role = {
        role: [
            gold_kept(_kept_gold(gold, role, place, floors), bad, gold.images) for place in places
        ]
        for role in (CERTIFY, CALIBRATE)
    }
    learned = [] if gold.certifies.all() else by_role[CALIBRATE]
    found = tested_thresholds(
        [place / 1000 for place in places], by_role[CERTIFY], [int(kept[p]) for p in places],
        max_risk=max_risk, delta=target.delta,
        starts=starts_of(learned, len(places), max_risk=max_risk),
    )  # fmt: skip
    held = [number for number, tested in enumerate(found) if tested.holds]
    if not held:
        raise InputError(_not_certified(policy, found, kept))
    # A sequence that began later may hold where an earlier one stopped: the laxest counts.
    return Plan(threshold=places[held[-1]], floors=floors, tested=found[held[-1]])


def _kept_gold(gold: GoldChoice, role: str, threshold: int, floors: Ints) -> Bools:
    wanted = gold.certifies if role == CERTIFY else ~gold.certifies
    if not len(gold.bins):
        return wanted
    kept: Bools = wanted & is_kept(gold.bins, gold.categories, threshold, floors)
    return kept


def _not_certified(policy: Policy, found: Sequence[Tested], kept: Ints) -> str:
    target = policy.target or Target(max_risk=0.05)
    bounds = [replace(tested, level=target.delta).upper_bound for tested in found]
    best = int(np.argmin(bounds))
    tested, total = found[best], max(1, int(kept[0]))
    return (
        f"policy '{policy.name}': expected at most {target.max_risk:.1%} of the kept masks under "
        f"IoU {target.iou_bound:g} with {1 - target.delta:.0%} confidence, but the most that "
        f"{tested.gold.num_kept:,} gold masks ({tested.gold.num_bad} bad) can support is "
        f"{bounds[best]:.1%}, at confidence {tested.threshold:g} ({tested.population / total:.0%} "
        f"kept); {_more_gold(tested, target)}set target.max_risk="
        f"{np.ceil(bounds[best] * 1.1 * 1000) / 1000:g}, or add a teacher"
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
