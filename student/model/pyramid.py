"""Feature maps of several strides as one row of tokens, and what places they stand for.

Legend: B images, N tokens of all levels together, C channels, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """Levels of tokens, the finest first, each row by row.

    Attributes:
        tokens: [B, N, C].
        padding: [B, N] bool, True where a token's top left pixel is none of the image.
        shapes_hw: rows and columns of each level.
    """

    tokens: Tensor
    padding: Tensor
    shapes_hw: tuple[tuple[int, int], ...]

    def with_tokens(self, tokens: Tensor) -> Pyramid:
        """The same places with other contents."""
        return Pyramid(tokens=tokens, padding=self.padding, shapes_hw=self.shapes_hw)

    def level(self, index: int) -> Tensor:
        """[B, C, h, w], one level as a map."""
        sizes = [height * width for height, width in self.shapes_hw]
        tokens = torch.split(self.tokens, sizes, dim=1)[index]  # [B, h w, C]
        return tokens.transpose(1, 2).view(*tokens.shape[::2], *self.shapes_hw[index])


def build_pyramid(maps: Sequence[Tensor], padding: Tensor, strides: Sequence[int]) -> Pyramid:
    """Maps [B, C, h, w] of these strides and the pixels' padding [B, H, W] to a pyramid."""
    tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
    is_padding = [padding[:, ::stride, ::stride].flatten(1) for stride in strides]
    shapes_hw = tuple((level.shape[2], level.shape[3]) for level in maps)
    return Pyramid(tokens=tokens, padding=torch.cat(is_padding, dim=1), shapes_hw=shapes_hw)


def token_centers(shapes_hw: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """[N, 2] float32: x and y of every token's middle, in [0, 1] of the canvas."""
    return torch.cat([_centers(height, width, device) for height, width in shapes_hw])


def token_levels(shapes_hw: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """[N] int64: the level of every token."""
    levels = [
        torch.full((height * width,), index, device=device)
        for index, (height, width) in enumerate(shapes_hw)
    ]
    return torch.cat(levels)


def _centers(height: int, width: int, device: torch.device) -> Tensor:
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=2).flatten(0, 1)
