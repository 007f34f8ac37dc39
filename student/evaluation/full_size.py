"""Mask logits in an image's own size: up to the canvas, without the padding, then to the image.

Both steps are bilinear, as in Mask2Former's inference (arXiv 2112.01527, its public code). They are
linear and separable, so some rows can be made without the others: memory stays bounded for hundreds
of masks of an image of any size.

Legend: n masks, h and w the size of the logits, H and W the image's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where an image lies on the canvas that the network saw: at its top left.

    Attributes:
        canvas_hw: of the whole canvas.
        content_hw: the image's pixels on it; the rest is padding.
        size_hw: the image's own size.
    """

    canvas_hw: tuple[int, int]
    content_hw: tuple[int, int]
    size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        pairs = zip(self.content_hw, self.canvas_hw, strict=True)
        if not all(0 < content <= canvas for content, canvas in pairs) or min(self.size_hw) < 1:
            raise InputError(
                f"frame: expected an image of at least a pixel inside its canvas, got "
                f"{self.content_hw} on {self.canvas_hw} of an image of {self.size_hw}"
            )


class FullSize:
    """Makes rows of masks of one image; everything on the device of the logits."""

    def __init__(self, frame: Frame, logits: Tensor) -> None:
        """`logits` [n, h, w] cover the whole canvas."""
        self._frame, self._logits = frame, logits.float()
        self._vertical = _matrix(
            logits.shape[-2], frame.canvas_hw[0], frame.content_hw[0], frame.size_hw[0]
        ).to(logits.device)  # [H, h]

    def rows(self, top: int, bottom: int, *, masks: Tensor | slice | None = None) -> Tensor:
        """[n, bottom - top, W] logits of those rows of the image; `masks`: only of these."""
        chosen = self._logits if masks is None else self._logits[masks]
        weights = self._vertical[top:bottom]
        used = weights.any(dim=0).nonzero()[:, 0]
        first, last = int(used[0]), int(used[-1]) + 1  # the others have no weight in any row
        tall = weights[:, first:last] @ chosen[:, first:last]  # [n, rows, w]
        frame, num_rows = self._frame, bottom - top
        wide = _resized(tall, (num_rows, frame.canvas_hw[1]))[..., : frame.content_hw[1]]
        return _resized(wide, (num_rows, frame.size_hw[1]))

    def strips(self, *, num_masks: int, max_pixels: int) -> Iterator[tuple[int, int]]:
        """(top, bottom) of strips that cover the image, each with at most so many mask pixels."""
        height, width = self._frame.size_hw
        num_rows = max(1, max_pixels // max(1, num_masks * max(width, self._frame.canvas_hw[1])))
        for top in range(0, height, num_rows):
            yield top, min(top + num_rows, height)


def _matrix(low: int, canvas: int, content: int, full: int) -> Tensor:
    """[full, low]: both bilinear steps along one axis, found by what they do to unit vectors."""
    units = torch.eye(low)[:, :, None]  # [low vectors, low, 1]
    on_canvas = _resized(units, (canvas, 1))[:, :content]
    return _resized(on_canvas, (full, 1))[..., 0].T


def _resized(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """[n, *, *] to [n, *size_hw]."""
    if tuple(maps.shape[-2:]) == size_hw:
        return maps
    return F.interpolate(maps[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]
