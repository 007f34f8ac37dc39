"""Low-resolution SAM logits to full-size masks and the model's own signals.

Legend: n boxes, c candidates, W and H the image's size. Maps are transposed (x before y), so that
each [H, W] mask plane is column-major, which is the order RLE runs in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.sam_frame import Upsampler

STABILITY_OFFSET = 1.0
"""As in SAM's automatic mask generator."""
_MARGIN = 2
"""Low-resolution pixels around the foreground that bilinear interpolation may reach."""
_MEASURED_PIXELS = 2**18
"""Signals of a larger map are measured on every k-th pixel of it in both directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSizeMasks:
    """Masks and signals of one chunk, on the CPU.

    Attributes:
        masks: [n, c, W, H] uint8, interpolated logit > 0.
        stability: [n, c] area(logit > +1) / area(logit > -1), 0 for an empty mask.
        mean_foreground: [n, c] mean of sigmoid(logit) where logit > 0, 0 if nowhere.
        tight_xyxy: [n, c, 4] the masks' own boxes in pixels; zeros for an empty mask.
    """

    masks: Tensor
    stability: Tensor
    mean_foreground: Tensor
    tight_xyxy: Tensor


def full_size(logits: Tensor, upsampler: Upsampler) -> FullSizeMasks:
    """Masks from [n, c, 256, 256] logits, both steps of upstream's interpolation in one.

    Only the part around logits > -1 is computed: elsewhere all neighbours are <= -1, and so is
    what lies between them. Small objects on large images cost little.
    """
    n, c = logits.shape[:2]
    size = len(upsampler.x.matrix), len(upsampler.y.matrix)
    masks = torch.zeros((n, c, *size), dtype=torch.uint8, device=logits.device)
    signals = torch.zeros((n, c, 6), device=logits.device)
    near = logits > -STABILITY_OFFSET
    spans_x, spans_y = _spans(near.any(dim=3)), _spans(near.any(dim=2))  # [n, c, 2]
    for i in range(n):
        for j in range(c):
            (x0, x1), (y0, y1) = spans_x[i][j], spans_y[i][j]
            columns, rows = upsampler.x.made_of(x0, x1), upsampler.y.made_of(y0, y1)
            if columns.start == columns.stop or rows.start == rows.stop:
                continue
            part = upsampler.x.matrix[columns, x0:x1] @ logits[i, j, x0:x1, y0:y1]
            part = part @ upsampler.y.matrix[rows, y0:y1].T
            torch.gt(part, 0, out=masks[i, j, columns, rows])
            _measure(part, out=signals[i, j, :2])
            _find_box(part > 0, (columns.start, rows.start), out=signals[i, j, 2:])
    signals = signals.cpu()
    return FullSizeMasks(
        masks=masks.cpu(),
        stability=signals[..., 0],
        mean_foreground=signals[..., 1],
        tight_xyxy=signals[..., 2:],
    )


def _measure(part: Tensor, *, out: Tensor) -> None:
    """Writes stability and mean foreground probability of one map to [2]."""
    step = max(1, math.isqrt(part.numel() // _MEASURED_PIXELS))
    part = part[::step, ::step]
    inside = part > 0
    low = (part > -STABILITY_OFFSET).sum()
    out[0] = (part > STABILITY_OFFSET).sum() / low.clamp(min=1)
    out[1] = (part.sigmoid() * inside).sum() / inside.sum().clamp(min=1)


def _find_box(inside: Tensor, corner_xy: tuple[int, int], *, out: Tensor) -> None:
    """Writes the tight box of one [x, y] map, whose corner lies at `corner_xy`, to [4]."""
    for axis in (0, 1):
        hit = inside.any(dim=1 - axis)
        numbers = hit.to(torch.uint8)
        last = len(hit) - numbers.flip(0).argmax()
        out[axis] = (numbers.argmax() + corner_xy[axis]) * hit.any()
        out[axis + 2] = (last + corner_xy[axis]) * hit.any()


def _spans(hit: Tensor) -> list[list[tuple[int, int]]]:
    """[n, c, 256] flags to the widened half-open range that holds them all; (0, 0) if none."""
    length = hit.shape[-1]
    numbers = hit.to(torch.uint8)
    some = hit.any(dim=-1)
    first = (numbers.argmax(dim=-1) - _MARGIN).clamp(min=0) * some
    last = (length - numbers.flip(-1).argmax(dim=-1) + _MARGIN).clamp(max=length) * some
    return [
        list(zip(a, b, strict=True)) for a, b in zip(first.tolist(), last.tolist(), strict=True)
    ]
