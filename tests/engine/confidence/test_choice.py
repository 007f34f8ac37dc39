"""Which output is taken: the base stays unless another promises enough, and noise moves nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.confidence.choice import NEVER, Choice, fit_choice
from engine.confidence.outputs import Floats, Output

A, A1, B = (Output.of(name) for name in ("a", "a.1", "b"))
OUTPUTS = (A, A1, B)
NAN = float("nan")


def taken(values: list[list[float]], *, base: Output = A, margin: float = 0.1) -> list[str]:
    choice = Choice(base=base, margin=margin)
    columns = choice(OUTPUTS, np.array(values, np.float32))
    return [OUTPUTS[column].name for column in columns]


def test_the_base_stays_unless_another_is_above_it_by_the_margin() -> None:
    assert taken([[0.5, 0.55, 0.52], [0.5, 0.62, 0.61], [0.5, 0.61, 0.62], [0.9, 0.1, 0.2]]) == [
        "a", "a.1", "b", "a",
    ]  # fmt: skip
    assert taken([[0.5, 0.5, 0.501]], margin=0.0) == ["b"]
    assert taken([[0.5, 0.5, 0.5]], margin=0.0) == ["a"]
    assert taken([[0.0, 1.0, 1.0]], margin=NEVER) == ["a"]


def test_outputs_that_are_not_there_are_never_taken() -> None:
    assert taken([[NAN, 0.1, 0.2], [NAN, 0.2, NAN], [0.1, NAN, NAN]], margin=NEVER) == [
        "b", "a.1", "a",
    ]  # fmt: skip
    assert taken([[NAN, NAN, NAN]]) == ["a"]
    nothing = Choice(base=A, margin=0.1)
    assert nothing((), np.zeros((3, 0), np.float32)).tolist() == [0, 0, 0]
    assert len(nothing(OUTPUTS, np.zeros((0, 3), np.float32))) == 0


def test_without_the_base_among_the_outputs_the_highest_is_taken() -> None:
    choice = Choice(base=Output.of("gone"), margin=0.5)
    assert choice((A, B), np.array([[0.1, 0.2], [0.3, NAN]], np.float32)).tolist() == [1, 0]


VALUE = st.floats(0, 1, width=32) | st.just(NAN)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=12), st.floats(0, 1))
def test_it_is_the_base_or_the_highest_whatever_the_values(
    rows: list[tuple[float, float, float]], margin: float
) -> None:
    values = np.array(rows, np.float32)
    for row, column in zip(values, Choice(base=B, margin=margin)(OUTPUTS, values), strict=True):
        if np.isnan(row).all():
            continue
        highest = np.nanmax(row)
        assert row[column] == highest or column == 2
        assert column == 2 or np.isnan(row[2]) or highest > row[2] + np.float32(margin)


def noise(
    rng: np.random.Generator, num: int, bias: float = 0.1
) -> tuple[dict[Output, Floats], dict[Output, Floats]]:
    """Confidences that say nothing of IoUs; `b` is worse than `a` on the whole."""
    ious = {A: rng.random(num), B: rng.random(num) - bias}
    confidence = {output: rng.random(num) for output in ious}
    return (
        {output: values.astype(np.float32) for output, values in confidence.items()},
        {output: np.clip(values, 0, 1).astype(np.float32) for output, values in ious.items()},
    )


def test_noise_does_not_lead_to_something_worse() -> None:
    rng, lost = np.random.default_rng(0), []
    for _ in range(200):
        choice = fit_choice(*noise(rng, 150, bias=0.3))
        assert choice.base == A
        fresh, truth = noise(rng, 400, bias=0.3)
        column = choice((A, B), np.stack([fresh[A], fresh[B]], 1))
        lost.append(float(np.where(column == 0, 0, truth[B] - truth[A]).mean()))
    assert np.mean(lost) > -0.003  # following confidence always would lose 0.12


def test_a_gain_that_may_be_luck_is_not_followed() -> None:
    rng = np.random.default_rng(0)
    margins = [fit_choice(*noise(rng, 150, bias=0.02)).margin for _ in range(200)]
    assert np.mean([margin < NEVER for margin in margins]) < 0.2  # any gain at all: in 0.37 of them


def test_confidence_that_knows_is_followed() -> None:
    rng = np.random.default_rng(1)
    iou = {output: rng.random(300).astype(np.float32) for output in (A, A1, B)}
    choice = fit_choice(iou, iou)
    assert choice.margin <= 0.01
    assert choice.base in iou


def test_the_base_is_the_best_own_choice_and_never_a_candidate() -> None:
    flat = np.full(50, 0.5, np.float32)
    iou = {A: flat, A1: flat + 0.4, B: flat + 0.1}
    assert fit_choice(dict.fromkeys(iou, flat), iou) == Choice(base=B, margin=NEVER)


def test_a_category_has_a_base_of_its_own_where_another_teacher_is_surely_better() -> None:
    rng, size = np.random.default_rng(5), 200
    names = np.array(["person", "bag", "hat"]).repeat([60, 130, 10])
    categories = pa.array(names.tolist()).dictionary_encode()
    a = rng.uniform(0.7, 0.9, size)
    b = a + np.where(names == "bag", -0.2, 0.02) + rng.normal(0, 0.03, size)
    iou = {A: a.astype(np.float32), A1: (a - 0.3).astype(np.float32), B: b.astype(np.float32)}
    confidence = {output: np.full(size, 0.8, np.float32) for output in iou}
    found = fit_choice(confidence, iou, categories)
    assert (found.base, found.bases) == (A, {"person": B})  # ten hats say nothing
    values = np.full((size, 3), 0.8, np.float32)
    assert found(OUTPUTS, values, categories).tolist() == np.where(names == "person", 2, 0).tolist()
    assert found((A, A1), values[:, :2], categories).tolist() == [0] * size  # b is not asked for
    assert fit_choice(confidence, iou).bases == {}


def test_the_base_of_a_category_gives_way_like_any_other() -> None:
    choice = Choice(base=A, margin=0.1, bases={"person": B})
    categories = pa.array(["person", "person", "bag", "person"]).dictionary_encode()
    values = np.array([[0.6, 0, 0.5], [0.7, 0, 0.5], [0.5, 0, 0.6], [0.5, 0.4, NAN]], np.float32)
    assert choice(OUTPUTS, values, categories).tolist() == [2, 0, 0, 0]
    assert len(choice(OUTPUTS, values[:0], categories[:0])) == 0


@pytest.mark.parametrize("num_missing", [60, 140])
def test_boxes_that_the_base_did_not_draw_say_nothing_for_a_margin(num_missing: int) -> None:
    """Others win there whatever the margin is: that must not pay for switching elsewhere."""
    rng = np.random.default_rng(4)
    confidence, iou = noise(rng, 200, bias=0.3)
    iou[A] = np.minimum(iou[A] + 0.6, 1)
    confidence[A][:num_missing] = iou[A][:num_missing] = NAN
    iou[A][num_missing:] = 0.95
    assert fit_choice(confidence, iou).margin == NEVER
