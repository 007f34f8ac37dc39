"""The part of a report that speaks of confidence: what it promises, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from engine.confidence.calibrator import Calibrator
from engine.policy import Policy
from engine.report_confidence_charts import (
    Figures,
    Named,
    importance_charts,
    judged_chart,
    mean_iou_chart,
    reliability_chart,
    risk_chart,
    teacher_charts,
)
from engine.report_confidence_gold import (
    CategoryGold,
    gold_by_category,
    held_out,
    overconfident,
    read_gold_table,
)
from engine.report_confidence_survey import (
    BoxRef,
    CategoryConfidence,
    ConfidenceSurvey,
    survey_confidence,
)
from engine.report_sheets import OVERCONFIDENT
from manifests import schemas
from manifests.dataset import Dataset
from manifests.history import newest
from manifests.prior import PRIOR_NOTE
from manifests.svg_frame import Svg


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryLine:
    """A line of the table of categories."""

    counts: CategoryConfidence
    threshold: float | None
    gold: CategoryGold


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceView:
    """See the module.

    Attributes:
        quality: of the newest filter, as its commit has it; None: it did not use confidence.
        notes: what nobody should miss.
        figures: of gold that no part of the calibrator has seen; without such, of gold out of fold;
            empty without gold.
        is_certify: `figures` are of the former.
        why_no_gold: why there are no figures; empty if there are.
        reliability, risk, mean_iou: None where there is nothing to draw.
        sheets: which boxes to show.
    """

    quality: Mapping[str, Any] | None  # Any: JSON
    notes: tuple[str, ...]
    origin: str
    is_prior: bool
    survey: ConfidenceSurvey
    categories: tuple[CategoryLine, ...]
    sheets: Mapping[str, Sequence[BoxRef]]
    judged: Svg | None
    teachers: Sequence[Named]
    figures: Figures = field(default_factory=dict)
    is_certify: bool = False
    why_no_gold: str = ""
    reliability: Svg | None = None
    risk: Svg | None = None
    mean_iou: Svg | None = None
    importance: Sequence[Named] = ()


def confidence_view(dataset: Dataset) -> ConfidenceView | None:
    """What there is to say; None for a commit without the layer `confidence`.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store has lost something.
    """
    made_by = _calibrators(dataset)
    if not made_by:
        return None
    calibrator = Calibrator.load(dataset.store, made_by[0])
    last = newest(
        dataset.store, dataset.commit_id, lambda commit: commit.operation.name == "filter"
    )
    quality = last.commit.quality if last else None
    survey = survey_confidence(dataset)
    gold = read_gold_table(dataset, calibrator)
    policy = Policy.from_mapping(last.commit.operation.config) if last and quality else None
    of_categories: Mapping[str, CategoryGold] = {}
    if gold is not None:
        of_categories = gold_by_category(dataset, gold, calibrator, policy, quality or {})
    of_gold = _of_gold(dataset, calibrator, gold, quality)
    sheets = dict(survey.sheets)
    if gold is not None:
        sheets[OVERCONFIDENT] = overconfident(dataset, gold)
    return ConfidenceView(
        quality=quality,
        notes=_notes(dataset, calibrator, made_by, quality, survey),
        origin=calibrator.origin,
        is_prior=calibrator.is_prior,
        survey=survey,
        categories=_lines(survey, policy, quality or {}, of_categories),
        sheets=sheets,
        judged=judged_chart(
            survey, _line_of(policy, quality or {}, None), is_wide=of_gold.get("mean_iou") is None
        ),
        teachers=teacher_charts(survey),
        **of_gold,
    )


def _calibrators(dataset: Dataset) -> list[str]:
    """Those that made the confidence of the shards, the one of most shards first."""
    cells = dataset.manifest.of_layer(schemas.CONFIDENCE)
    counts = Counter(cell.inputs[-1] for cell in cells if cell.inputs)
    return [name for name, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def _notes(
    dataset: Dataset,
    calibrator: Calibrator,
    made_by: Sequence[str],
    quality: Mapping[str, Any] | None,  # Any: JSON
    survey: ConfidenceSurvey,
) -> tuple[str, ...]:
    notes = [PRIOR_NOTE] if calibrator.is_prior else []
    notes += (quality or {}).get("notes", [])
    if len(made_by) > 1:
        notes.append(
            f"the confidence of different shards comes from {len(made_by)} calibrators; run "
            "'maskmill calibrate' so that it means the same everywhere"
        )
    boxes = [cell.shard for cell in dataset.manifest.of_layer(schemas.BOXES) if cell.num_rows]
    lacking = sum(dataset.manifest.get(shard, schemas.CONFIDENCE) is None for shard in boxes)
    if lacking:
        notes.append(
            f"{lacking:,} of {len(boxes):,} shards have no confidence; run 'maskmill calibrate'"
        )
    now = survey.num_rows, survey.num_kept
    if quality and (quality["num_rows"], quality["num_kept"]) != now:
        notes.append(
            "the dataset has changed since it was filtered: the filter spoke of "
            f"{quality['num_kept']:,} kept of {quality['num_rows']:,} masks, now there are "
            f"{now[1]:,} of {now[0]:,}; run 'maskmill filter' again"
        )
    if quality and quality["calibrator"] not in made_by:
        notes.append(
            "the masks were calibrated anew since they were filtered; run 'maskmill filter' again"
        )
    return tuple(dict.fromkeys(notes))


def _line_of(
    policy: Policy | None,
    quality: Mapping[str, Any],  # Any: JSON
    category: str | None,
) -> float | None:
    """The confidence from which masks are kept, by target or by rule; None: whatever it is.

    Args:
        category: None: of those that have no line of their own.
    """
    if policy is None or not quality:
        return None
    cut = quality.get("threshold")
    if category is not None:
        cut = quality.get("categories", {}).get(category, {}).get("threshold", cut)
    rule = policy.bound("min_confidence", category or "")
    return max(cut or 0.0, rule or 0.0) or None


def _lines(
    survey: ConfidenceSurvey,
    policy: Policy | None,
    quality: Mapping[str, Any],  # Any: JSON
    gold: Mapping[str, CategoryGold],
) -> tuple[CategoryLine, ...]:
    """Most boxes first."""
    order = sorted(survey.categories.values(), key=lambda c: (-c.num_boxes, c.name))
    return tuple(
        CategoryLine(
            counts=counts,
            threshold=_line_of(policy, quality, counts.name),
            gold=gold.get(counts.name, CategoryGold()),
        )
        for counts in order
    )


def _of_gold(
    dataset: Dataset,
    calibrator: Calibrator,
    gold: pa.Table | None,
    quality: Mapping[str, Any] | None,  # Any: JSON
) -> dict[str, Any]:  # Any: the fields of a ConfidenceView
    if calibrator.is_prior:
        return {"why_no_gold": "No human mask of this dataset was used, so nobody knows how far "
                "the confidence can be trusted here."}  # fmt: skip
    figures = calibrator.figures
    certify = figures.get("certify") or {}
    shown: dict[str, Any] = {
        "figures": certify or figures,
        "is_certify": bool(certify),
        "reliability": reliability_chart(figures),
        "mean_iou": mean_iou_chart(certify or figures),
        "importance": importance_charts(figures),
    }
    held = held_out(dataset, gold) if gold is not None else None
    if held is not None:
        certificate = (quality or {}).get("certificate") or {}
        shown["risk"] = risk_chart(
            held,
            iou_bound=certificate.get("iou_bound", figures.get("iou_bound", 0.7)),
            max_risk=certificate.get("max_risk"),
        )
    return shown
