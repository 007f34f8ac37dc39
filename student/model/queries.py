"""The decoder's queries: learnable ones, conditional ones, and in training noised targets.

Legend: B images, L learnable, Q all queries, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from student.model.positions import inverse_sigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """In this order: learnable, conditional, noised.

    Attributes:
        content: [B, Q, C].
        boxes_cxcywh: [B, Q, 4] in [0, 1], where each looks first.
        num_learnable, num_conditional: the rest are noised.
        hidden: [B, Q, Q] bool, True where the first may not see the second; None: all see all.
    """

    content: Tensor
    boxes_cxcywh: Tensor
    num_learnable: int
    num_conditional: int
    hidden: Tensor | None


class LearnableQueries(nn.Module):
    """Contents and boxes that are the same for every image (DAB-DETR, arXiv 2201.12329)."""

    def __init__(self, *, num: int, dim: int) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.randn(num, dim))
        centers, sides = torch.rand(num, 2), torch.empty(num, 2).uniform_(0.1, 0.9)
        self.box_logits = nn.Parameter(inverse_sigmoid(torch.cat([centers, sides], dim=1)))

    def forward(self, batch: int) -> tuple[Tensor, Tensor]:
        """Contents [B, L, C] and boxes cxcywh [B, L, 4]."""
        boxes = self.box_logits.sigmoid()
        return self.content.expand(batch, -1, -1), boxes.expand(batch, -1, -1)
