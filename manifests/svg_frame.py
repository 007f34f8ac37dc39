"""What every chart has: its size, axes and legend, as inline SVG.

Whatever comes from data is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_LEGEND_LINE, _LEGEND_GAP, _SWATCH = 19.0, 18.0, 18.0
_MOST_ENLARGED = 1.25
_CHARACTER = 7.4
"""Width of a letter of a legend, rather too much: nothing here knows the reader's font."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Svg:
    """A finished drawing, which a template puts into its page as it is."""

    text: str

    def __html__(self) -> str:
        """What template engines ask for of something that is markup already."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear axis; `low` is below `high`, and ticks lie between them."""

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    is_percent: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, in [0, 1]; what is beyond an end, or no number, lies at it."""
        place = (value - self.low) / (self.high - self.low)
        return min(max(place, 0.0), 1.0) if math.isfinite(place) else 0.0

    def words(self, value: float) -> str:
        """A tick's text."""
        return f"{100 * value:.3g}%" if self.is_percent else f"{value:,.6g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The drawing's size and the room around its plot, in units of the drawing."""

    width: float = 560.0
    height: float = 330.0
    left: float = 58.0
    right: float = 26.0
    top: float = 14.0
    bottom: float = 52.0

    def x(self, axis: Axis, value: float) -> float:
        """Across, from the left."""
        return self.left + axis.share(value) * (self.width - self.left - self.right)

    def y(self, axis: Axis, value: float) -> float:
        """Down, from the top: the axis grows upwards."""
        return (
            self.height - self.bottom - axis.share(value) * (self.height - self.bottom - self.top)
        )


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One entry; `kind` is `line`, `dash`, `rule`, `box` or `band`."""

    name: str
    colour: str
    kind: str


def nice_ticks(high: float, *, most: int = 5, is_count: bool = False) -> tuple[float, ...]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, up to the first that reaches `high`."""
    if not (math.isfinite(high) and high > 0):
        return (0.0, 1.0)
    size = 10.0 ** math.floor(math.log10(high / most))
    step = next(size * n for n in (1, 2, 5, 10, 20) if high / (size * n) <= most)
    step = max(step, 1.0) if is_count else step
    return tuple(round(step * n, 12) for n in range(math.ceil(high / step - 1e-9) + 1))


def number(value: float) -> str:
    """A coordinate: no more digits than a screen has."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def element(name: str, inner: str = "", **attributes: str | float) -> str:
    """An element; an underscore at the end of an attribute's name (`class_`) is left out.

    Args:
        inner: markup.
    """
    words = [
        f'{key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        if isinstance(value, str)
        else f'{key}="{number(value)}"'
        for key, value in attributes.items()
    ]
    return f"<{' '.join([name, *words])}>{inner}</{name}>"


def title(note: str) -> str:
    """What is shown when the pointer rests on an element."""
    return f"<title>{escape(note)}</title>" if note else ""


def text_at(x: float, y: float, text: str, anchor: str, **more: str) -> str:
    """Words that start, end or have their middle at `x`."""
    return element("text", escape(text), x=x, y=y, text_anchor=anchor, **more)


def draw_axes(frame: Frame, x: Axis, y: Axis) -> Iterator[str]:
    """Grid, ticks and labels."""
    left, right = frame.x(x, x.low), frame.x(x, x.high)
    bottom, top = frame.y(y, y.low), frame.y(y, y.high)
    for tick in y.ticks:
        at = frame.y(y, tick)
        yield element("path", class_="grid", d=f"M{number(left)} {number(at)}H{number(right)}")
        yield text_at(left - 8, at + 4, y.words(tick), "end")
    for tick in x.ticks:
        at = frame.x(x, tick)
        yield element("path", class_="tick", d=f"M{number(at)} {number(bottom)}v5")
        yield text_at(at, bottom + 18, x.words(tick), "middle")
    yield element("path", class_="axis", d=f"M{number(left)} {number(bottom)}H{number(right)}")
    yield text_at((left + right) / 2, bottom + 41, x.label, "middle", class_="label")
    turned = f"rotate(-90 14 {number((top + bottom) / 2)})"
    yield text_at(14, (top + bottom) / 2, y.label, "middle", class_="label", transform=turned)


def drawing(
    about: str, frame: Frame, parts: Sequence[str], entries: Sequence[LegendEntry] = ()
) -> Svg:
    """The parts, with a legend below them."""
    legend, height = _legend(frame, entries)
    # Enlarged much more than this, its words would shout.
    most = f"max-width:{_MOST_ENLARGED * frame.width:.0f}px"
    size = f"0 0 {number(frame.width)} {number(height)}"
    inner = "".join([*parts, *legend])
    return Svg(
        text=element(
            "svg", inner, class_="chart", viewBox=size, style=most, role="img", aria_label=about
        )
    )


def _legend(frame: Frame, entries: Sequence[LegendEntry]) -> tuple[list[str], float]:
    """The legend, and the height of the drawing with it."""
    parts: list[str] = []
    x, y = frame.left, frame.height + 10
    for entry in entries:
        width = _SWATCH + 7 + _CHARACTER * len(entry.name)
        if x > frame.left and x + width > frame.width:
            x, y = frame.left, y + _LEGEND_LINE
        parts += [_swatch(x, y, entry), text_at(x + _SWATCH + 7, y + 4, entry.name, "start")]
        x += width + _LEGEND_GAP
    return parts, y + 10 if entries else frame.height


def _swatch(x: float, y: float, entry: LegendEntry) -> str:
    if entry.kind in ("box", "band"):
        style = f"fill:{entry.colour}{';fill-opacity:.3' if entry.kind == 'band' else ''}"
        return element("rect", x=x, y=y - 6, width=_SWATCH, height=12.0, rx=2.0, style=style)
    style = f"stroke:{entry.colour}{';stroke-dasharray:6 5' if entry.kind == 'dash' else ''}"
    kind = "rule" if entry.kind == "rule" else "line"
    return element("path", class_=kind, d=f"M{number(x)} {number(y)}h{_SWATCH:g}", style=style)
