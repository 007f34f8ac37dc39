"""Learning rates by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from student.config import TrainConfig
from student.training.schedule import learning_rate_factor


def test_warm_up_is_linear_and_ends_at_one() -> None:
    config = TrainConfig(steps=100, warmup_steps=4, schedule="constant")
    found = [learning_rate_factor(step, config) for step in range(6)]
    assert found == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_goes_from_one_through_a_half_to_zero() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, schedule="cosine")
    assert learning_rate_factor(10, config) == 1
    assert learning_rate_factor(60, config) == pytest.approx(0.5)
    assert learning_rate_factor(110, config) == pytest.approx(0)


def test_steps_are_tenths_at_mask_dinos_milestones() -> None:
    config = TrainConfig()  # 368,750 steps; falls at 327,778 and 355,092, up to rounding shares
    assert learning_rate_factor(327_000, config) == 1
    assert learning_rate_factor(328_000, config) == pytest.approx(0.1)
    assert learning_rate_factor(355_000, config) == pytest.approx(0.1)
    assert learning_rate_factor(355_200, config) == pytest.approx(0.01)


@given(st.integers(1, 500), st.integers(0, 600), st.sampled_from(["cosine", "step", "constant"]))
def test_never_rises_after_the_warm_up(steps: int, warmup: int, schedule: str) -> None:
    config = TrainConfig(steps=steps, warmup_steps=warmup, schedule=schedule)
    found = [learning_rate_factor(step, config) for step in range(steps)]
    after = found[warmup:]
    assert all(0 <= factor <= 1 for factor in found)
    assert after == sorted(after, reverse=True)
