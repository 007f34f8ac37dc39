"""What a filter by confidence says of what it keeps: `Commit.quality`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.confidence.calibrator import Calibrator
from engine.confidence.certificate import Tested
from engine.confidence.plan import Plan
from engine.confidence.tally import NUM_BINS, Tally
from engine.policy import Policy, Target
from manifests.prior import PRIOR_NOTE

_MAX_CATEGORIES = 2_000
"""A commit is small: categories with fewest boxes are left out beyond so many."""


def quality_of(
    policy: Policy, plan: Plan, tally: Tally, calibrator: Calibrator, calibrator_id: str
) -> dict[str, Any]:  # Any: JSON
    """The figures of a commit.

    Returns:
        calibrator: object id; is_prior; threshold; num_rows: boxes with a mask of a teacher and
        without one of a human; num_kept, kept_share, expected_mean_iou of those; categories: the
        same by name; certificate: or None; notes: sentences that nobody should miss.
    """
    cut = np.minimum(np.minimum(plan.threshold, plan.floors), NUM_BINS - 1)  # [C]
    columns = np.arange(NUM_BINS)[None, :] >= cut[:, None]
    kept, sums = (tally.counts * columns).sum(axis=1), (tally.sums * columns).sum(axis=1)
    order = sorted(
        tally.categories, key=lambda name: (-tally.num_rows[tally.categories[name]], name)
    )
    categories = {}
    for name in order[:_MAX_CATEGORIES]:
        place = tally.categories[name]
        categories[name] = {
            "num_rows": int(tally.num_rows[place]),
            "num_kept": int(kept[place]),
            "expected_mean_iou": _mean(sums[place], kept[place]),
            "threshold": int(cut[place]) / 1000,
        }
    num_rows, num_kept = int(tally.num_rows.sum()), int(kept.sum())
    return {
        "calibrator": calibrator_id,
        "is_prior": calibrator.is_prior,
        "threshold": plan.threshold / 1000,
        "num_rows": num_rows,
        "num_kept": num_kept,
        "kept_share": round(num_kept / num_rows, 4) if num_rows else 0.0,
        "expected_mean_iou": _mean(sums.sum(), num_kept),
        "certificate": _certificate(policy.target, plan.tested) if plan.tested else None,
        "notes": _notes(policy, calibrator, num_rows, num_kept),
        "categories": categories,
    }


def quality_sentences(quality: Mapping[str, Any]) -> list[str]:  # Any: JSON
    """What `quality_of` says, for people; nothing for a filter without confidence."""
    if not quality:
        return []
    mean = quality["expected_mean_iou"]
    kept = (
        f"kept {quality['num_kept']:,} of {quality['num_rows']:,} masks without a human one "
        f"({quality['kept_share']:.1%}), expected mean IoU {'-' if mean is None else f'{mean:.3f}'}"
    )
    certificate = quality["certificate"]
    return [kept, *([f"certificate: {certificate['sentence']}"] if certificate else [])]


def _certificate(target: Target | None, tested: Tested) -> dict[str, Any]:  # Any: JSON
    target = target or Target(max_risk=0.05)
    gold, confidence = tested.gold, 1 - target.delta
    sentence = (
        f"with {confidence:.0%} confidence at most {target.max_risk:.1%} of the "
        f"{tested.population:,} kept masks without gold have an IoU under {target.iou_bound:g}; "
        f"{gold.num_bad} of {gold.num_kept:,} kept gold masks on {gold.num_images:,} images do"
    )
    return {
        "max_risk": target.max_risk, "iou_bound": target.iou_bound, "delta": target.delta,
        "threshold": tested.threshold, "num_gold": gold.num_kept, "num_images": gold.num_images,
        "num_bad": gold.num_bad, "upper_bound": round(tested.upper_bound, 4),
        "population": tested.population, "design_effect": round(gold.design_effect, 3),
        "sentence": sentence,
    }  # fmt: skip


def _notes(policy: Policy, calibrator: Calibrator, num_rows: int, num_kept: int) -> list[str]:
    notes = []
    if calibrator.is_prior:
        notes.append(PRIOR_NOTE)
    if num_rows and not num_kept:
        notes.append(f"policy '{policy.name}' keeps none of {num_rows:,} masks")
    if num_rows and num_kept == num_rows:
        notes.append(f"policy '{policy.name}' keeps all of {num_rows:,} masks")
    return notes


def _mean(total: float, count: int) -> float | None:
    return round(float(total) / int(count), 4) if count else None
