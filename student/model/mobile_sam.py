"""MobileSAM's image encoder as a backbone: TinyViT-5M, its last stride 16, and SAM's neck.

Method: TinyViT (arXiv 2207.10666) as MobileSAM (arXiv 2306.14289) changed it and distilled SAM's
embeddings into it. To be trained it is made of timm's blocks; frozen it is the teachers' own, the
same function with its batch norms folded in, about twice as fast on a CPU.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.norm import LayerNorm2d
from timm.models.tiny_vit import Attention
from torch import Tensor, nn

from manifests.errors import WeightsError
from teachers.tiny_vit import TinyViT, translate

_STRIDES = (4, 8, 16, 16, 16)
_CHANNELS = (64, 128, 160, 320, 256)
_PREFIX = "image_encoder."
_UNUSED = re.compile(r"^(norm_head|head)\.")
"""The classification head TinyViT was pre-trained with; MobileSAM's file still carries it."""
_RENAMES = (
    (r"^patch_embed\.seq\.0\.", "stem.conv1."),
    (r"^patch_embed\.seq\.2\.", "stem.conv2."),
    (r"^layers\.0\.downsample\.", "stages.1.downsample."),
    (r"^layers\.1\.downsample\.", "stages.2.downsample."),
    (r"^layers\.2\.downsample\.", "stages.3.downsample."),
    (r"^layers\.", "stages."),
    (r"\.c\.weight$", ".conv.weight"),
)


class MobileSam(nn.Module):
    """Images to the maps of four stages, and the neck's: SAM's embedding.

    Attributes:
        strides, channels: of the maps that `forward` gives.
    """

    strides, channels = _STRIDES, _CHANNELS

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        model: Any = timm.create_model("tiny_vit_5m_224", num_classes=0, drop_path_rate=drop_path)
        without_cached_biases(model)
        self.stem: nn.Module = model.patch_embed
        self.stages: nn.Sequential = model.stages
        last: Any = self.stages[3]  # Any: timm's modules tell no attributes
        last.downsample.conv2.conv.stride = (1, 1)
        inner, dim = _CHANNELS[-2:]
        self.neck = nn.Sequential(
            nn.Conv2d(inner, dim, 1, bias=False),
            LayerNorm2d(dim, eps=1e-6),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            LayerNorm2d(dim, eps=1e-6),
        )

    def load_official(self, official: Mapping[str, Tensor]) -> None:
        """Takes the entries of MobileSAM's file; RuntimeError: not its."""
        self.load_state_dict(
            {_rename(name): value for name, value in official.items() if not _UNUSED.match(name)}
        )

    def stage_modules(self) -> list[list[nn.Module]]:
        """What belongs to each stage, the stem to the first and the neck to the last."""
        stages: list[list[nn.Module]] = [[stage] for stage in self.stages]
        stages[0].append(self.stem)
        stages[-1].append(self.neck)
        return stages

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to maps [B, C, h, w]."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps, self.neck(x)]


class FrozenMobileSam(nn.Module):
    """The same for inference alone; see `MobileSam`."""

    strides, channels = _STRIDES, _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.model = TinyViT()

    def load_official(self, official: Mapping[str, Tensor]) -> None:
        """Takes the entries of MobileSAM's file; RuntimeError or WeightsError: not its."""
        self.model.load_state_dict(translate(official))

    def stage_modules(self) -> list[list[nn.Module]]:
        """All of it."""
        return [[self.model]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to maps [B, C, h, w]."""
        x, maps = self.model.stem(images), []
        for index, stage in enumerate(self.model.stages):
            x = stage(x)
            maps.append(x)
            if index < len(self.model.downsamples):
                x = self.model.downsamples[index](x)
        return [*maps, self.model.neck(x)]


class _UncachedAttention(Attention):
    """timm's, which keeps position biases between evaluations, after which they are out of date."""

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """[1, h, w * w, w * w] biases of the present weights: four axes let attention be fused."""
        table: Tensor = self.attention_biases
        pairs: Any = self.attention_bias_idxs  # Any: a buffer
        return table[:, pairs][None]


def without_cached_biases(model: nn.Module) -> None:
    """Makes a TinyViT of timm follow its weights also when they change in evaluation mode (EMA)."""
    for module in model.modules():
        if type(module) is Attention:
            module.__class__ = _UncachedAttention


def load_official(model: MobileSam | FrozenMobileSam, path: Path) -> None:
    """Fills a model with MobileSAM's own file.

    Raises:
        WeightsError: it is not that file.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{path} is not MobileSAM's file, a state dict: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: expected a state dict, got {type(state).__name__}")
    encoder = {
        name.removeprefix(_PREFIX): state[name] for name in state if name.startswith(_PREFIX)
    }
    try:
        model.load_official(encoder)
    except RuntimeError as error:
        raise WeightsError(f"{path} holds another network than MobileSAM: {error}") from error


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
