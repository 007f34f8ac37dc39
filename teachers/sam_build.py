"""The parts of a SAM, with the weights of an official file: encoder, prompt encoder, decoder."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segment_anything
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from manifests.errors import WeightsError
from teachers import tiny_vit
from teachers.sam_decoder import SamDecoder

_UPSTREAM = {
    "sam_vit_h": segment_anything.build_sam_vit_h,
    "sam_vit_l": segment_anything.build_sam_vit_l,
    "sam_vit_b": segment_anything.build_sam_vit_b,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamParts:
    """What a teacher needs of a SAM; all on one device, for inference only.

    Attributes:
        encoder: [B, 3, 1024, 1024] normalised pixels to [B, 256, 64, 64] embeddings.
        decoder: boxes of one image to mask logits.
    """

    encoder: nn.Module
    decoder: SamDecoder


def load_parts(name: str, path: Path, device: torch.device) -> SamParts:
    """The SAM of that registry name from its official weights file.

    Raises:
        WeightsError: the file is not a state dict of that model.
    """
    state = _read(path)
    model = _mobile_sam(state) if name == "sam_vit_t" else _upstream(name, state)
    model = model.eval().requires_grad_(False).to(device)
    with torch.inference_mode():
        decoder = SamDecoder(model["prompt_encoder"], model["mask_decoder"])
    return SamParts(encoder=model["image_encoder"], decoder=decoder)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{path} is not a PyTorch state dict: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: expected a state dict, got {type(state).__name__}")
    return state


def _upstream(name: str, state: Mapping[str, Tensor]) -> nn.ModuleDict:
    sam: Any = _UPSTREAM[name]()
    _load(sam, state)
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    return nn.ModuleDict({part: getattr(sam, part) for part in parts})


def _mobile_sam(state: Mapping[str, Tensor]) -> nn.ModuleDict:
    """SAM's own prompt encoder and decoder behind a TinyViT (MobileSAM, section 3)."""
    prefix = "image_encoder."
    encoder = tiny_vit.load(
        {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    )
    rest = prompt_encoder_and_decoder()
    _load(rest, {key: state[key] for key in state if not key.startswith(prefix)})
    return nn.ModuleDict({"image_encoder": encoder, **dict(rest.items())})


def prompt_encoder_and_decoder() -> nn.ModuleDict:
    """SAM's `prompt_encoder` and `mask_decoder`, the same for every image encoder; not trained."""
    return nn.ModuleDict(
        {
            "prompt_encoder": PromptEncoder(
                embed_dim=256,
                image_embedding_size=(64, 64),
                input_image_size=(1024, 1024),
                mask_in_chans=16,
            ),
            "mask_decoder": MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
                ),
                transformer_dim=256,
            ),
        }
    )


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit the model: {error}") from error
