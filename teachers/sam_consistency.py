"""How much a SAM's answers agree: with each other, and with those for a box moved a little.

Both are measured on the 256 x 256 maps that the decoder gives, which costs next to nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_iou(outputs: Tensor, others: Tensor) -> Tensor:
    """[n, c] IoU of each mask with the most like of some others.

    Args:
        outputs: [n, c, ...] bool.
        others: [n, d, ...] bool.
    """
    best: Tensor = _iou(outputs, others).amax(dim=2)
    return best


def mean_iou_of_others(outputs: Tensor) -> Tensor:
    """[n, c] mean IoU of each of [n, c, ...] bool masks with the other c - 1; c is at least 2."""
    c = outputs.shape[1]
    iou = _iou(outputs, outputs) * (1 - torch.eye(c, device=outputs.device))
    mean: Tensor = iou.sum(dim=2) / (c - 1)
    return mean


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """[n, c, d]; 0 for two empty masks."""
    first, second = a.flatten(2).float(), b.flatten(2).float()  # [n, c, p], [n, d, p]
    both = first @ second.transpose(1, 2)
    either = first.sum(2)[:, :, None] + second.sum(2)[:, None] - both
    return both / either.clamp(min=1)
