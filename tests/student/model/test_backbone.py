"""Backbones say what maps they give, freeze what they should, and refuse wrong weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from manifests.errors import InputError, WeightsError
from student.config import BackboneConfig
from student.model.backbone import Backbone, build_backbone


def _built(name: str = "test_resnet", weights: str = "none", frozen_stages: int = 0) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(name=name, weights=weights, frozen_stages=frozen_stages)
    return build_backbone(config)


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    """Weights of timm's test_resnet with statistics that are not those of a new one."""
    torch.manual_seed(5)
    model = timm.create_model("test_resnet")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("side_hw", [(64, 96), (32, 160)])
def test_gives_the_maps_that_it_says(name: str, side_hw: tuple[int, int]) -> None:
    backbone = _built(name)
    maps = backbone(torch.randn(2, 3, *side_hw))
    assert [info.stride for info in backbone.maps] == [4, 8, 16, 32]
    for level, info in zip(maps, backbone.maps, strict=True):
        assert level.shape == (2, info.channels, *(side // info.stride for side in side_hw))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "tiny_vit_5m_224"])
def test_windows_take_a_canvas_of_any_size(name: str) -> None:
    backbone = _built(name).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [level.shape[1] for level in maps] == [info.channels for info in backbone.maps]


def test_a_frozen_backbone_gets_no_gradients_and_keeps_its_statistics() -> None:
    backbone = _built(frozen_stages=-1).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert not any(level.requires_grad for level in maps)
    assert not any(module.training for module in backbone.body.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("num_frozen", [1, 2, 4])
def test_the_first_stages_are_frozen_and_the_others_learn(name: str, num_frozen: int) -> None:
    backbone = _built(name, frozen_stages=num_frozen).train()
    images = torch.randn(2, 3, 64, 64)
    maps = backbone(images)
    assert [level.requires_grad for level in maps] == [
        index >= num_frozen for index in range(len(maps))
    ]
    if num_frozen < len(maps):
        sum(level.square().mean() for level in maps if level.requires_grad).backward()
    for parameter in backbone.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_batch_norms_of_pretrained_weights_are_frozen_while_the_rest_learns(
    safetensors: Path,
) -> None:
    backbone = _built(weights=str(safetensors)).train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    images = torch.randn(2, 3, 64, 64)
    learning = backbone(images)
    backbone.eval()
    judging = backbone(images)
    assert all(torch.equal(a, b) for a, b in zip(learning, judging, strict=True))
    learning[-1].sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_a_copy_keeps_its_own_stages_frozen() -> None:
    backbone = copy.deepcopy(_built(frozen_stages=2)).train()
    stages = backbone.body.stage_modules()
    training = [[any(m.training for m in part.modules()) for part in stage] for stage in stages]
    assert [any(stage) for stage in training] == [False, False, True, True]


def test_without_weights_batch_norms_learn() -> None:
    assert any(isinstance(module, nn.BatchNorm2d) for module in _built().modules())


def test_a_file_is_what_the_model_says_with_it(safetensors: Path) -> None:
    backbone = _built(weights=str(safetensors)).eval()
    whole = timm.create_model("test_resnet", checkpoint_path=str(safetensors)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[-1], whole.forward_features(images))


def test_without_pretraining_nothing_is_read_and_the_shape_is_the_same(safetensors: Path) -> None:
    config = BackboneConfig(name="test_resnet", weights=str(safetensors))
    trained = build_backbone(config)
    missing = BackboneConfig(name="test_resnet", weights="/nowhere/weights.safetensors")
    empty = build_backbone(missing, pretrained=False)
    empty.load_state_dict(trained.state_dict())


def test_a_checkpoint_fits_a_backbone_that_is_built_without_files(tmp_path: Path) -> None:
    config = BackboneConfig(name="mobile_sam", weights="mobile_sam", frozen_stages=-1)
    one, other = (build_backbone(config, pretrained=False) for _ in range(2))
    other.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            BackboneConfig(name="resnet5000", weights="none"),
            "expected mobile_sam or a model of timm",
        ),
        (BackboneConfig(name="resnet18", weights="mobile_sam"), "mobile_sam has none for"),
        (BackboneConfig(name="mobile_sam", weights="timm"), "timm has none for"),
        (
            BackboneConfig(name="test_resnet", weights="none", frozen_stages=5),
            "expected at most 4, or -1 for all, got 5",
        ),
    ],
)
def test_refuses_what_it_has_not(config: BackboneConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(config)


@pytest.mark.parametrize("name", ["test_resnet", "mobile_sam"])
def test_says_where_weights_are_missing_or_of_another_network(
    name: str, safetensors: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="there is no file"):
        _built(name, weights=str(tmp_path / "none.safetensors"))
    (tmp_path / "text.safetensors").write_text("not weights at all")
    with pytest.raises(WeightsError, match=r"text\.safetensors"):
        _built(name, weights=str(tmp_path / "text.safetensors"))
    other = "test_convnext" if name == "test_resnet" else name
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        _built(other, weights=str(safetensors))
