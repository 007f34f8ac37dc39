"""Mask losses: slow loops, all pairs against single pairs, weights, tiny masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from student.losses.mask_losses import (
    MaskLosses,
    bce_losses,
    dice_losses,
    pairwise_bce,
    pairwise_dice,
    point_mask_losses,
)
from tests.student.losses.synthetic import CONFIG, SIDE, make_targets, seeded


def slow_dice(logits: Tensor, truth: Tensor) -> float:
    chances = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    shared = sum(p * t for p, t in zip(chances, truth.tolist(), strict=True))
    return 1 - (2 * shared + 1) / (sum(chances) + sum(truth.tolist()) + 1)


def slow_bce(logits: Tensor, truth: Tensor) -> float:
    chances = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    losses = [
        -t * math.log(p) - (1 - t) * math.log(1 - p)
        for p, t in zip(chances, truth.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


def test_losses_are_those_of_slow_loops() -> None:
    logits = torch.randn(4, 9, generator=seeded()) * 2
    truth = torch.rand(4, 9, generator=seeded(1))
    pairs = list(zip(logits, truth, strict=True))
    torch.testing.assert_close(
        dice_losses(logits, truth), torch.tensor([slow_dice(x, t) for x, t in pairs])
    )
    torch.testing.assert_close(
        bce_losses(logits, truth), torch.tensor([slow_bce(x, t) for x, t in pairs])
    )


def test_all_pairs_are_the_single_pairs() -> None:
    logits = torch.randn(2, 5, 33, generator=seeded()) * 4
    truth = (torch.rand(2, 3, 33, generator=seeded(1)) > 0.5).float()
    for pairwise, single in ((pairwise_dice, dice_losses), (pairwise_bce, bce_losses)):
        costs = pairwise(logits, truth)
        assert costs.shape == (2, 5, 3)
        for image, query, column in torch.cartesian_prod(
            torch.arange(2), torch.arange(5), torch.arange(3)
        ):
            expected = single(logits[image, query][None], truth[image, column][None])[0]
            torch.testing.assert_close(costs[image, query, column], expected)


def losses_of(logits: Tensor, masks: Tensor, weights: list[float]) -> MaskLosses:
    return point_mask_losses(
        logits,
        masks,
        torch.arange(len(masks)),
        torch.tensor(weights),
        config=CONFIG,
        generator=seeded(3),
    )


def test_a_right_mask_costs_little_and_a_wrong_one_much() -> None:
    masks = make_targets(3).masks
    right = (masks.float() * 2 - 1) * 20
    ones = [1.0, 1.0, 1.0]
    good, bad = losses_of(right, masks, ones), losses_of(-right, masks, ones)
    # The points between two pixels, where truth is a share, keep it from 0.
    assert good.dice < 1
    assert bad.dice > 2
    assert bad.bce > 10 * good.bce


def test_each_mask_counts_by_its_weight() -> None:
    logits = torch.randn(2, SIDE // 4, SIDE // 4, generator=seeded())
    masks = make_targets(2).masks
    first, second, both, mixed = (
        losses_of(logits, masks, weights) for weights in ([1, 0], [0, 1], [1, 1], [0.25, 0.5])
    )
    for name in ("dice", "bce"):
        a, b = getattr(first, name), getattr(second, name)
        torch.testing.assert_close(getattr(both, name), a + b)
        torch.testing.assert_close(getattr(mixed, name), a / 4 + b / 2)


@pytest.mark.parametrize("pixels", [0, 1, SIDE * SIDE])
def test_masks_of_no_pixel_one_pixel_and_all_pixels_are_finite(pixels: int) -> None:
    mask = torch.zeros(SIDE * SIDE, dtype=torch.uint8)
    mask[:pixels] = 1
    logits = torch.randn(1, 4, 4, generator=seeded()).requires_grad_()
    losses = losses_of(logits, mask.reshape(1, SIDE, SIDE), [1.0])
    (losses.dice + losses.bce).backward()
    assert logits.grad is not None
    assert losses.dice.isfinite()
    assert losses.bce.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0
