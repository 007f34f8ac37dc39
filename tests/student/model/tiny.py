"""A network small enough for tests, what it is given, and a number that all its outputs enter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from student.config import BackboneConfig, DenoisingConfig, ModelConfig, TransformerConfig
from student.model.segmenter import Segmenter, build_segmenter
from student.records import Predictions, SegmenterOutput, Targets

TEXT_DIM = 12
SIDE = 64
TRANSFORMER = {
    "dim": 32,
    "heads": 2,
    "points": 2,
    "feedforward": 48,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "learnable_queries": 4,
    "conditional_queries": 6,
}


def transformer(**changes: int | float | bool) -> TransformerConfig:
    """Small, with some values changed."""
    return TransformerConfig(**{**TRANSFORMER, **changes})  # type: ignore[arg-type]


def segmenter(
    backbone: BackboneConfig | None = None,
    denoising: int = 8,
    seed: int = 0,
    **changes: int | float | bool,
) -> Segmenter:
    """A network with drawn weights; `changes` are the transformer's."""
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone=backbone or BackboneConfig(name="test_resnet", weights="none"),
        transformer=transformer(**changes),
    )
    built = build_segmenter(config, DenoisingConfig(queries=denoising), text_dim=TEXT_DIM)
    for parameter in built.heads.boxes[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # zero at first, which would hide much
    return built


def inputs(batch: int = 2, num_texts: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 3, S, S], each with less of the canvas than the one before, padding, texts."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, SIDE, SIDE, generator=generator)
    padding = torch.zeros(batch, SIDE, SIDE, dtype=torch.bool)
    for index in range(batch):
        padding[index, :, SIDE - 11 * index :] = True
        padding[index, SIDE - 5 * index :] = True
    texts = torch.nn.functional.normalize(
        torch.randn(num_texts, TEXT_DIM, generator=generator), dim=1
    )
    return images.masked_fill(padding[:, None], 0), padding, texts


def targets(num: int, num_texts: int = 3, seed: int = 2) -> Targets:
    """So many boxes somewhere, their masks empty."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(num, 2, generator=generator) * 0.4 + 0.3
    sides = torch.rand(num, 2, generator=generator) * 0.3 + 0.1
    return Targets(
        labels=torch.randint(num_texts, (num,), generator=generator),
        boxes_cxcywh=torch.cat([centers, sides], dim=1),
        masks=torch.zeros(num, SIDE, SIDE, dtype=torch.uint8),
        has_mask=torch.ones(num, dtype=torch.bool),
        weights=torch.ones(num),
    )


def all_predictions(output: SegmenterOutput) -> Iterator[Predictions]:
    """Every layer's, the proposals', the noised targets'."""
    yield from output.layers
    if output.proposals is not None:
        yield output.proposals
    if output.denoised is not None:
        yield from output.denoised.layers


def tensors(output: SegmenterOutput) -> list[Tensor]:
    """All that the network says."""
    said = [output.pixel_embeddings]
    for part in all_predictions(output):
        said += [part.class_logits, part.boxes_cxcywh, part.mask_embeddings]
    return said


def total(output: SegmenterOutput) -> Tensor:
    """A loss with every output in it."""
    return torch.stack([tensor.sin().mean() for tensor in tensors(output)]).sum()
