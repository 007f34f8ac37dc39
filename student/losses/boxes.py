"""Boxes of the student: the two ways to write them, and generalised IoU.

`cxcywh` and `xyxy` are both in [0, 1] of the canvas; any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_AREA = 1e-12
"""Far below one pixel of the largest canvas, so that no true area is touched."""


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] to [..., 4]."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """[..., 4] to [..., 4]."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def paired_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """GIoU in (-1, 1] of the boxes at the same place; the leading dimensions broadcast.

    Two boxes without area give a finite number, and finite gradients, where torchvision's
    function gives NaN.

    Source: Rezatofighi et al., arXiv 1902.09630, algorithm 1.
    """
    overlap = _area(
        torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2]),
        torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]),
    )
    hull = _area(
        torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2]),
        torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]),
    )
    areas = [_area(boxes[..., :2], boxes[..., 2:]) for boxes in (a_xyxy, b_xyxy)]
    union = areas[0] + areas[1] - overlap
    iou = overlap / union.clamp(min=_LEAST_AREA)
    return iou - (hull - union) / hull.clamp(min=_LEAST_AREA)


def pairwise_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """[..., A, 4] and [..., B, 4] to the GIoU of every pair, [..., A, B]."""
    return paired_giou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def _area(low_xy: Tensor, high_xy: Tensor) -> Tensor:
    return (high_xy - low_xy).clamp(min=0).prod(-1)
