"""The decoder: learnable and conditional queries tell each other what they know, then look.

Method: MQ-Former (CVPR 2025, section 3) on Mask DINO's decoder (arXiv 2206.02777).
MQ-Former gives neither the order nor the norms of its dual-query cross-attention. Here a layer is
1. cross-attention both ways, learnable to conditional and conditional to learnable, both from the
   same input, each with its residual and norm; noised targets stand in for conditional queries,
   so they look at the learnable ones as those do, and no query sees them;
2. self-attention over all queries;
3. deformable cross-attention to the encoder's tokens, inside the query's box;
4. feed-forward;
and then every box is refined (Deformable DETR, arXiv 2010.04159, iterative refinement). Positions
are embeddings of the boxes (DAB-DETR, arXiv 2201.12329).

Legend: B images, Q queries, C channels, N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from student.config import TransformerConfig
from student.model.deformable_attention import DeformableAttention
from student.model.encoder import STRIDES
from student.model.feedforward import FeedForward, build_mlp
from student.model.heads import Heads
from student.model.positions import sine_embedding
from student.model.pyramid import Pyramid
from student.model.queries import Queries
from student.records import Predictions


class Decoder(nn.Module):
    """Queries to predictions, one before the first layer and one after each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.layers = nn.ModuleList(_DecoderLayer(config) for _ in range(config.decoder_layers))
        self.positions = build_mlp(2 * dim, dim, dim, layers=2)

    def forward(
        self, queries: Queries, pyramid: Pyramid, heads: Heads, projected_texts: Tensor
    ) -> list[Predictions]:
        """What the queries say at first, and after each layer; texts [K, C] are projected."""
        content, boxes = queries.content, queries.boxes_cxcywh
        said = [heads.predict(content, boxes, projected_texts)]
        for layer in self.layers:
            positions = self.positions(sine_embedding(boxes, content.shape[2] // 2))  # [B, Q, C]
            content = layer(content, positions, boxes, queries, pyramid)
            refined = heads.refined(content, boxes)
            said.append(heads.predict(content, refined, projected_texts))
            boxes = refined.detach()
        return said


class _DecoderLayer(nn.Module):
    """See the file's head."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        is_mixed = config.learnable_queries > 0 and config.conditional_queries > 0
        self.fusion = _Fusion(config) if config.query_fusion and is_mixed else None
        self.among = _Attention(config)
        self.to_image = DeformableAttention(
            dim=dim, heads=config.heads, levels=len(STRIDES), points=config.points
        )
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(dim)
        self.feedforward = FeedForward(
            dim=dim, inner_dim=config.feedforward, dropout=config.dropout
        )

    def forward(
        self,
        content: Tensor,
        positions: Tensor,
        boxes_cxcywh: Tensor,
        queries: Queries,
        pyramid: Pyramid,
    ) -> Tensor:
        """New contents [B, Q, C]; of `queries`, only what kind they are and what is hidden."""
        if self.fusion is not None:
            content = self.fusion(content, positions, queries)
        content = self.among(content, positions, content, positions, hidden=queries.hidden)
        found = self.to_image(content + positions, boxes_cxcywh, pyramid)
        content = self.norm(content + self.dropout(found))
        fed: Tensor = self.feedforward(content)
        return fed


class _Fusion(nn.Module):
    """Cross-attention both ways between the two kinds of queries."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.to_conditional = _Attention(config)
        self.to_learnable = _Attention(config)

    def forward(self, content: Tensor, positions: Tensor, queries: Queries) -> Tensor:
        """Contents and positions [B, Q, C] to new contents."""
        num, end = queries.num_learnable, queries.num_learnable + queries.num_conditional
        learnable, of_learnable = content[:, :num], positions[:, :num]
        others, of_others = content[:, num:], positions[:, num:]  # conditional, noised
        conditional, of_conditional = content[:, num:end], positions[:, num:end]
        return torch.cat(
            [
                self.to_conditional(learnable, of_learnable, conditional, of_conditional),
                self.to_learnable(others, of_others, learnable, of_learnable),
            ],
            dim=1,
        )


class _Attention(nn.Module):
    """Multi-head attention with residual and norm; positions count for where, not for what."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self.attention = nn.MultiheadAttention(
            config.dim, config.heads, dropout=config.dropout, batch_first=True
        )
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.dim)

    def forward(
        self,
        content: Tensor,
        positions: Tensor,
        others: Tensor,
        of_others: Tensor,
        *,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Contents [B, Q, C] after a look at others [B, R, C]; `hidden` is [B, Q, R]."""
        if hidden is not None:
            hidden = hidden.repeat_interleave(self._heads, dim=0)  # [B h, Q, R]
        found, _ = self.attention(
            content + positions, others + of_others, others, attn_mask=hidden, need_weights=False
        )
        attended: Tensor = self.norm(content + self.dropout(found))
        return attended
