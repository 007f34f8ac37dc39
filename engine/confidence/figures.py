"""How good a confidence is, as figures: of boxes whose true IoU is known.

Legend: M boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.confidence.choice import Choice
from engine.confidence.fit import best_of, taken_by
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Floats, Output

IOU_BOUND = 0.7
"""Below it a mask is bad, unless somebody says otherwise."""
_NUM_BINS = 10
_COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


def auroc(confidence: Floats, iou: Floats, iou_bound: float = IOU_BOUND) -> float | None:
    """Chance that a good mask has more confidence than a bad one; None if all are the same."""
    from sklearn.metrics import roc_auc_score

    is_good = iou >= iou_bound
    if is_good.all() or not is_good.any():
        return None
    return float(roc_auc_score(is_good, confidence))


def calibration_error(confidence: Floats, iou: Floats) -> float:
    """Expected calibration error of expected IoU: mean |confidence - IoU| of ten equal bins.

    The bins have equally many masks (adaptive ECE, Nixon et al. 2019): most confidences are high,
    and bins of equal width would leave the rest to chance.
    """
    order = np.argsort(confidence, kind="stable")
    bins = [rows for rows in np.array_split(order, _NUM_BINS) if len(rows)]
    gaps = [abs(float(confidence[rows].mean()) - float(iou[rows].mean())) for rows in bins]
    return float(np.average(gaps, weights=[len(rows) for rows in bins])) if bins else 0.0


def risk_at_coverage(confidence: Floats, iou: Floats, iou_bound: float = IOU_BOUND) -> Floats:
    """[M] share of bad masks among the n + 1 most confident (Geifman & El-Yaniv 2017)."""
    order = np.argsort(-confidence, kind="stable")
    is_bad = iou[order] < iou_bound
    risk: Floats = (np.cumsum(is_bad) / np.arange(1, len(order) + 1)).astype(np.float32)
    return risk


def share_kept(
    confidence: Floats, iou: Floats, *, max_risk: float, iou_bound: float = IOU_BOUND
) -> float:
    """Largest share of masks that can be kept by a threshold so that few enough are bad."""
    falling = -np.sort(-confidence)
    # No threshold parts masks of the same confidence.
    parts = np.append(falling[1:] < falling[:-1], True)[: len(falling)]
    risk = risk_at_coverage(confidence, iou, iou_bound)
    within = np.flatnonzero(parts & (risk <= np.float32(max_risk)))
    return float(within[-1] + 1) / len(iou) if len(within) else 0.0


def reliability(confidence: Floats, iou: Floats) -> list[dict[str, float]]:
    """The bins of the reliability diagram: mean confidence, mean IoU, spread, how many."""
    order = np.argsort(confidence, kind="stable")
    return [
        {
            "confidence": round(float(confidence[rows].mean()), 4),
            "iou": round(float(iou[rows].mean()), 4),
            "low": round(float(np.quantile(iou[rows], 0.1)), 4),
            "high": round(float(np.quantile(iou[rows], 0.9)), 4),
            "num": len(rows),
        }
        for rows in np.array_split(order, _NUM_BINS)
        if len(rows)
    ]


def figures(
    choice: Choice,
    gold: GoldBoxes,
    confidence: Mapping[Output, Floats],
    taken: NDArray[np.int64] | None = None,
) -> dict[str, Any]:  # Any: JSON
    """What is said of a calibrator: of the outputs that are taken, and of each teacher's own.

    Args:
        choice: which output of a box is taken.
        gold: M boxes.
        confidence: output -> [M], from calibrators that did not see the box's image.
        taken: [M] its place among the sorted outputs, if not as `choice` has it.
    """
    if taken is None:
        taken = taken_by(choice, confidence, gold.categories)
    best, iou = best_of(taken, confidence, gold.iou)
    if not np.isfinite(best).all():  # drawn by teachers alone that have no head
        known = np.isfinite(best)
        told = {output: values[known] for output, values in confidence.items()}
        return figures(choice, gold.where(known), told, taken[known])
    oracle = np.fmax.reduce([gold.iou[output] for output in confidence])
    risk = risk_at_coverage(best, iou)
    places = [max(0, round(share * len(risk)) - 1) for share in _COVERAGES]
    return {
        "num_images": len(np.unique(gold.codes("image_id"))),
        "num_boxes": gold.num_boxes,
        "iou_bound": IOU_BOUND,
        "mean_iou": {
            "fused": _rounded(iou.mean()),
            "oracle": _rounded(oracle.mean()),
            **{
                output.teacher: _rounded(np.nan_to_num(gold.iou[output]).mean())
                for output in sorted(confidence)
                if output.candidate == 0
            },
        },
        "auroc": _rounded(auroc(best, iou)),
        "calibration_error": _rounded(calibration_error(best, iou)),
        "share_kept_at_5_percent": _rounded(share_kept(best, iou, max_risk=0.05)),
        "risk_at_coverage": {
            str(share): _rounded(risk[place])
            for share, place in zip(_COVERAGES, places, strict=True)
        },
        "reliability": reliability(best, iou),
    }


def _rounded(value: float | np.floating[Any] | None) -> float | None:
    return None if value is None else round(float(value), 4)
