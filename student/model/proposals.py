"""Conditional queries: the places of an image that look most like one of the texts.

Method: Mask DINO (arXiv 2206.02777, query selection), as two-stage Deformable DETR (arXiv
2010.04159, appendix): every token of the encoder scores the texts and refines a box of its level's
size around itself; the best by their highest score become queries.

Legend: B images, N tokens, C channels, K texts, k chosen tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from student.model.heads import Heads
from student.model.pyramid import Pyramid, token_centers, token_levels
from student.records import Predictions

_FINEST_SIDE = 0.05
_MARGIN = 0.01
"""Tokens nearer to the canvas's edge than this make no proposals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """The chosen tokens.

    Attributes:
        content: [B, k, C], without gradients.
        boxes_cxcywh: [B, k, 4], without gradients.
        predictions: what they say, with gradients: an auxiliary output.
    """

    content: Tensor
    boxes_cxcywh: Tensor
    predictions: Predictions


class ProposalHead(nn.Module):
    """Tokens to proposals."""

    def __init__(self, *, num: int, dim: int) -> None:
        super().__init__()
        self._num = num
        self.linear, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)

    def forward(self, pyramid: Pyramid, heads: Heads, projected_texts: Tensor) -> Proposals:
        """The best `num`, or all tokens where there are fewer; texts [K, C] are projected."""
        boxes = grid_boxes(pyramid)  # [N, 4]
        chosen = self._best(pyramid, boxes, heads, projected_texts)  # [B, k]
        content = self._content(_rows(pyramid.tokens, chosen))  # [B, k, C]
        refined = heads.refined(content, boxes[chosen])
        return Proposals(
            content=content.detach(),
            boxes_cxcywh=refined.detach(),
            predictions=heads.predict(content, refined, projected_texts),
        )

    @torch.no_grad()
    def _best(self, pyramid: Pyramid, boxes: Tensor, heads: Heads, texts: Tensor) -> Tensor:
        """[B, k] int64. Only the chosen need gradients, so they are made again afterwards."""
        is_inside = ((boxes > _MARGIN) & (boxes < 1 - _MARGIN)).all(dim=1)  # [N]
        scores = heads.class_logits(self._content(pyramid.tokens), texts).amax(dim=2)  # [B, N]
        scores = scores.masked_fill(pyramid.padding | ~is_inside, -torch.inf)
        return scores.topk(min(self._num, scores.shape[1]), dim=1).indices

    def _content(self, tokens: Tensor) -> Tensor:
        # In float32: scores of neighbours often differ by less than bfloat16 can tell.
        with torch.autocast(tokens.device.type, enabled=False):
            content: Tensor = self.norm(self.linear(tokens.float()))
        return content


def grid_boxes(pyramid: Pyramid) -> Tensor:
    """[N, 4] cxcywh: a square around each token, twice as large on each coarser level."""
    device = pyramid.tokens.device
    levels = token_levels(pyramid.shapes_hw, device)
    sides = _FINEST_SIDE * 2.0 ** levels[:, None]
    return torch.cat([token_centers(pyramid.shapes_hw, device), sides, sides], dim=1)


def _rows(tokens: Tensor, chosen: Tensor) -> Tensor:
    """[B, N, C] and [B, k] to [B, k, C]."""
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))
