"""The segmentation encoder: shapes, levels that the backbone lacks, and what padding may not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from manifests.errors import InputError
from student.model.backbone import MapInfo
from student.model.encoder import SegmentationEncoder
from tests.student.model.tiny import transformer

HEIGHT, WIDTH = 64, 96
HIERARCHY = ((4, 6), (8, 10), (16, 12), (32, 14))
LIKE_MOBILE_SAM = ((4, 6), (8, 10), (16, 12), (16, 14), (16, 8))


def _infos(maps: tuple[tuple[int, int], ...]) -> list[MapInfo]:
    return [MapInfo(stride=stride, channels=channels) for stride, channels in maps]


def _maps(infos: list[MapInfo]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, i.channels, HEIGHT // i.stride, WIDTH // i.stride, generator=generator)
        for i in infos
    ]


def _padding() -> Tensor:
    padding = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    padding[1, :, 64:] = True
    return padding


@pytest.mark.parametrize("maps", [HIERARCHY, LIKE_MOBILE_SAM])
@pytest.mark.parametrize("num_layers", [0, 2])
def test_shapes_and_that_every_weight_takes_part(
    maps: tuple[tuple[int, int], ...], num_layers: int
) -> None:
    torch.manual_seed(0)
    infos = _infos(maps)
    encoder = SegmentationEncoder(transformer(encoder_layers=num_layers), infos)
    encoded = encoder(_maps(infos), _padding())
    assert encoded.pyramid.shapes_hw == ((8, 12), (4, 6), (2, 3))
    assert encoded.pyramid.tokens.shape == (2, 96 + 24 + 6, 32)
    assert encoded.pyramid.padding.sum(dim=1).tolist() == [0, 32 + 8 + 2]
    assert encoded.pixel_embeddings.shape == (2, 32, HEIGHT // 4, WIDTH // 4)
    (encoded.pyramid.tokens.sin().sum() + encoded.pixel_embeddings.sin().sum()).backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


def test_all_maps_of_a_stride_are_seen() -> None:
    torch.manual_seed(0)
    infos = _infos(LIKE_MOBILE_SAM)
    encoder = SegmentationEncoder(transformer(encoder_layers=0), infos)
    maps = _maps(infos)
    before = encoder(maps, _padding()).pyramid.level(1)
    for index in (2, 3, 4):
        changed = [level + (i == index) * torch.randn(level.shape) for i, level in enumerate(maps)]
        after = encoder(changed, _padding()).pyramid.level(1)
        assert not torch.allclose(after, before)


def test_tokens_of_padding_reach_no_others() -> None:
    torch.manual_seed(0)
    infos = _infos(HIERARCHY)
    encoder = SegmentationEncoder(transformer(encoder_layers=2), infos)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.attention.offsets.weight)
    maps, padding = _maps(infos), _padding()
    changed = [level.clone() for level in maps]
    for level, info in zip(changed, infos, strict=True):
        level[1, :, :, 64 // info.stride :] = 7.0
    before, after = encoder(maps, padding).pyramid, encoder(changed, padding).pyramid
    kept = ~before.padding
    torch.testing.assert_close(before.tokens[kept], after.tokens[kept])
    assert not torch.allclose(before.tokens[~kept], after.tokens[~kept])


def test_a_token_looks_around_itself() -> None:
    torch.manual_seed(0)
    infos = _infos(HIERARCHY)
    config = transformer(encoder_layers=1)
    encoder, without = (
        SegmentationEncoder(replace(config, encoder_layers=layers), infos) for layers in (1, 0)
    )
    without.load_state_dict(encoder.state_dict(), strict=False)
    layer = encoder.layers[0]
    torch.nn.init.zeros_(layer.attention.offsets.bias)
    on_finest = torch.tensor([50.0, 0.0, 0.0]).repeat_interleave(config.points).repeat(config.heads)
    layer.attention.weights.bias.data.copy_(on_finest)
    maps, padding = _maps(infos), torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    tokens = without(maps, padding).pyramid.tokens[:, :96]  # before the layer, of the finest level
    itself = layer.attention.out(layer.attention.values(tokens))
    wanted = layer.feedforward(layer.norm(tokens + itself))
    found = encoder(maps, padding).pyramid.tokens[:, :96]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("maps", [((16, 8), (16, 8)), ((4, 6), (8, 10)), ((8, 6), (16, 8))])
def test_refuses_a_backbone_without_the_strides(maps: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(InputError, match=r"expected maps of stride 4, 8, 16 and perhaps 32, got"):
        SegmentationEncoder(transformer(), _infos(maps))
