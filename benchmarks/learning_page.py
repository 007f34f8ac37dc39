"""The learning curves of `student_learning.py` as a page of charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manifests.html_page import render
from manifests.svg_charts import Bar, Line, bar_chart, xy_chart
from manifests.svg_frame import Axis, Svg, nice_ticks
from student.training.run_log import read_json_lines

_LOSSES = {"losses/mask_dice": "dice loss of the masks", "losses/class": "class loss"}
_MEASURES = {"mask_ap": "mask AP", "miou": "mIoU"}
_SMOOTHED = 5
"""Logged points in a row that are averaged."""


def learning_page(
    groups: Mapping[str, Sequence[str]], logs: Mapping[str, Path], judged: Mapping[str, Any]
) -> bytes:
    """Charts for each group of arms; arms that were not run are left out.

    Args:
        groups: title -> names of arms, five at most.
        logs: arm -> the JSON lines of its training.
        judged: arm -> its evaluation.
    """
    rows, log_steps = [], 0
    for title, names in groups.items():
        runs = {name: _lines(logs[name]) for name in names if name in judged}
        if not runs:
            continue
        log_steps = min(one["step"] for run in runs.values() for one in run)
        curves = [_curves(about, runs, key) for key, about in _LOSSES.items()]
        bars = [_bars(about, {name: judged[name][key] for name in runs})
                for key, about in _MEASURES.items()]  # fmt: skip
        rows += [(title, curves), ("mask AP, and mIoU, on photos of the judge", bars)]
    return render(
        "learning.html", {}, {"rows": rows, "num_steps": _SMOOTHED * log_steps},
        folder=Path(__file__).parent / "templates",
    )  # fmt: skip


def _lines(log: Path) -> list[dict[str, Any]]:
    """By step; of a step that was taken again after a kill the last one counts."""
    return [one for _, one in sorted({one["step"]: one for one in read_json_lines(log)}.items())]


def _bars(about: str, values: Mapping[str, float]) -> Svg:
    """In the colours of the curves."""
    bars = [
        Bar(label=name, value=value, colour=f"var(--c{number})")
        for number, (name, value) in enumerate(values.items(), 1)
    ]
    return bar_chart(about, bars, digits=4)


def _curves(about: str, runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> Svg:
    lines = []
    for number, (name, run) in enumerate(runs.items(), 1):
        values = [one[key] for one in run]
        means = [
            sum(part) / len(part)
            for end in range(1, len(values) + 1)
            for part in [values[max(0, end - _SMOOTHED) : end]]
        ]
        lines.append(
            Line(name=name, xs=[one["step"] for one in run], ys=means, colour=f"var(--c{number})")
        )
    last = max(x for line in lines for x in line.xs)
    highest = max(y for line in lines for y in line.ys)
    steps = nice_ticks(last)
    return xy_chart(
        f"{about} by step, {', '.join(runs)}",
        Axis(label="step", high=max(last, steps[-1]), ticks=steps),
        Axis(label=about, high=nice_ticks(highest)[-1], ticks=nice_ticks(highest)),
        lines=lines,
    )
