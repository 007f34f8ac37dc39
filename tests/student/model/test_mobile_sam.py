"""MobileSAM's features are the teachers', trained and frozen alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifests.errors import WeightsError
from student.config import BackboneConfig
from student.model import mobile_sam
from student.model.backbone import build_backbone
from student.model.mobile_sam import FrozenMobileSam, MobileSam
from teachers import tiny_vit


@pytest.fixture(scope="module")
def official(shared: Path) -> dict[str, Tensor]:
    """The encoder's entries of the official file."""
    state = torch.load(shared / "weights" / "mobile_sam.pt", weights_only=True)
    prefix = "image_encoder."
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


@pytest.fixture
def weights_given(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official weights in $MASKMILL_WEIGHTS."""
    monkeypatch.setenv("MASKMILL_WEIGHTS", str(shared / "weights"))


@pytest.mark.shared_data
@pytest.mark.parametrize("side_hw", [(256, 256), (224, 320)])
def test_features_are_the_teachers(official: dict[str, Tensor], side_hw: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *side_hw, generator=torch.Generator().manual_seed(0))
    trained, frozen = MobileSam(0.0).eval(), FrozenMobileSam().requires_grad_(False)
    trained.load_official(official)
    frozen.load_official(official)
    teacher = tiny_vit.load(official)
    with torch.no_grad():
        embedding = teacher(images)
        ours, theirs = trained(images), frozen(images)
    torch.testing.assert_close(ours[-1], embedding, rtol=0, atol=1e-4)
    assert torch.equal(theirs[-1], embedding)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        scale = other.abs().mean()
        assert (one - other).abs().max() < 1e-3 * scale, index


@pytest.mark.shared_data
@pytest.mark.usefixtures("weights_given")
@pytest.mark.parametrize("frozen_stages", [-1, 0])
def test_the_backbone_has_the_official_weights(
    official: dict[str, Tensor], frozen_stages: int
) -> None:
    backbone = build_backbone(BackboneConfig(frozen_stages=frozen_stages))  # in training mode
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = backbone(images)
    assert [info.stride for info in backbone.maps] == [4, 8, 16, 16, 16]
    for level, info in zip(maps, backbone.maps, strict=True):
        assert level.shape == (2, info.channels, 64 // info.stride, 96 // info.stride)
    with torch.no_grad():
        embedding = tiny_vit.load(official)(images)
    torch.testing.assert_close(maps[-1], embedding, rtol=0, atol=1e-4)
    assert maps[-1].requires_grad == (frozen_stages == 0)


def test_all_of_it_learns() -> None:
    torch.manual_seed(0)
    model = MobileSam(drop_path=0.0)
    sum(level.sin().mean() for level in model(torch.randn(2, 3, 32, 32))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_changed_weights_count_at_once_in_evaluation() -> None:
    torch.manual_seed(0)
    model = MobileSam(drop_path=0.0).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)[1]
        for name, parameter in model.named_parameters():
            if name.endswith("attention_biases"):
                torch.nn.init.normal_(parameter, std=3)
        assert not torch.allclose(model(images)[1], before)


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("content", ["text", "state", "list"])
def test_says_what_is_no_file_of_mobile_sam(is_frozen: bool, content: str, tmp_path: Path) -> None:
    path = tmp_path / "given.pt"
    if content == "text":
        path.write_text("no weights")
    else:
        state = {"image_encoder.neck.0.weight": torch.zeros(3)}
        torch.save(state if content == "state" else [torch.zeros(3)], path)
    with pytest.raises(WeightsError, match=r"given\.pt"):
        mobile_sam.load_official(FrozenMobileSam() if is_frozen else MobileSam(0.0), path)
