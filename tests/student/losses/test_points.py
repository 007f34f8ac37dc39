"""Points: bilinear sampling is grid_sample, and uncertain points lie where masks are in doubt."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from student.losses.points import (
    sample_features,
    sample_logits,
    sample_masks,
    uncertain_points,
    uniform_points,
)
from tests.student.losses.synthetic import seeded

CPU = torch.device("cpu")


def by_grid_sample(maps: Tensor, points: Tensor) -> Tensor:
    grid = (2 * points - 1)[:, None]
    sampled = F.grid_sample(
        maps[:, None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[:, 0, 0]


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_masks_are_sampled_as_grid_sample_does(height: int, width: int, seed: int) -> None:
    generator = seeded(seed)
    masks = torch.randint(0, 2, (3, height, width), generator=generator, dtype=torch.uint8)
    rows = torch.tensor([2, 0, 2, 1])
    points = torch.rand(4, 20, 2, generator=generator)
    points[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(
        sample_masks(masks, rows, points), by_grid_sample(masks[rows], points), atol=1e-4, rtol=0
    )


def test_pixel_centres_and_edges_give_the_pixels_themselves() -> None:
    masks = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.uint8)
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0, 0], [1, 1], [0.5, 0.25]]])
    expected = torch.tensor([[1, 0, 0, 1, 1, 0.5]])
    torch.testing.assert_close(sample_masks(masks, torch.tensor([0]), points), expected)
    torch.testing.assert_close(sample_logits(masks.float(), points), expected)


def test_sampling_features_then_multiplying_is_sampling_the_product() -> None:
    features = torch.randn(2, 6, 4, 5, generator=seeded())
    weights = torch.randn(2, 3, 6, generator=seeded(1))
    points = torch.rand(2, 11, 2, generator=seeded(2))
    maps = torch.einsum("bqc,bchw->bqhw", weights, features)
    expected = torch.stack([sample_logits(maps[:, q], points) for q in range(3)], dim=1)
    torch.testing.assert_close(weights @ sample_features(features, points), expected)


def test_nothing_is_sampled_from_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert sample_logits(torch.zeros(0, 4, 4), torch.zeros(0, 7, 2)).shape == (0, 7)
    masks = torch.zeros(0, 4, 4, dtype=torch.uint8)
    assert sample_masks(masks, none, torch.zeros(0, 7, 2)).shape == (0, 7)


def test_uniform_points_cover_the_canvas_and_follow_the_seed() -> None:
    points = uniform_points(3, 4000, generator=seeded(5), device=CPU)
    again = uniform_points(3, 4000, generator=seeded(5), device=CPU)
    assert torch.equal(points, again)
    assert points.min() >= 0
    assert points.max() < 1
    counts = torch.histc(points[..., 0], bins=4, min=0, max=1) / points[..., 0].numel()
    torch.testing.assert_close(counts, torch.full((4,), 0.25), atol=0.02, rtol=0)


def doubtful_at_the_middle() -> Tensor:
    """[1, 1, 64]: logits that rise from left to right, 0 in the middle column."""
    return torch.linspace(-8, 8, 64)[None, None]


@pytest.mark.parametrize("importance", [0.0, 0.75, 1.0])
def test_uncertain_points_crowd_where_logits_are_near_zero(importance: float) -> None:
    points = uncertain_points(
        doubtful_at_the_middle(),
        num_points=1000,
        oversample=4,
        importance=importance,
        generator=seeded(),
    )
    assert points.shape == (1, 1000, 2)
    # The most uncertain of four times as many candidates lie within an eighth of the middle, or as
    # far as their share of P reaches; of the uniform ones, a quarter does.
    near = ((points[..., 0] - 0.5).abs() < importance / 8 + 0.01).float().mean()
    by_chance = (1 - importance) * (importance / 4 + 0.02)
    assert near == pytest.approx(importance + by_chance, abs=0.05)


def test_uncertain_points_need_no_gradient() -> None:
    logits = doubtful_at_the_middle().requires_grad_()
    points = uncertain_points(
        logits, num_points=10, oversample=1, importance=0.5, generator=seeded()
    )
    assert not points.requires_grad
