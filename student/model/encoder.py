"""Segmentation encoder: a backbone's maps to tokens that know each other, and to pixel embeddings.

Method: Mask DINO (arXiv 2206.02777, segmentation branch): deformable layers over the maps of
stride 8, 16 and 32, then one step of a feature pyramid to the map of stride 4. Norms are over the
channels of each place, where Mask DINO has group norms over whole maps: so what is on a place does
not depend on how much of the canvas is padding.

Legend: B images, C channels of the transformer, N tokens, H and W the canvas in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.errors import InputError
from student.config import TransformerConfig
from student.model.backbone import MapInfo
from student.model.deformable_attention import DeformableAttention
from student.model.feedforward import FeedForward
from student.model.positions import sine_embedding
from student.model.pyramid import Pyramid, build_pyramid, token_centers, token_levels

STRIDES = (8, 16, 32)
_PIXEL_STRIDE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the encoder makes of a batch.

    Attributes:
        pyramid: tokens of STRIDES.
        pixel_embeddings: [B, C, H / 4, W / 4].
    """

    pyramid: Pyramid
    pixel_embeddings: Tensor


class SegmentationEncoder(nn.Module):
    """Backbone maps to a pyramid of tokens and to pixel embeddings."""

    def __init__(self, config: TransformerConfig, maps: Sequence[MapInfo]) -> None:
        super().__init__()
        _require_strides(maps)
        dim = config.dim
        self._maps = tuple(maps)
        self.projections = nn.ModuleList(_Projection(info.channels, dim) for info in maps)
        self.coarsest: _Halving | None = None
        if all(info.stride != STRIDES[-1] for info in maps):
            self.coarsest = _Halving(maps[-1].channels, dim)
        self.layers = nn.ModuleList(_EncoderLayer(config) for _ in range(config.encoder_layers))
        if config.encoder_layers:
            self.level_embeddings = nn.Parameter(torch.randn(len(STRIDES), dim))
        self.smooth = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.pixels = nn.Conv2d(dim, dim, 1)

    def forward(self, maps: Sequence[Tensor], padding: Tensor) -> Encoded:
        """The backbone's maps and the pixels' padding [B, H, W]."""
        levels = [self._level(maps, stride) for stride in STRIDES]
        pyramid = build_pyramid(levels, padding, STRIDES)
        if len(self.layers):
            pyramid = self._with_layers(pyramid)
        return Encoded(pyramid=pyramid, pixel_embeddings=self._pixel_embeddings(maps, pyramid))

    def _level(self, maps: Sequence[Tensor], stride: int) -> Tensor:
        """[B, C, H / stride, W / stride]; where the backbone has several maps, their sum."""
        if stride == STRIDES[-1] and self.coarsest is not None:
            coarsest: Tensor = self.coarsest(maps[-1])
            return coarsest
        projected: list[Tensor] = [
            projection(level)
            for projection, level, info in zip(self.projections, maps, self._maps, strict=True)
            if info.stride == stride
        ]
        return functools.reduce(torch.add, projected)

    def _with_layers(self, pyramid: Pyramid) -> Pyramid:
        device, dim = pyramid.tokens.device, pyramid.tokens.shape[2]
        centers = token_centers(pyramid.shapes_hw, device)  # [N, 2]
        of_levels = self.level_embeddings[token_levels(pyramid.shapes_hw, device)]
        positions = sine_embedding(centers, dim // 2) + of_levels  # [N, C]
        for layer in self.layers:
            pyramid = layer(pyramid, positions, centers[None])
        return pyramid

    def _pixel_embeddings(self, maps: Sequence[Tensor], pyramid: Pyramid) -> Tensor:
        lateral = self._level(maps, _PIXEL_STRIDE)
        above = F.interpolate(pyramid.level(0), scale_factor=2.0, mode="bilinear")
        smoothed = self.smooth(lateral + above).permute(0, 2, 3, 1)
        smoothed = F.relu(self.norm(smoothed)).permute(0, 3, 1, 2)
        embeddings: Tensor = self.pixels(smoothed)
        return embeddings


class _Projection(nn.Module):
    """A map to the transformer's channels."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(channels, dim), nn.LayerNorm(dim)

    def forward(self, level: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, C, h, w]."""
        projected: Tensor = self.norm(self.linear(level.permute(0, 2, 3, 1)))
        return projected.permute(0, 3, 1, 2)


class _Halving(nn.Module):
    """A level coarser than the backbone has, from its last map (Deformable DETR, appendix)."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, level: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, C, h / 2, w / 2]."""
        halved: Tensor = self.norm(self.conv(level).permute(0, 2, 3, 1))
        return halved.permute(0, 3, 1, 2)


class _EncoderLayer(nn.Module):
    """Every token looks around itself on all levels."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attention = DeformableAttention(
            dim=dim, heads=config.heads, levels=len(STRIDES), points=config.points
        )
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(dim)
        self.feedforward = FeedForward(
            dim=dim, inner_dim=config.feedforward, dropout=config.dropout
        )

    def forward(self, pyramid: Pyramid, positions: Tensor, centers: Tensor) -> Pyramid:
        """Positions [N, C] and centers [1, N, 2] of the tokens."""
        found = self.attention(pyramid.tokens + positions, centers, pyramid)
        tokens = self.norm(pyramid.tokens + self.dropout(found))
        return pyramid.with_tokens(self.feedforward(tokens))


def _require_strides(maps: Sequence[MapInfo]) -> None:
    given = sorted({info.stride for info in maps})
    if not {_PIXEL_STRIDE, *STRIDES[:-1]} <= set(given) <= {_PIXEL_STRIDE, *STRIDES}:
        raise InputError(
            f"backbone: expected maps of stride 4, 8, 16 and perhaps 32, got {given}; "
            "take a hierarchical one such as resnet50 or a Swin"
        )
