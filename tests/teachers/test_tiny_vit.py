"""MobileSAM's encoder: every entry of its file is accounted for, and folding changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from manifests.errors import WeightsError
from teachers import tiny_vit

_DTYPES = {"torch.float32": torch.float32, "torch.int64": torch.int64}


def _listed(shared: Path) -> dict[str, Tensor]:
    """Random entries with the names and shapes of the official file's encoder."""
    torch.manual_seed(0)
    entries = {}
    for line in (shared / "weights" / "mobile_sam.keys.txt").read_text().splitlines():
        name, shape_text, dtype = line.split("\t")
        shape = [int(side) for side in shape_text.strip("()").split(",") if side.strip()]
        if name.startswith("image_encoder."):
            # Positive, for variances are among them.
            values = (torch.rand(shape) * 0.2 + 0.05).to(_DTYPES[dtype])
            entries[name.removeprefix("image_encoder.")] = values
    return entries


def _timm(official: dict[str, Tensor]) -> nn.Module:
    """timm's TinyViT with the same weights, batch norms and all: an independent implementation."""
    model = TinyVit(
        embed_dims=(64, 128, 160, 320),
        depths=(2, 2, 6, 2),
        num_heads=(2, 4, 5, 10),
        window_sizes=(7, 7, 14, 7),
        num_classes=0,
        drop_path_rate=0.0,
    )
    model.stages[3].downsample.conv2.conv.stride = (1, 1)
    model.head = nn.Identity()
    renamed = {}
    for name, value in official.items():
        if name.startswith(("head", "norm_head", "neck")):
            continue
        name = name.replace("patch_embed.seq.0", "patch_embed.conv1")
        name = name.replace("patch_embed.seq.2", "patch_embed.conv2")
        name = name.replace(".c.weight", ".conv.weight").replace("layers.", "stages.")
        if ".downsample." in name:
            stage, rest = name.removeprefix("stages.").split(".", 1)
            name = f"stages.{int(stage) + 1}.{rest}"
        renamed[name] = value
    model.load_state_dict(renamed)
    return model.eval()


@pytest.mark.shared_data
def test_every_entry_of_the_official_file_is_accounted_for(shared: Path) -> None:
    official = _listed(shared)
    ours = tiny_vit.translate(official)
    expected = tiny_vit.TinyViT().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in expected.items()
    }


@pytest.mark.shared_data
def test_an_entry_nobody_knows_is_refused(shared: Path) -> None:
    official = _listed(shared)
    with pytest.raises(WeightsError, match="surprise"):
        tiny_vit.load({**official, "surprise.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"batch norm without convolution: stray\.bn\.weight"):
        tiny_vit.load({**official, "stray.bn.weight": torch.zeros(1)})


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    ["neck.3.bias", "patch_embed.seq.0.bn.running_var", "layers.3.blocks.1.attn.qkv.bias"],
)
def test_a_missing_entry_is_refused(shared: Path, name: str) -> None:
    official = _listed(shared)
    del official[name]
    with pytest.raises(WeightsError):
        tiny_vit.load(official)


@pytest.mark.shared_data
def test_bands_and_folding_give_timms_numbers(shared: Path) -> None:
    official = {
        name: value
        for name, value in torch.load(
            shared / "weights" / "mobile_sam.pt", weights_only=True, map_location="cpu"
        ).items()
        if name.startswith("image_encoder.")
    }
    official = {name.removeprefix("image_encoder."): value for name, value in official.items()}
    ours, timm = tiny_vit.load(official), _timm(official)
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = ours.neck(timm.stages(timm.patch_embed(pixels)))
        torch.testing.assert_close(ours(pixels), expected, rtol=1e-4, atol=1e-5)
        two = ours(torch.cat([pixels, pixels.flip(3)]))
        torch.testing.assert_close(two[:1], expected, rtol=1e-4, atol=1e-5)
