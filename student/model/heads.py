"""The heads that all layers and the proposals share: class by text, box, and mask embedding.

Classes are similarities to text embeddings (MQ-Former, section 3; OpenSeeD, arXiv 2303.08131):
the projected query times the projected text, whose length is 1. Boxes and mask embeddings are
Mask DINO's. All results are float32, for scores near the prior and boxes need its precision.

Legend: B images, Q queries, C channels, K texts, E channels of a text embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student.model.feedforward import build_mlp
from student.model.positions import inverse_sigmoid
from student.records import Predictions

_PRIOR = 0.01
"""Every score at first, so that the many queries without object do not drown the others (RetinaNet,
arXiv 1708.02002, section 4.1)."""


class Heads(nn.Module):
    """What a query says."""

    def __init__(self, *, dim: int, text_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Linear(dim, dim)
        self.texts = nn.Linear(text_dim, dim)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.tensor(math.log(_PRIOR / (1 - _PRIOR))))
        self.boxes = build_mlp(dim, dim, 4, layers=3)
        self.masks = build_mlp(dim, dim, dim, layers=3)
        for parameter in self.boxes[-1].parameters():
            nn.init.zeros_(parameter)  # a box starts where it is

    def project(self, texts: Tensor) -> Tensor:
        """[K, E] to [K, C] float32 of unit length, for the other methods."""
        with torch.autocast(texts.device.type, enabled=False):
            return F.normalize(self.texts(texts.float()), dim=1)

    def class_logits(self, queries: Tensor, projected_texts: Tensor) -> Tensor:
        """[B, Q, C] to [B, Q, K] float32."""
        with torch.autocast(queries.device.type, enabled=False):
            projected = self.queries(self.norm(queries.float()))
            similarities = projected @ projected_texts.T  # [B, Q, K]
            return similarities * self.log_scale.exp() + self.bias  # type: ignore[no-any-return]

    def refined(self, queries: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """Boxes [B, Q, 4] moved and sized as their queries [B, Q, C] say; float32."""
        with torch.autocast(queries.device.type, enabled=False):
            change = self.boxes(self.norm(queries.float()))
            return torch.sigmoid(inverse_sigmoid(boxes_cxcywh) + change)

    def predict(self, queries: Tensor, boxes_cxcywh: Tensor, texts: Tensor) -> Predictions:
        """Everything that [B, Q, C] say of projected texts [K, C], with these boxes [B, Q, 4]."""
        return Predictions(
            class_logits=self.class_logits(queries, texts),
            boxes_cxcywh=boxes_cxcywh,
            mask_embeddings=self.masks(self.norm(queries)).float(),
        )
