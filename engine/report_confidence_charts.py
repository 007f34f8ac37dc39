"""The charts of a report on confidence, from a calibrator's figures, gold, and the survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.confidence.figures import risk_at_coverage
from engine.confidence.outputs import Floats
from engine.report_confidence_gold import HeldOut
from engine.report_confidence_survey import NUM_BINS, ConfidenceSurvey
from engine.report_rows import DROPPED, KEPT, UNJUDGED
from manifests.svg_charts import (
    Band,
    Bar,
    Line,
    Rule,
    Stack,
    bar_chart,
    histogram,
    xy_chart,
)
from manifests.svg_frame import Axis, Svg, nice_ticks

_MAX_POINTS = 160
_MAX_FEATURES = 12
_FIRST, _SECOND, _PALE = "var(--c1)", "var(--c2)", "var(--faint)"
_CONFIDENCE = Axis(label="confidence (expected IoU)")

Figures = Mapping[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A chart and the words above it."""

    name: str
    chart: Svg


def reliability_chart(figures: Figures) -> Svg | None:
    """Promise against truth: gold that certifies in front, gold that calibrates behind it."""
    held, fitted = figures.get("certify", {}).get("reliability"), figures.get("reliability")
    shown = [
        (name, bins, colour)
        for name, bins, colour in (
            ("held-out gold", held, _FIRST),
            ("gold it was fitted on, out of fold", fitted, _SECOND if held else _FIRST),
        )
        if bins
    ]
    if not shown:
        return None
    main = shown[0][1]
    lowest = min(min(b["confidence"], b["low"]) for _, bins, _ in shown for b in bins)
    low = max(0.0, np.floor(lowest * 5) / 5) if lowest < 1 else 0.0
    ticks = tuple(round(t, 1) for t in np.arange(low, 1.01, 0.1 if low >= 0.4 else 0.2))
    x = Axis(label=_CONFIDENCE.label, low=low, ticks=ticks)
    y = Axis(label="IoU with the human mask", low=low, ticks=ticks)
    lines = [Line(name="perfect", xs=(low, 1), ys=(low, 1), colour=_PALE, is_dashed=True)]
    lines += [_reliability_line(*each) for each in reversed(shown)]
    band = Band(
        name="10 to 90% of the masks", colour=shown[0][2], xs=[b["confidence"] for b in main],
        lows=[b["low"] for b in main], highs=[b["high"] for b in main],
    )  # fmt: skip
    about = "Reliability: mean confidence against mean IoU with human masks, in ten equal bins"
    return xy_chart(about, x, y, lines=lines, bands=[band])


def _reliability_line(name: str, bins: Sequence[Mapping[str, float]], colour: str) -> Line:
    notes = [
        f"{b['num']:,} masks: confidence {b['confidence']:.3f}, mean IoU {b['iou']:.3f}, "
        f"80% of them {b['low']:.2f} to {b['high']:.2f}"
        for b in bins
    ]
    total = sum(int(b["num"]) for b in bins)
    return Line(
        name=f"{name} ({total:,} masks)", colour=colour, notes=notes,
        xs=[b["confidence"] for b in bins], ys=[b["iou"] for b in bins],
    )  # fmt: skip


def risk_chart(held: HeldOut, *, iou_bound: float, max_risk: float | None) -> Svg:
    """Share of bad masks against the share that is kept, by several orders of the same masks."""
    curves: list[tuple[str, Floats, str, bool]] = [
        ("by confidence", held.confidence, _FIRST, False)
    ]
    if held.predicted_iou is not None:
        curves.append(("by the teacher's predicted IoU", held.predicted_iou, _SECOND, False))
    curves.append(("by the truth: nothing can do better", held.iou, _PALE, True))
    lines = [
        _risk_line(name, order, held.iou, iou_bound, colour, is_dashed)
        for name, order, colour, is_dashed in curves
    ]
    highest = max(max(line.ys) for line in lines)
    ticks = nice_ticks(max(highest, max_risk or 0.0, 0.01))
    x = Axis(label="share of masks kept, most trusted first", is_percent=True)
    y = Axis(label=f"share under IoU {iou_bound:g}", high=ticks[-1], ticks=ticks, is_percent=True)
    rules = []
    if max_risk is not None:
        rules.append(Rule(name=f"wanted: {max_risk:.1%} at most", at=max_risk, is_upright=False))
    about = f"Share of kept masks with an IoU under {iou_bound:g} against the share kept"
    return xy_chart(about, x, y, lines=lines, rules=rules)


def _risk_line(
    name: str, order: Floats, iou: Floats, iou_bound: float, colour: str, is_dashed: bool
) -> Line:
    risk = risk_at_coverage(order, iou, iou_bound)
    count = len(risk)
    # The first few masks are one bad one away from anything.
    first = min(count - 1, max(4, count // 50))
    places = np.unique(np.linspace(first, count - 1, min(count, _MAX_POINTS)).round().astype(int))
    xs, ys = (places + 1) / count, risk[places]
    return Line(
        name=name, colour=colour, is_dashed=is_dashed,
        xs=[float(value) for value in xs], ys=[float(value) for value in ys],
    )  # fmt: skip


def judged_chart(survey: ConfidenceSurvey, threshold: float | None, *, is_wide: bool) -> Svg | None:
    """Confidence of the masks that verdicts speak of: kept ones below, dropped ones on top."""
    looks = {
        KEPT: ("kept", "var(--good)"),
        DROPPED: ("dropped", "var(--warn)"),
        UNJUDGED: ("not judged yet", _FIRST),
    }
    stacks = [
        Stack(name=f"{name} ({int(counts.sum()):,})", counts=counts.tolist(), colour=colour)
        for outcome, (name, colour) in looks.items()
        if (counts := survey.judged.get(outcome)) is not None and counts.sum()
    ]
    if not stacks:
        return None
    rules = [Rule(name=f"threshold {threshold:.3f}", at=threshold)] if threshold else []
    return histogram(
        "Confidence of the chosen masks",
        _CONFIDENCE,
        stacks,
        rules=rules,
        size="wide" if is_wide else "medium",
    )


def teacher_charts(survey: ConfidenceSurvey) -> list[Named]:
    """The same of each teacher's own choices, surest first."""
    middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    found = []
    for teacher, counts in survey.own.items():
        total = int(counts.sum())
        if not total:
            continue
        mean = float((counts * middles).sum()) / total
        stack = Stack(name=teacher, counts=counts.tolist(), colour=_FIRST)
        chart = histogram(
            f"Confidence of {teacher}'s own choices", _CONFIDENCE, [stack],
            rules=[Rule(name=f"mean {mean:.2f}", at=mean)], size="small",
        )  # fmt: skip
        found.append((mean, Named(name=teacher, chart=chart)))
    return [named for _, named in sorted(found, key=lambda pair: (-pair[0], pair[1].name))]


def mean_iou_chart(figures: Figures) -> Svg | None:
    """How good each teacher is on gold, what confidence makes of them, and the best possible."""
    means = {name: value for name, value in figures.get("mean_iou", {}).items() if value}
    if not means:
        return None
    words = {"fused": "chosen by confidence", "oracle": "best possible"}
    colours = {"fused": _FIRST, "oracle": _PALE}
    own = sorted((name for name in means if name not in words), key=lambda name: -means[name])
    order = [name for name in ("oracle", "fused", *own) if name in means]
    bars = [
        Bar(label=words.get(name, name), value=means[name], colour=colours.get(name, _SECOND))
        for name in order
    ]
    return bar_chart("Mean IoU with human masks", bars)


def importance_charts(figures: Figures) -> list[Named]:
    """Teacher by teacher, what a calibrator loses without a signal."""
    found = []
    for teacher, losses in sorted(figures.get("importance", {}).items()):
        largest = sorted(losses.items(), key=lambda pair: (-pair[1], pair[0]))[:_MAX_FEATURES]
        bars = [Bar(label=name, value=max(0.0, loss)) for name, loss in largest if loss > 0]
        if bars:
            chart = bar_chart(f"Signals that matter for {teacher}", bars, digits=4)
            found.append(Named(name=teacher, chart=chart))
    return found
