"""Charts stay in their frames whatever they are given, say what they show, and escape it."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.svg_charts import Band, Bar, Line, Rule, Stack, bar_chart, histogram, xy_chart
from manifests.svg_frame import Axis, Frame, Svg, nice_ticks

EVIL = "<script>alert('x')</script>&\"'"
UNIT = Axis(label="share")
ANY = st.floats(allow_nan=True, allow_infinity=True)
POINTS = st.lists(st.tuples(ANY, ANY), max_size=30)
FRAME = Frame()


def parsed(svg: Svg) -> ElementTree.Element:
    """As XML, which is stricter than a browser."""
    return ElementTree.fromstring(svg.__html__())  # noqa: S314  our own


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def points_of(element: ElementTree.Element) -> list[tuple[float, float]]:
    flat = numbers(element.attrib["points"])
    return list(zip(flat[::2], flat[1::2], strict=True))


@given(ANY, ANY, st.floats(-1e6, 1e6), st.floats(0.01, 1e6))
def test_every_point_lies_in_its_frame(x: float, y: float, low: float, length: float) -> None:
    axis = Axis(label="", low=low, high=low + length, ticks=())
    assert FRAME.left <= FRAME.x(axis, x) <= FRAME.width - FRAME.right + 1e-6
    assert FRAME.top - 1e-6 <= FRAME.y(axis, y) <= FRAME.height - FRAME.bottom + 1e-6


@given(POINTS)
def test_lines_and_bands_stay_inside(points: list[tuple[float, float]]) -> None:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    notes = ["a note"] * len(points)
    line = Line(name="line", xs=xs, ys=ys, colour="red", notes=notes)
    band = Band(name="band", xs=xs, lows=ys, highs=ys, colour="red")
    root = parsed(xy_chart("about", UNIT, UNIT, lines=[line], bands=[band]))
    for element in [*root.iter("polyline"), *root.iter("polygon")]:
        for x, y in points_of(element):
            assert FRAME.left <= x <= FRAME.width - FRAME.right
            assert FRAME.top <= y <= FRAME.height - FRAME.bottom
    assert len(list(root.iter("circle"))) == len(points)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(1, 3))
def test_columns_stand_on_one_another(counts: list[int], num_stacks: int) -> None:
    stacks = [Stack(name=str(n), counts=counts, colour="red") for n in range(num_stacks)]
    frame = Frame(width=560, height=270)
    root = parsed(histogram("about", UNIT, stacks))
    columns = [r for r in root.iter("rect") if r.find("title") is not None]
    assert len(columns) == num_stacks * sum(count > 0 for count in counts)
    for column in columns:
        top = float(column.attrib["y"])
        bottom = top + float(column.attrib["height"])
        assert frame.top - 0.1 <= top <= bottom <= frame.height - frame.bottom + 0.1
    if counts[0]:
        mine = [c for c in columns if c.attrib["x"] == columns[0].attrib["x"]][:num_stacks]
        ends = [float(c.attrib["y"]) for c in mine]
        assert ends == sorted(ends, reverse=True)


@given(st.lists(st.floats(0, 1e9) | st.just(math.nan), max_size=20))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    bars = [Bar(label=f"bar {n}", value=value) for n, value in enumerate(values)]
    root = parsed(bar_chart("about", bars))
    widths = [float(r.attrib["width"]) for r in root.iter("rect")]
    assert len(widths) == len(values)
    for (a, first), (b, second) in zip(
        zip(values, widths, strict=True), zip(values[1:], widths[1:], strict=True), strict=False
    ):
        if a <= b:
            assert first <= second + 0.11
    assert all(190 + width <= 560 - 64 + 0.1 for width in widths)


@given(st.floats(1e-6, 1e12))
def test_ticks_start_at_nothing_and_reach_the_highest(high: float) -> None:
    ticks = nice_ticks(high)
    assert ticks[0] == 0
    assert ticks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(ticks) <= 7
    assert list(ticks) == sorted(set(ticks))


def test_counts_have_whole_ticks() -> None:
    assert nice_ticks(1, is_count=True) == (0.0, 1.0)
    assert nice_ticks(3, most=4, is_count=True) == (0.0, 1.0, 2.0, 3.0)
    assert nice_ticks(193, is_count=True) == (0.0, 50.0, 100.0, 150.0, 200.0)


@pytest.mark.parametrize("high", [0.0, -1.0, math.nan, math.inf])
def test_ticks_of_nothing(high: float) -> None:
    assert nice_ticks(high) == (0.0, 1.0)


def test_a_chart_says_what_it_shows() -> None:
    line = Line(name="by confidence", xs=[0, 1], ys=[0.2, 0.4], colour="red", notes=["first", "b"])
    rule = Rule(name="wanted", at=0.5, is_upright=False)
    root = parsed(xy_chart("risk against coverage", UNIT, UNIT, lines=[line], rules=[rule]))
    assert root.attrib["aria-label"] == "risk against coverage"
    assert root.attrib["role"] == "img"
    words = [text.text for text in root.iter("text")]
    assert {"by confidence", "wanted", "share", "0.2", "1"} <= set(words)
    assert [title.text for title in root.iter("title")] == ["wanted", "first", "b"]
    (drawn,) = root.iter("polyline")
    assert points_of(drawn)[0][0] == FRAME.left
    assert points_of(drawn)[0][1] > points_of(drawn)[1][1]


def test_percent() -> None:
    axis = Axis(label="", is_percent=True)
    assert [axis.words(tick) for tick in (0.0, 0.05, 1.0)] == ["0%", "5%", "100%"]
    assert UNIT.words(12_000.0) == "12,000"


def test_everything_from_data_is_escaped() -> None:
    axis = Axis(label=EVIL)
    line = Line(name=EVIL, xs=[0], ys=[0], colour="red", notes=[EVIL])
    rule = Rule(name=EVIL, at=0.5)
    charts = [
        xy_chart(EVIL, axis, axis, lines=[line], rules=[rule]),
        histogram(EVIL, axis, [Stack(name=EVIL, counts=[1, 2], colour="red")], rules=[rule]),
        bar_chart(EVIL, [Bar(label=EVIL, value=1.0)]),
    ]
    for chart in charts:
        assert parsed(chart).attrib["aria-label"] == EVIL
        assert "<script" not in chart.text


def test_empty_charts_are_charts() -> None:
    for chart in (xy_chart("a", UNIT, UNIT), histogram("b", UNIT, []), bar_chart("c", [])):
        assert parsed(chart).tag == "svg"


def test_legend_lies_below_the_plot_and_inside() -> None:
    lines = [Line(name="word " * 8, xs=[0], ys=[0], colour="red") for _ in range(5)]
    root = parsed(xy_chart("about", UNIT, UNIT, lines=lines))
    height = numbers(root.attrib["viewBox"])[3]
    places = [float(t.attrib["y"]) for t in root.iter("text") if t.text == lines[0].name]
    assert len(places) == 5
    assert all(FRAME.height < place <= height for place in places)
