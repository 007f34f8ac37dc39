"""Low-resolution SAM logits to full-size masks and the model's own signals.

Legend: n boxes, c candidates, W and H the image's size. Maps are transposed (x before y), so that
each [H, W] mask plane is column-major, which is the order RLE runs in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachers.sam_frame import Frame, Upsampler

STABILITY_OFFSET = 1.0
"""As in SAM's automatic mask generator."""
_MARGIN = 2
"""Low-resolution pixels around the positive logits that bilinear interpolation may reach."""


def full_size(logits: Tensor, upsampler: Upsampler) -> Tensor:
    """[n, c, 256, 256] logits to [n, c, W, H] uint8 masks on the CPU: interpolated logit > 0.

    Where all neighbouring logits are <= 0 their interpolation is too, so on the CPU only the part
    around positive logits is computed; small objects on large images cost little.
    """
    if logits.is_cuda:
        return _whole(logits, upsampler)
    return _cropped(logits, upsampler)


def _whole(logits: Tensor, upsampler: Upsampler) -> Tensor:
    width, height = len(upsampler.columns), len(upsampler.rows)
    masks = torch.empty((*logits.shape[:2], width, height), dtype=torch.uint8)
    for index, candidates in enumerate(logits.float()):  # one box at a time bounds the float maps
        maps = upsampler.columns @ candidates @ upsampler.rows.T  # [c, W, H]
        masks[index] = (maps > 0).to("cpu", torch.uint8)
    return masks


def _cropped(logits: Tensor, upsampler: Upsampler) -> Tensor:
    width, height = len(upsampler.columns), len(upsampler.rows)
    masks = torch.zeros((*logits.shape[:2], width, height), dtype=torch.uint8)
    positive = logits > 0
    spans_x, spans_y = _spans(positive.any(dim=3)), _spans(positive.any(dim=2))  # [n, c, 2]
    reach_x, reach_y = _reach(upsampler.columns), _reach(upsampler.rows)
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            (x0, x1), (y0, y1) = spans_x[i][j], spans_y[i][j]
            if x1 <= x0:
                continue
            left, right = _touched(reach_x, x0, x1)
            top, bottom = _touched(reach_y, y0, y1)
            columns = upsampler.columns[left:right, x0:x1]
            rows = upsampler.rows[top:bottom, y0:y1]
            part = columns @ logits[i, j, x0:x1, y0:y1] @ rows.T
            torch.gt(part, 0, out=masks[i, j, left:right, top:bottom])
    return masks


def _spans(hit: Tensor) -> list[list[tuple[int, int]]]:
    """[n, c, 256] flags to the widened half-open range that holds them all; (0, 0) if none."""
    length = hit.shape[-1]
    numbers = hit.to(torch.uint8)
    first = numbers.argmax(dim=-1)
    last = length - numbers.flip(-1).argmax(dim=-1)
    some = hit.any(dim=-1)
    first = (first - _MARGIN).clamp(min=0) * some
    last = (last + _MARGIN).clamp(max=length) * some
    return [
        list(zip(a, b, strict=True)) for a, b in zip(first.tolist(), last.tolist(), strict=True)
    ]


def _reach(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """[full] first and last low-resolution pixel that each full-size pixel is made of."""
    used = (matrix != 0).to(torch.uint8)
    return used.argmax(dim=1), matrix.shape[1] - 1 - used.flip(1).argmax(dim=1)


def _touched(reach: tuple[Tensor, Tensor], start: int, stop: int) -> tuple[int, int]:
    """The range of full-size pixels made of low-resolution pixels in [start, stop) only."""
    first, last = reach
    begin = int(torch.searchsorted(first, start))
    end = int(torch.searchsorted(last, stop))
    return begin, max(begin, end)


def stability(logits: Tensor, frame: Frame) -> Tensor:
    """[n, c] area(logit > +1) / area(logit > -1), 0 for an empty mask.

    Measured on the low-resolution logits outside the padding: within 0.01 of the full size's.
    """
    inner = _without_padding(logits, frame)
    high = (inner > STABILITY_OFFSET).sum(dim=(2, 3))
    low = (inner > -STABILITY_OFFSET).sum(dim=(2, 3))
    return high / low.clamp(min=1)


def mean_foreground(logits: Tensor, frame: Frame) -> Tensor:
    """[n, c] mean of sigmoid(logit) where logit > 0 (BoxTeacher's mask score), 0 if nowhere."""
    inner = _without_padding(logits, frame)
    inside = inner > 0
    total = (inner.sigmoid() * inside).sum(dim=(2, 3))
    return total / inside.sum(dim=(2, 3)).clamp(min=1)


def _without_padding(logits: Tensor, frame: Frame) -> Tensor:
    height, width = frame.low_res_hw
    return logits[:, :, :width, :height]
