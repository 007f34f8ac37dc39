"""Dice and cross-entropy of masks, on points.

Method: dice as in V-Net (Milletari et al., arXiv 1606.04797) with 1 added above and below, and
binary cross-entropy, both on PointRend's points, as in Mask2Former (arXiv 2112.01527).

Legend: M predicted masks, T targets, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from student.config import LossConfig
from student.losses.points import sample_logits, sample_masks, uncertain_points


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskLosses:
    """Sums over masks, each mask's loss times its weight; scalars."""

    dice: Tensor
    bce: Tensor


def dice_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """[M, P] logits against [M, P] shares in [0, 1]: one loss in [0, 1) for each mask, [M]."""
    probabilities = logits.sigmoid()
    shared = (probabilities * truth).sum(-1)
    return 1 - (2 * shared + 1) / (probabilities.sum(-1) + truth.sum(-1) + 1)


def bce_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """[M, P] logits against [M, P] shares in [0, 1]: the mean over points, [M]."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)


def pairwise_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """`dice_losses` of every query with every target: [B, Q, P] and [B, N, P] to [B, Q, N]."""
    probabilities = logits.sigmoid()
    shared = probabilities @ truth.mT
    totals = probabilities.sum(-1)[:, :, None] + truth.sum(-1)[:, None, :]
    return 1 - (2 * shared + 1) / (totals + 1)


def pairwise_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """`bce_losses` of every query with every target: [B, Q, P] and [B, N, P] to [B, Q, N].

    bce(x, t) = softplus(x) - x t, so one product of matrices does all pairs.
    """
    return (F.softplus(logits).sum(-1)[:, :, None] - logits @ truth.mT) / logits.shape[-1]


def point_mask_losses(
    logits: Tensor,
    masks: Tensor,
    rows: Tensor,
    weights: Tensor,
    *,
    config: LossConfig,
    generator: torch.Generator,
) -> MaskLosses:
    """The losses of predicted masks against their targets.

    Args:
        logits: [M, h, w] float32.
        masks: [T, H, W] uint8 of 0 and 1.
        rows: [M] int64, the target of each prediction.
        weights: [M] float32, what each mask's losses are multiplied by.
    """
    points = uncertain_points(
        logits,
        num_points=config.points,
        oversample=config.oversample,
        importance=config.importance,
        generator=generator,
    )
    truth = sample_masks(masks, rows, points)  # [M, P]
    predicted = sample_logits(logits, points)  # [M, P]
    return MaskLosses(
        dice=(dice_losses(predicted, truth) * weights).sum(),
        bce=(bce_losses(predicted, truth) * weights).sum(),
    )
