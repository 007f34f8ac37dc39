"""Multi-scale deformable attention: each query looks at a few points of every level.

Method: Deformable DETR (arXiv 2010.04159, section 4.1; initialisation: its appendix).
Plain torch. The samples of all queries are as large as dozens of feature maps; they are made an
image at a time on the CPU, where they then stay in its caches, and made again for the gradients.

Legend: B images, Q queries, N tokens, C channels, h heads, d channels of a head, L levels,
P points of a level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from student.model.pyramid import Pyramid

Shapes = tuple[tuple[int, int], ...]
_BILINEAR, _ZEROS = 0, 0
"""What `grid_sampler_2d` calls them."""


class DeformableAttention(nn.Module):
    """Queries with reference points or boxes, to what they find around them."""

    def __init__(self, *, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.values = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self._reset()

    def _reset(self) -> None:
        """Each head looks in its own direction, its points further and further out."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)  # [h, 2]
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * distances[:, None]  # [h, 1, P, 2]
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        for zeroed in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zeroed)
        for layer in (self.values, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, references: Tensor, pyramid: Pyramid) -> Tensor:
        """What the queries find.

        Args:
            queries: [B, Q, C], position included.
            references: [B or 1, Q, 2] points or [B or 1, Q, 4] cxcywh boxes, in [0, 1] of the
                canvas. Around a point, an offset of 1 is a token; in a box, P is half a side.
            pyramid: where they look; padded tokens count as zeros.

        Returns:
            [B, Q, C].
        """
        values = self.values(pyramid.tokens).masked_fill(pyramid.padding[..., None], 0)
        values = values.unflatten(2, (self.heads, -1)).float()  # [B, N, h, d]
        with torch.autocast(queries.device.type, enabled=False):
            locations = self._locations(queries.float(), references, pyramid.shapes_hw)
            weights = self.weights(queries.float()).unflatten(2, (self.heads, -1)).softmax(dim=3)
            weights = weights.unflatten(3, (self.levels, self.points))  # [B, Q, h, L, P]
            found = sample(values, locations, weights, pyramid.shapes_hw)  # [B, Q, C]
        attended: Tensor = self.out(found)
        return attended

    def _locations(self, queries: Tensor, references: Tensor, shapes_hw: Shapes) -> Tensor:
        """[B, Q, h, L, P, 2], x and y in [0, 1] of the canvas."""
        shape = (self.heads, self.levels, self.points, 2)
        offsets = self.offsets(queries).unflatten(2, shape)
        centers = references[:, :, None, None, None, :2]
        if references.shape[2] == 2:
            sizes_wh = torch.tensor([(w, h) for h, w in shapes_hw], device=queries.device)
            return centers + offsets / sizes_wh[:, None]  # type: ignore[no-any-return]
        sides = references[:, :, None, None, None, 2:]
        return centers + offsets * sides * (0.5 / self.points)  # type: ignore[no-any-return]


def sample(values: Tensor, locations: Tensor, weights: Tensor, shapes_hw: Shapes) -> Tensor:
    """Weighted sums of bilinear samples; outside the maps there are zeros.

    Args:
        values: [B, N, h, d] float32.
        locations: [B, Q, h, L, P, 2] float32, x and y in [0, 1].
        weights: [B, Q, h, L, P] float32.
        shapes_hw: rows and columns of the L levels.

    Returns:
        [B, Q, h * d].
    """
    batch, heads = len(values), values.shape[2]
    values = values.permute(0, 2, 3, 1).flatten(0, 1)  # [B h, d, N]
    grids = (locations * 2 - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # [B h, L, P, Q, 2]
    weights = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # [B h, L, P, Q]
    step = len(values) if values.is_cuda else heads
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        apply: Any = _Sampling.apply  # Any: torch gives it no type
        sums: Tensor = apply(values, grids, weights, shapes_hw, step)
    else:
        sums = _forward(values, grids, weights, shapes_hw, step)
    return sums.view(batch, -1, sums.shape[2]).transpose(1, 2)


class _Sampling(torch.autograd.Function):
    """`_forward` without keeping the samples for the way back."""

    @staticmethod
    def forward(
        context: Any,  # Any: torch gives it no type
        values: Tensor,
        grids: Tensor,
        weights: Tensor,
        shapes_hw: Shapes,
        step: int,
    ) -> Tensor:
        context.save_for_backward(values, grids, weights)
        context.shapes_hw, context.step = shapes_hw, step
        return _forward(values, grids, weights, shapes_hw, step)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        chunks = _chunks(*context.saved_tensors, gradient, step=context.step)
        parts = [_chunk_backward(context.shapes_hw, *chunk) for chunk in chunks]
        of_values, of_grids, of_weights = (torch.cat(part) for part in zip(*parts, strict=True))
        return of_values, of_grids, of_weights, None, None


def _chunks(*batches: Tensor, step: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(batch, step) for batch in batches), strict=True)


def _forward(
    values: Tensor, grids: Tensor, weights: Tensor, shapes_hw: Shapes, step: int
) -> Tensor:
    """[B h, d, N], [B h, L, P, Q, 2] and [B h, L, P, Q] to [B h, d, Q], `step` of B h at a time."""
    chunks = _chunks(values, grids, weights, step=step)
    return torch.cat([_chunk_forward(shapes_hw, *chunk) for chunk in chunks])


def _chunk_forward(shapes_hw: Shapes, values: Tensor, grids: Tensor, weights: Tensor) -> Tensor:
    sums = [
        (_samples(level, grid) * weight[:, None]).sum(dim=2)
        for level, grid, weight in zip(
            _levels(values, shapes_hw), grids.unbind(1), weights.unbind(1), strict=True
        )
    ]
    return torch.stack(sums).sum(dim=0)


def _chunk_backward(
    shapes_hw: Shapes, values: Tensor, grids: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, grids and weights from that of the sums [B h, d, Q]."""
    of_values, of_grids, of_weights = [], [], []
    gradient = gradient[:, :, None]  # [B h, d, 1, Q]
    for level, grid, weight in zip(
        _levels(values, shapes_hw), grids.unbind(1), weights.unbind(1), strict=True
    ):
        of_weights.append((_samples(level, grid) * gradient).sum(dim=1))
        of_level, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            gradient * weight[:, None], level, grid, _BILINEAR, _ZEROS, False, [True, True]
        )
        of_values.append(of_level.flatten(2))
        of_grids.append(of_grid)
    return torch.cat(of_values, 2), torch.stack(of_grids, 1), torch.stack(of_weights, 1)


def _levels(values: Tensor, shapes_hw: Shapes) -> list[Tensor]:
    """[B h, d, N] to maps [B h, d, rows, columns]."""
    parts = torch.split(values, [rows * columns for rows, columns in shapes_hw], dim=2)
    return [
        part.reshape(*part.shape[:2], *shape) for part, shape in zip(parts, shapes_hw, strict=True)
    ]


def _samples(level: Tensor, grid: Tensor) -> Tensor:
    """[B h, d, rows, columns] at [B h, P, Q, 2] in [-1, 1]: [B h, d, P, Q]."""
    return torch.grid_sampler_2d(level, grid, _BILINEAR, _ZEROS, False)
