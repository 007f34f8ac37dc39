"""SAM's mask decoder for box prompts, with its linear maps folded so that image tokens stay as is.

Method: Segment Anything (arXiv 2304.02643), appendix A, with segment_anything's trained weights.
The result is upstream's up to rounding; the order of multiplications is another. There, 4,096 image
tokens are projected to queries, keys and values seven times a box. Here the projections move to the
side of the seven prompt tokens: (W x) . q = x . (W' q), so each attention is two thin products with
the image tokens. What depends on the image alone is computed once an image.

Legend: n boxes, p = 64 * 64 image tokens, t = 7 prompt tokens (1 IoU, 4 masks, 2 corners),
C = 256 channels, h = 8 heads, d channels a head, g = h * t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GRID = 64
_NUM_MASKS = 4
_NORM_EPS = 1e-6


class SamDecoder:
    """Boxes of one image to low-resolution mask logits; holds weights only, no image."""

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        """Takes segment_anything's trained `PromptEncoder` and `MaskDecoder` (untyped upstream)."""
        transformer = mask_decoder.transformer
        self._prompts = prompt_encoder
        self._decoder = mask_decoder
        self._no_mask: Tensor = prompt_encoder.no_mask_embed.weight  # [1, C]
        self._position: Tensor = _as_tokens(prompt_encoder.get_dense_pe()[0])  # [p, C]
        self._output_tokens = torch.cat(
            [mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight]
        )  # [5, C]
        self._layers = [_Layer.of(layer) for layer in transformer.layers]
        self._final = _FromImage.of(transformer.final_attn_token_to_image)
        self._final_norm: nn.Module = transformer.norm_final_attn
        self._upscaling = _Upscaling.of(mask_decoder.output_upscaling)

    def image_tokens(self, embedding: Tensor) -> Tensor:
        """[C, 64, 64] image embedding to [p, C] tokens, once an image."""
        return _as_tokens(embedding) + self._no_mask

    def decode(self, image_tokens: Tensor, box_square: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits and predicted IoUs of some boxes.

        Args:
            image_tokens: [p, C] from `image_tokens`.
            box_square: [n, 4] xyxy in pixels of the 1024 x 1024 square.

        Returns:
            [n, 4, 256, 256] logits, x before y (transposed), and [n, 4] predicted IoUs. Output 0 is
            the single mask, 1 to 3 the multi-mask outputs.
        """
        corners, _ = self._prompts(points=None, boxes=box_square, masks=None)  # [n, 2, C]
        output = self._output_tokens.expand(len(box_square), -1, -1)
        prompt = torch.cat([output, corners], dim=1)  # [n, t, C]
        tokens, image = prompt, image_tokens[None]  # [n, t, C], [1 (then n), p, C]
        for layer in self._layers:
            tokens, image = layer(tokens, image, prompt=prompt, position=self._position)
        attended = self._final(tokens + prompt, image + self._position, image)
        tokens = self._final_norm(tokens + attended)
        heads = self._decoder.output_hypernetworks_mlps
        weights = [heads[i](tokens[:, 1 + i]) for i in range(_NUM_MASKS)]  # each [n, 32]
        logits = self._upscaling(image, torch.stack(weights, dim=2))
        iou: Tensor = self._decoder.iou_prediction_head(tokens[:, 0])
        return logits, iou


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One two-way block: tokens to themselves, to the image, through an MLP; image to tokens."""

    self_attention: Any
    from_image: _FromImage
    to_image: _ToImage
    mlp: nn.Module
    norms: tuple[nn.Module, nn.Module, nn.Module, nn.Module]
    first: bool

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        return cls(
            self_attention=layer.self_attn,
            from_image=_FromImage.of(layer.cross_attn_token_to_image),
            to_image=_ToImage.of(layer.cross_attn_image_to_token),
            mlp=layer.mlp,
            norms=(layer.norm1, layer.norm2, layer.norm3, layer.norm4),
            first=layer.skip_first_layer_pe,
        )

    def __call__(
        self, tokens: Tensor, image: Tensor, *, prompt: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attention(q=tokens, k=tokens, v=tokens)
        else:
            query = tokens + prompt
            tokens = tokens + self.self_attention(q=query, k=query, v=tokens)
        tokens = self.norms[0](tokens)
        placed = image + position  # [1 or n, p, C]
        tokens = self.norms[1](tokens + self.from_image(tokens + prompt, placed, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](self.to_image(tokens + prompt, tokens, placed, image))
        return tokens, image


@dataclass(frozen=True, slots=True, kw_only=True)
class _FromImage:
    """Prompt tokens attend to the image.

    The bias of the keys adds the same to all logits of one query: softmax does not see it. The bias
    of the values passes through, for attention weights sum to 1.
    """

    q_proj: nn.Module
    key: Tensor  # [h, d, C], with 1 / sqrt(d) in it
    value: Tensor  # [h, d, C]
    value_bias: Tensor  # [h, d]
    out_proj: nn.Module

    @classmethod
    def of(cls, attention: Any) -> _FromImage:
        return cls(
            q_proj=attention.q_proj,
            key=_by_head(attention.k_proj.weight, attention) * _scale(attention),
            value=_by_head(attention.v_proj.weight, attention),
            value_bias=_by_head(attention.v_proj.bias, attention),
            out_proj=attention.out_proj,
        )

    def __call__(self, query: Tensor, placed: Tensor, image: Tensor) -> Tensor:
        """[n, t, C], [1 or n, p, C] twice to [n, t, C]; without the residual."""
        n, t, _ = query.shape
        heads, head_dim, _ = self.key.shape
        q = self.q_proj(query).view(n, t, heads, head_dim)
        probes = torch.einsum("nthd,hdc->nhtc", q, self.key).reshape(n, heads * t, -1)  # [n, g, C]
        weights = torch.softmax(probes @ placed.transpose(1, 2), dim=-1)  # [n, g, p]
        mixed = (weights @ image).view(n, heads, t, -1)  # [n, h, t, C]
        values = torch.einsum("nhtc,hdc->nthd", mixed, self.value) + self.value_bias
        attended: Tensor = self.out_proj(values.reshape(n, t, heads * head_dim))
        return attended


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToImage:
    """The image attends to the prompt tokens."""

    query: Tensor  # [h, d, C], with 1 / sqrt(d) in it
    query_bias: Tensor  # [h, d], likewise
    k_proj: nn.Module
    v_proj: nn.Module
    out: Tensor  # [h, d, C]
    out_bias: Tensor  # [C]

    @classmethod
    def of(cls, attention: Any) -> _ToImage:
        return cls(
            query=_by_head(attention.q_proj.weight, attention) * _scale(attention),
            query_bias=_by_head(attention.q_proj.bias, attention) * _scale(attention),
            k_proj=attention.k_proj,
            v_proj=attention.v_proj,
            out=_by_head(attention.out_proj.weight.T, attention),
            out_bias=attention.out_proj.bias,
        )

    def __call__(self, key: Tensor, value: Tensor, placed: Tensor, image: Tensor) -> Tensor:
        """[n, t, C] twice, [1 or n, p, C] twice to [n, p, C]; with the residual."""
        n, t, _ = key.shape
        heads, head_dim, _ = self.query.shape
        k = self.k_proj(key).view(n, t, heads, head_dim)
        v = self.v_proj(value).view(n, t, heads, head_dim)
        # t outside, h inside: the softmax over t then runs along contiguous memory.
        probes = torch.einsum("nthd,hdc->nthc", k, self.query).reshape(n, t * heads, -1)
        offset = torch.einsum("nthd,hd->nth", k, self.query_bias).reshape(n, t * heads, 1)
        logits = (probes @ placed.transpose(1, 2)) + offset  # [n, g, p]
        weights = torch.softmax(logits.view(n, t, -1), dim=1).view(n, t * heads, -1)
        outputs = torch.einsum("nthd,hdc->nthc", v, self.out).reshape(n, t * heads, -1)  # [n, g, C]
        return torch.baddbmm(image + self.out_bias, weights.transpose(1, 2), outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upscaling:
    """Two transposed 2 x 2 convolutions with stride 2 as products: no pixel sees a neighbour."""

    first: tuple[Tensor, Tensor]  # [C, 4 * 64] by (y, x, channel), [4 * 64]
    norm: Any
    second: tuple[Tensor, Tensor]  # [64, 4 * 32], [4 * 32]

    @classmethod
    def of(cls, upscaling: Any) -> _Upscaling:
        return cls(
            first=_as_product(upscaling[0]), norm=upscaling[1], second=_as_product(upscaling[3])
        )

    def __call__(self, image: Tensor, weights: Tensor) -> Tensor:
        """[n, p, C] and [n, 32, m] mask weights to [n, m, 256 (x), 256 (y)] logits."""
        n, _, num_masks = weights.shape
        norm_weight, norm_bias = self.norm.weight, self.norm.bias
        x = F.linear(image, self.first[0].T, self.first[1]).view(n, -1, len(norm_weight))
        x = F.gelu(F.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, _NORM_EPS))
        x = F.gelu(F.linear(x, self.second[0].T, self.second[1]).view(n, -1, weights.shape[1]))
        logits = (x @ weights).view(n, _GRID, _GRID, 2, 2, 2, 2, num_masks)  # y x, y x, y x, m
        return logits.permute(0, 7, 2, 4, 6, 1, 3, 5).reshape(n, num_masks, _GRID * 4, _GRID * 4)


def _as_tokens(chw: Tensor) -> Tensor:
    """[C, 64, 64] to [p, C], contiguous."""
    return chw.flatten(1).T.contiguous()


def _by_head(weight: Tensor, attention: Any) -> Tensor:
    """[h * d, ...] to [h, d, ...]."""
    return weight.reshape(attention.num_heads, -1, *weight.shape[1:])


def _scale(attention: Any) -> float:
    return float((attention.internal_dim // attention.num_heads) ** -0.5)


def _as_product(convolution: Any) -> tuple[Tensor, Tensor]:
    """A [in, out, 2, 2] transposed convolution as [in, (y, x, out)] and its bias four times."""
    weight = convolution.weight.permute(0, 2, 3, 1).reshape(convolution.weight.shape[0], -1)
    return weight.contiguous(), convolution.bias.repeat(4)
