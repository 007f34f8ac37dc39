"""The small blocks of linear layers that encoder, decoder and heads are made of."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, the residual, and a norm after it."""

    def __init__(self, *, dim: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, inner_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(inner_dim, dim),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        grown: Tensor = self.norm(x + self.layers(x))
        return grown


def build_mlp(in_dim: int, dim: int, out_dim: int, *, layers: int) -> nn.Sequential:
    """So many linear layers with ReLU between."""
    dims = [in_dim, *[dim] * (layers - 1), out_dim]
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(dims):
        parts += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts[:-1])
