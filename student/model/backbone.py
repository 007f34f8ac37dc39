"""The image backbone: multi-scale maps, wholly or partly frozen, its batch norms always so.

Legend: B images, H and W the canvas in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn

from manifests.errors import InputError, WeightsError
from student.config import BackboneConfig
from student.model import mobile_sam
from student.model.mobile_sam import FrozenMobileSam, MobileSam
from student.model.timm_features import TimmFeatures, build_timm
from teachers import weights

Body = MobileSam | FrozenMobileSam | TimmFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """One of a backbone's maps: [B, channels, H / stride, W / stride]."""

    stride: int
    channels: int


class Backbone(nn.Module):
    """Images to maps, the finest first.

    Attributes:
        maps: what `forward` gives.
    """

    def __init__(self, body: Body, *, frozen_stages: int) -> None:
        """The first so many stages of the body are not trained; -1: none of it is."""
        super().__init__()
        self.body = body
        self.maps = tuple(
            MapInfo(stride=stride, channels=channels)
            for stride, channels in zip(body.strides, body.channels, strict=True)
        )
        self._is_frozen = frozen_stages < 0
        self._frozen = tuple(_frozen(body, frozen_stages))  # a tuple: registered already
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """As ever, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised images to the maps; H and W are multiples of 32."""
        if not self._is_frozen:
            return self.body(images)  # type: ignore[no-any-return]
        with torch.no_grad():
            return self.body(images)  # type: ignore[no-any-return]


def build_backbone(config: BackboneConfig, *, pretrained: bool = True) -> Backbone:
    """The backbone that the configuration names, in training mode.

    Args:
        config: which, with what weights, and how much of it is frozen.
        pretrained: False: load no weights, for those of a checkpoint follow.

    Raises:
        InputError: no such backbone, or no such stage.
        WeightsError: its weights are not to be had, or are another network's.
    """
    is_mobile_sam = config.name == "mobile_sam"
    other = "timm" if is_mobile_sam else "mobile_sam"
    if config.weights == other:
        raise InputError(f"backbone.weights: {other} has none for the backbone '{config.name}'")
    body: Body = (
        _mobile_sam(config, pretrained=pretrained)
        if is_mobile_sam
        else build_timm(config, pretrained=pretrained)
    )
    if config.weights != "none":
        # Their statistics are of many more images than a batch has (DETR, arXiv 2005.12872).
        freeze_batch_norm_2d(body)  # type: ignore[no-untyped-call]
    return Backbone(body, frozen_stages=config.frozen_stages).train()


def _mobile_sam(config: BackboneConfig, *, pretrained: bool) -> MobileSam | FrozenMobileSam:
    is_frozen = config.frozen_stages < 0
    body = FrozenMobileSam() if is_frozen else MobileSam(config.drop_path)
    if pretrained and config.weights == "mobile_sam":
        mobile_sam.load_official(body, weights.fetch("mobile_sam"))
    elif pretrained and config.weights != "none":
        _load_safetensors(body, Path(config.weights))
    return body


def _load_safetensors(body: nn.Module, path: Path) -> None:
    try:
        body.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise WeightsError(f"backbone.weights: there is no file {path}") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"backbone.weights: {path} does not fit the backbone: {error}"
        ) from error


def _frozen(body: Body, num_stages: int) -> Sequence[nn.Module]:
    if num_stages < 0:
        return [body]
    if not num_stages:
        return []
    stages = body.stage_modules()
    if num_stages > len(stages):
        raise InputError(
            f"backbone.frozen_stages: expected at most {len(stages)}, or -1 for all, got "
            f"{num_stages}"
        )
    return [module for stage in stages[:num_stages] for module in stage]
