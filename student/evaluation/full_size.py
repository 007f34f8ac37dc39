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


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """[rows, columns] logits of a part of the image from (top, left) on."""

    top: int
    left: int
    logits: Tensor


class FullSize:
    """Makes parts of masks of one image; everything on the device of the logits."""

    def __init__(self, frame: Frame, logits: Tensor) -> None:
        """`logits` [n, h, w] cover the whole canvas."""
        self._frame, self._logits = frame, logits.float()
        self._vertical, self._horizontal = (
            _matrix(*lengths).to(logits.device)  # [H, h], [W, w]
            for lengths in zip(
                logits.shape[-2:], frame.canvas_hw, frame.content_hw, frame.size_hw, strict=True
            )
        )

    def positive(self, mask: int) -> Crop | None:
        """The part of one mask outside which all its logits are 0 or less; None: all are."""
        low = self._logits[mask]
        is_positive = low > 0
        if not is_positive.any():
            return None
        # No bilinear weight is below 0: a pixel without a positive neighbour is not positive.
        top, bottom = _span(self._vertical, is_positive.any(dim=1))
        left, right = _span(self._horizontal, is_positive.any(dim=0))
        tall, wide = self._vertical[top:bottom], self._horizontal[left:right]
        y0, y1 = _used(tall)
        x0, x1 = _used(wide)
        logits = tall[:, y0:y1] @ low[y0:y1, x0:x1] @ wide[:, x0:x1].T
        return Crop(top=top, left=left, logits=logits)

    def rows(self, top: int, bottom: int) -> Tensor:
        """[n, bottom - top, W] logits of those rows of the image."""
        weights = self._vertical[top:bottom]
        first, last = _used(weights)
        tall = weights[:, first:last] @ self._logits[:, first:last]  # [n, rows, w]
        frame, num_rows = self._frame, bottom - top
        wide = _resized(tall, (num_rows, frame.canvas_hw[1]))[..., : frame.content_hw[1]]
        return _resized(wide, (num_rows, frame.size_hw[1]))

    def strips(self, *, num_masks: int, max_pixels: int) -> Iterator[tuple[int, int]]:
        """(top, bottom) of strips that cover the image, each with at most so many mask pixels."""
        height, width = self._frame.size_hw
        num_rows = max(1, max_pixels // max(1, num_masks * max(width, self._frame.canvas_hw[1])))
        for top in range(0, height, num_rows):
            yield top, min(top + num_rows, height)


def _span(matrix: Tensor, is_positive: Tensor) -> tuple[int, int]:
    """First and last + 1 of the pixels to which positive cells contribute; may be an empty span."""
    found = matrix[:, is_positive].any(dim=1).nonzero()[:, 0]
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def _used(weights: Tensor) -> tuple[int, int]:
    """First and last + 1 of the cells that have a weight in any of these pixels."""
    found = weights.any(dim=0).nonzero()[:, 0]
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


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
