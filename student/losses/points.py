"""Points on masks: where a loss looks, and what maps and masks say there.

Method: PointRend (Kirillov et al., arXiv 1912.08193, section 3.1 and its "non-uniform sampling" for
training), as Mask2Former uses it for losses (arXiv 2112.01527, section 3.3.2).

Legend: M masks, P points, T targets, C channels, h and w a map's size, H and W a mask's.
A point is (x, y) in [0, 1] of the canvas; pixel i of n has its centre at (i + 0.5) / n. Between the
outermost centres and the canvas's edge a value is that of the edge.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform_points(
    num_sets: int, num_points: int, *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """[num_sets, num_points, 2], uniform on the canvas.

    They are drawn where the generator lives: one on `device` saves the copy.
    """
    drawn = torch.rand(num_sets, num_points, 2, generator=generator, device=generator.device)
    return drawn.to(device)


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    *,
    num_points: int,
    oversample: float,
    importance: float,
    generator: torch.Generator,
) -> Tensor:
    """[M, P, 2]: points on [M, h, w] mask logits, most of them where the mask is in doubt.

    Args:
        num_points: P.
        oversample: so many times P uniform candidates are looked at.
        importance: the share of P that goes to the candidates with logits nearest to 0; the rest is
            uniform.
    """
    num_masks, device = len(logits), logits.device
    num_uncertain = int(importance * num_points)
    num_candidates = max(int(oversample * num_points), num_uncertain)
    rest = uniform_points(num_masks, num_points - num_uncertain, generator=generator, device=device)
    if not num_uncertain:
        return rest
    candidates = uniform_points(num_masks, num_candidates, generator=generator, device=device)
    doubt = -sample_logits(logits, candidates).abs()  # [M, candidates]
    chosen = doubt.topk(num_uncertain, dim=1, sorted=False).indices  # [M, uncertain]
    nearest = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([nearest, rest], dim=1)


def sample_features(features: Tensor, points: Tensor) -> Tensor:
    """[M, C, h, w] at [M, P, 2], each map at its own points, bilinear: [M, C, P]."""
    if not len(features):
        return features.new_zeros(0, features.shape[1], points.shape[1])
    grid = (2 * points - 1)[:, None]  # [M, 1, P, 2]
    return F.grid_sample(features, grid, padding_mode="border", align_corners=False)[:, :, 0]


def sample_logits(logits: Tensor, points: Tensor) -> Tensor:
    """[M, h, w] at [M, P, 2], each map at its own points, bilinear: [M, P]."""
    return sample_features(logits[:, None], points)[:, 0]


def sample_masks(masks: Tensor, rows: Tensor, points: Tensor) -> Tensor:
    """Masks [T, H, W] of 0 and 1, row `rows[m]` at [M, P, 2], bilinear: [M, P] float32.

    It reads four pixels for each point, so that no mask of the canvas's size is copied or turned
    into floats.
    """
    height, width = masks.shape[1:]
    pixels = masks.reshape(-1)
    x_low, x_high, x_share = _neighbours(points[..., 0], width)
    y_low, y_high, y_share = _neighbours(points[..., 1], height)
    starts = rows[:, None] * (height * width)
    above, below = starts + y_low * width, starts + y_high * width
    upper = torch.lerp(pixels[above + x_low].float(), pixels[above + x_high].float(), x_share)
    lower = torch.lerp(pixels[below + x_low].float(), pixels[below + x_high].float(), x_share)
    return torch.lerp(upper, lower, y_share)


def _neighbours(positions: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels around positions in [0, 1] of an axis, and how near each is to the second."""
    centred = (positions * size - 0.5).clamp(0, size - 1)
    low = centred.floor()
    index = low.long()
    return index, (index + 1).clamp(max=size - 1), centred - low
