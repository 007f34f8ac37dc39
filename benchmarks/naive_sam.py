"""Upstream's predictor around a teacher's own weights, for comparison."""

from __future__ import annotations

from typing import Any

import torch
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from teachers import weights


class Encoder(nn.Module):
    """The teacher's image encoder with the attribute that the predictor asks for."""

    img_size = 1024

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixels)  # type: ignore[no-any-return]


def upstream_predictor(teacher: Any) -> SamPredictor:
    """segment-anything's SamPredictor: MobileSAM's weights, prompt encoder and decoder as upstream."""
    state = torch.load(weights.fetch("mobile_sam"), weights_only=True, map_location="cpu")
    prompt_encoder = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(64, 64),
        input_image_size=(1024, 1024),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256,
    )
    model = Sam(Encoder(teacher._parts.encoder), prompt_encoder, decoder)
    rest = {key: value for key, value in state.items() if not key.startswith("image_encoder.")}
    model.load_state_dict(rest, strict=False)
    return SamPredictor(model.eval())
