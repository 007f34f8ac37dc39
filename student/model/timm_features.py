"""timm's models as bodies of a backbone: maps of stride 4 and coarser, on any canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from manifests.errors import InputError, WeightsError
from student.config import BackboneConfig
from student.model.mobile_sam import without_cached_biases

_FINEST_STRIDE = 4
_REFUSALS = (OSError, RuntimeError, ValueError, KeyError, SafetensorError)
"""Of timm: no hub or file, another network's weights, no such arguments."""
_ANY_CANVAS: tuple[dict[str, bool], ...] = (
    {"strict_img_size": False},
    {"dynamic_img_size": True},
    {},
)
"""How timm's windowed models, its plain transformers, and convolutional ones take any canvas."""


class TimmFeatures(nn.Module):
    """A timm model with `features_only`.

    Attributes:
        strides, channels: of the maps that `forward` gives, the finest first.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        infos: list[dict[str, Any]] = model.feature_info.info  # type: ignore[assignment, union-attr]
        self._kept = [i for i, info in enumerate(infos) if info["reduction"] >= _FINEST_STRIDE]
        self._ends = [str(infos[i]["module"]) for i in self._kept]
        self.strides = tuple(int(infos[i]["reduction"]) for i in self._kept)
        self.channels = tuple(int(infos[i]["num_chs"]) for i in self._kept)
        self._is_channels_last = str(getattr(model, "output_fmt", "")).endswith("NHWC")
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to maps [B, C, h, w]."""
        maps = self.model(images)
        if self._is_channels_last:
            return [maps[i].permute(0, 3, 1, 2) for i in self._kept]
        return [maps[i] for i in self._kept]

    def stage_modules(self) -> list[list[nn.Module]]:
        """What belongs to each map's stage, the stem to the first.

        Raises:
            InputError: the model is not a row of stages.
        """
        names = [name for name, _ in self.model.named_modules()]
        ends = [end if end in names else end.replace(".", "_") for end in self._ends]
        stages: list[list[nn.Module]] = [[]]
        for name, module in _row(self.model, ends):
            if len(stages) > len(ends):
                break
            stages[-1].append(module)
            if name in ends[len(stages) - 1 :]:
                stages.append([])
        if len(stages) != len(ends) + 1:
            raise InputError(
                f"backbone.frozen_stages: {type(self.model).__name__} is no row of stages; "
                "expected 0 or -1"
            )
        return stages[:-1]


def _row(model: nn.Module, ends: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The model's parts in order; a container that holds ends is taken apart."""
    row = []
    for name, child in model.named_children():
        inner = [(f"{name}.{key}", part) for key, part in child.named_children()]
        row += inner if any(end.startswith(f"{name}.") for end in ends) else [(name, child)]
    return row


def build_timm(config: BackboneConfig, *, pretrained: bool) -> TimmFeatures:
    """The model of that name; `pretrained`: with the weights that the configuration says.

    Raises:
        InputError: timm has no such model, or it gives no maps.
        WeightsError: the weights are not to be had, or are another network's.
    """
    if not timm.is_model(config.name):
        raise InputError(
            f"backbone.name: expected mobile_sam or a model of timm, got '{config.name}'"
        )
    given: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    if pretrained and config.weights != "none":
        given |= {"pretrained": True} | _overlay(config.weights)
    try:
        model = _create(config.name, given)
    except _REFUSALS as error:
        if "pretrained" not in given:
            raise InputError(f"backbone '{config.name}' gives no maps: {error}") from error
        raise WeightsError(
            f"backbone '{config.name}': no weights from {_source(config.weights)}: {error}; "
            "give backbone.weights the path of a safetensors file, or none"
        ) from error
    without_cached_biases(model)
    return TimmFeatures(model)


def _overlay(source: str) -> dict[str, Any]:
    if source == "timm":
        return {}
    if not Path(source).is_file():
        raise WeightsError(f"backbone.weights: there is no file {source}")
    return {"pretrained_cfg_overlay": {"file": source}}


def _source(weights: str) -> str:
    return "timm's hub" if weights == "timm" else weights


def _create(name: str, given: Mapping[str, Any]) -> nn.Module:
    for option in _ANY_CANVAS:
        try:
            options: dict[str, Any] = {**option, **given}
            model: nn.Module = timm.create_model(name, features_only=True, **options)
            return model
        except TypeError as error:
            refused = error
    raise InputError(f"backbone '{name}' takes no {', '.join(given)}: {refused}")
