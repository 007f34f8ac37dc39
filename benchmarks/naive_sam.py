"""What the label job is compared with: upstream's predictor over MobileSAM as it is published."""

from __future__ import annotations

import re

import torch
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from timm.models.tiny_vit import TinyVit
from torch import nn

from teachers import tiny_vit, weights

_PREFIX = "image_encoder."


class PublishedEncoder(nn.Module):
    """timm's TinyViT, batch norms and all, with the neck of SAM."""

    img_size = 1024

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.trunk = TinyVit(
            embed_dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7), num_classes=0, drop_path_rate=0.0,
        )  # fmt: skip
        self.trunk.stages[3].downsample.conv2.conv.stride = (1, 1)  # MobileSAM stays at 64 x 64
        self.trunk.head = nn.Identity()
        unused = ("head", "norm_head", "neck")
        self.trunk.load_state_dict(
            {timm_name(name): state[name] for name in state if not name.startswith(unused)}
        )
        self.neck = tiny_vit.load(state).neck

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.trunk.stages(self.trunk.patch_embed(pixels))
        return self.neck(maps)  # type: ignore[no-any-return]


def timm_name(name: str) -> str:
    """An entry of MobileSAM's file as timm calls it."""
    name = name.replace("patch_embed.seq.0", "patch_embed.conv1")
    name = name.replace("patch_embed.seq.2", "patch_embed.conv2")
    name = name.replace(".c.weight", ".conv.weight").replace("layers.", "stages.")
    return re.sub(
        r"^stages\.(\d)\.downsample", lambda found: f"stages.{int(found[1]) + 1}.downsample", name
    )


def upstream_predictor() -> SamPredictor:
    """segment-anything's SamPredictor with MobileSAM's own weights."""
    state = torch.load(weights.fetch("mobile_sam"), weights_only=True, map_location="cpu")
    ours = {name.removeprefix(_PREFIX): state.pop(name) for name in list(state) if _PREFIX in name}
    model = Sam(
        PublishedEncoder(ours),
        PromptEncoder(
            embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024),
            mask_in_chans=16,
        ),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            transformer_dim=256,
        ),
    )  # fmt: skip
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or not all(name.startswith(_PREFIX) for name in missing):
        raise ValueError(f"unexpected entries: {unexpected}")
    return SamPredictor(model.eval())
