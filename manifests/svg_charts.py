"""Charts as inline SVG: axes, ticks, a legend, and words for those who do not see them.

No script and nothing fetched. Colours are CSS variables of `manifests/templates/style.html`, so
that a chart can be read on a light page and on a dark one. What comes from data is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from manifests.svg_frame import (
    Axis,
    Frame,
    LegendEntry,
    Svg,
    draw_axes,
    drawing,
    element,
    nice_ticks,
    number,
    text_at,
    title,
)

_PITCH, _MAX_LABEL = 25.0, 25
_FRAMES = {
    "small": Frame(width=360, height=206, bottom=48),
    "medium": Frame(width=560, height=270),
    "wide": Frame(width=1120, height=250),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points, joined.

    Attributes:
        colour: as CSS writes it.
        notes: a word on each point, which is then drawn as a dot; empty: no dots.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    is_dashed: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The room between two lines."""

    name: str
    xs: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A straight line across the plot at one value of an axis."""

    name: str
    at: float
    colour: str = "var(--ink)"
    is_upright: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One layer of a histogram: a count for each bin."""

    name: str
    counts: Sequence[int]
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A line of a bar chart; `value` is at least 0."""

    label: str
    value: float
    colour: str = "var(--c1)"


def xy_chart(
    about: str,
    x: Axis,
    y: Axis,
    *,
    lines: Sequence[Line] = (),
    bands: Sequence[Band] = (),
    rules: Sequence[Rule] = (),
) -> Svg:
    """Lines and bands over two axes."""
    frame = Frame()
    parts = [*draw_axes(frame, x, y)]
    parts += [_band(frame, x, y, band) for band in bands if len(band.xs)]
    parts += [_rule(frame, x, y, rule) for rule in rules]
    for line in lines:
        parts += _line(frame, x, y, line)
    entries = [
        *(
            LegendEntry(line.name, line.colour, "dash" if line.is_dashed else "line")
            for line in lines
        ),
        *(LegendEntry(band.name, band.colour, "band") for band in bands),
        *(LegendEntry(rule.name, rule.colour, "rule") for rule in rules),
    ]
    return drawing(about, frame, parts, entries)


def histogram(
    about: str,
    x: Axis,
    stacks: Sequence[Stack],
    *,
    rules: Sequence[Rule] = (),
    size: Literal["small", "medium", "wide"] = "medium",
) -> Svg:
    """Counts in equal bins from one end of the axis to the other, one layer on top of another."""
    frame = _FRAMES[size]
    num_bins = max((len(stack.counts) for stack in stacks), default=0)
    heights = [sum(stack.counts[n] for stack in stacks) for n in range(num_bins)]
    ticks = nice_ticks(max(heights, default=0), most=4 if size == "small" else 5, is_count=True)
    y = Axis(label="masks", high=ticks[-1], ticks=ticks)
    parts, below = [*draw_axes(frame, x, y)], [0] * num_bins
    width = (x.high - x.low) / max(num_bins, 1)
    for stack in stacks:
        for place, count in enumerate(stack.counts):
            if count:
                low = x.low + place * width
                ends = (low, low + width, below[place], below[place] + count)
                note = f"{stack.name}: {count:,} from {low:.2f} to {low + width:.2f}"
                parts.append(_column(frame, x, y, ends, stack.colour, note))
                below[place] += count
    parts += [_rule(frame, x, y, rule) for rule in rules]
    entries = [LegendEntry(stack.name, stack.colour, "box") for stack in stacks]
    entries += [LegendEntry(rule.name, rule.colour, "rule") for rule in rules]
    return drawing(about, frame, parts, entries if len(entries) > 1 else [])


def bar_chart(about: str, bars: Sequence[Bar], *, digits: int = 3) -> Svg:
    """Horizontal bars with their names before and their values behind them."""
    frame = Frame(width=560, height=_PITCH * len(bars) + 8, left=190, right=64, top=4, bottom=4)
    highest = max((bar.value for bar in bars if math.isfinite(bar.value)), default=0.0)
    axis = Axis(label="", high=highest or 1.0)
    parts = []
    for place, bar in enumerate(bars):
        middle = frame.top + _PITCH * (place + 0.5)
        end = max(frame.x(axis, bar.value), frame.left + 1)
        style = f"fill:{bar.colour}"
        width, label = end - frame.left, bar.label
        label = label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1] + "…"
        parts += [
            text_at(frame.left - 10, middle + 4, label, "end"),
            element(
                "rect", title(f"{bar.label}: {bar.value:.{digits}f}"),
                x=frame.left, y=middle - 7, width=width, height=14.0, rx=3.0, style=style,
            ),
            text_at(end + 7, middle + 4, f"{bar.value:.{digits}f}", "start"),
        ]  # fmt: skip
    return drawing(about, frame, parts)


def _points(frame: Frame, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    pairs = zip(xs, ys, strict=True)
    return " ".join(f"{number(frame.x(x, a))},{number(frame.y(y, b))}" for a, b in pairs)


def _line(frame: Frame, x: Axis, y: Axis, line: Line) -> Iterator[str]:
    style = f"stroke:{line.colour}{';stroke-dasharray:6 5' if line.is_dashed else ''}"
    points = _points(frame, x, y, line.xs, line.ys)
    yield element("polyline", class_="line", points=points, style=style)
    for a, b, note in zip(line.xs, line.ys, line.notes, strict=False):
        at = {"cx": frame.x(x, a), "cy": frame.y(y, b), "r": 4.0}
        yield element("circle", title(note), style=f"fill:{line.colour}", **at)


def _band(frame: Frame, x: Axis, y: Axis, band: Band) -> str:
    xs = [*band.xs, *reversed(band.xs)]
    points = _points(frame, x, y, xs, [*band.highs, *reversed(band.lows)])
    return element("polygon", points=points, style=f"fill:{band.colour};fill-opacity:.16")


def _rule(frame: Frame, x: Axis, y: Axis, rule: Rule) -> str:
    if rule.is_upright:
        at, ends = frame.x(x, rule.at), (frame.y(y, y.low), frame.y(y, y.high))
        path = f"M{number(at)} {number(ends[0])}V{number(ends[1])}"
    else:
        at, ends = frame.y(y, rule.at), (frame.x(x, x.low), frame.x(x, x.high))
        path = f"M{number(ends[0])} {number(at)}H{number(ends[1])}"
    return element("path", title(rule.name), class_="rule", d=path, style=f"stroke:{rule.colour}")


def _column(
    frame: Frame, x: Axis, y: Axis, ends: tuple[float, float, float, float], colour: str, note: str
) -> str:
    """A box from `ends`: left, right, bottom, top in values of the axes."""
    left, right = frame.x(x, ends[0]), frame.x(x, ends[1])
    bottom, top = frame.y(y, ends[2]), frame.y(y, ends[3])
    return element(
        "rect", title(note), x=left + 0.5, y=top, width=max(right - left - 1, 0.5),
        height=bottom - top, style=f"fill:{colour}",
    )  # fmt: skip
