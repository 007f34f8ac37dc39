"""Small made-up outputs and batches, without a network; every number from a seed.

Legend: B images, Q queries, D noised queries, K texts, C channels, N targets of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from student.config import LossConfig
from student.records import Batch, DenoisedPredictions, Predictions, SegmenterOutput, Targets

NUM_TEXTS = 4
DIM = 6
SIDE = 16
CONFIG = LossConfig(points=64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_head(num_images: int, num_queries: int, *, seed: int) -> Predictions:
    """Random predictions, leaves that want gradients."""
    generator = seeded(seed)
    shape = (num_images, num_queries)
    logits = torch.randn(*shape, NUM_TEXTS, generator=generator)
    boxes = torch.rand(*shape, 4, generator=generator) * 0.4 + 0.2
    embeddings = torch.randn(*shape, DIM, generator=generator)
    return Predictions(
        class_logits=logits.requires_grad_(),
        boxes_cxcywh=boxes.requires_grad_(),
        mask_embeddings=embeddings.requires_grad_(),
    )


def make_targets(num: int, *, seed: int = 0, **changes: Any) -> Targets:
    """Rectangles with their boxes, all with masks of weight 1; `changes` replace fields."""
    generator = seeded(seed)
    sizes = torch.randint(2, SIDE // 2, (num, 2), generator=generator)
    starts = (torch.rand(num, 2, generator=generator) * (SIDE - sizes)).long()
    masks = torch.zeros(num, SIDE, SIDE, dtype=torch.uint8)
    for mask, (x, y), (width, height) in zip(masks, starts, sizes, strict=True):
        mask[y : y + height, x : x + width] = 1
    targets = Targets(
        labels=torch.randint(0, NUM_TEXTS, (num,), generator=generator),
        boxes_cxcywh=torch.cat([starts + sizes / 2, sizes.float()], dim=1) / SIDE,
        masks=masks,
        has_mask=torch.ones(num, dtype=torch.bool),
        weights=torch.ones(num),
    )
    return replace(targets, **changes)


def make_batch(*targets: Targets, is_judged: Tensor | None = None) -> Batch:
    """A batch of black images called `image-0` and so on."""
    num = len(targets)
    return Batch(
        images=torch.zeros(num, 3, SIDE, SIDE),
        padding=torch.zeros(num, SIDE, SIDE, dtype=torch.bool),
        texts=torch.zeros(NUM_TEXTS, 3),
        names=tuple("abcd"),
        is_judged=torch.ones(num, NUM_TEXTS, dtype=torch.bool) if is_judged is None else is_judged,
        targets=targets,
        image_ids=tuple(f"image-{image}" for image in range(num)),
        sizes_hw=torch.full((num, 2), SIDE),
    )


def make_output(
    num_images: int, *, num_queries: int = 5, num_layers: int = 2, seed: int = 0
) -> SegmenterOutput:
    """Layers and proposals of random predictions, nothing denoised."""
    pixels = torch.randn(num_images, DIM, SIDE // 4, SIDE // 4, generator=seeded(seed))
    return SegmenterOutput(
        layers=tuple(
            make_head(num_images, num_queries, seed=seed + 1 + layer) for layer in range(num_layers)
        ),
        proposals=make_head(num_images, num_queries - 1, seed=seed + 100),
        denoised=None,
        pixel_embeddings=pixels.requires_grad_(),
        num_learnable=1,
    )


def make_denoised(
    rows: Sequence[Sequence[int]], is_positive: Sequence[Sequence[bool]], *, num_layers: int = 2
) -> DenoisedPredictions:
    """Random predictions over noised queries made of these targets."""
    num_images, num_queries = len(rows), len(rows[0])
    return DenoisedPredictions(
        layers=tuple(
            make_head(num_images, num_queries, seed=200 + layer) for layer in range(num_layers)
        ),
        target_rows=torch.tensor(rows, dtype=torch.int64),
        is_positive=torch.tensor(is_positive, dtype=torch.bool),
    )


def gradient(tensor: Tensor) -> Tensor:
    """A leaf's gradient, zeros if it has none."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
