"""Samples to a batch, all but the texts' embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from student.data.order import Ints
from student.data.sample import Canvas, Sample
from student.records import Batch, Targets


def collate(samples: Sequence[Sample], texts: Ints, names: Sequence[str]) -> Batch:
    """One micro-batch.

    Args:
        samples: at least one, all on canvases of one size.
        texts: [K] categories, rising; every target's is among them.
        names: of the data's categories.

    Returns:
        A batch whose `texts` are empty, [K, 0].
    """
    images, padding, sizes_hw = stacked([sample.canvas for sample in samples])
    judged = np.stack([sample.judged[texts] for sample in samples])
    return Batch(
        images=images,
        padding=padding,
        texts=torch.empty(len(texts), 0),
        names=tuple(names[text] for text in texts.tolist()),
        is_judged=torch.from_numpy(judged),
        targets=tuple(_targets(sample, texts) for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        sizes_hw=sizes_hw,
    )


def stacked(canvases: Sequence[Canvas]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`images` [B, 3, H, W], `padding` [B, H, W] and `sizes_hw` [B, 2], as in `Batch`."""
    images = torch.from_numpy(np.stack([canvas.image for canvas in canvases]))
    padding = torch.ones(len(canvases), *images.shape[2:], dtype=torch.bool)
    for row, canvas in enumerate(canvases):
        height, width = canvas.size_hw
        padding[row, :height, :width] = False
    sizes_hw = torch.tensor([canvas.size_hw for canvas in canvases], dtype=torch.int64)
    return images, padding, sizes_hw


def _targets(sample: Sample, texts: Ints) -> Targets:
    return Targets(
        labels=torch.from_numpy(np.searchsorted(texts, sample.categories)),
        boxes_cxcywh=torch.from_numpy(sample.boxes_cxcywh),
        masks=torch.from_numpy(sample.masks),
        has_mask=torch.from_numpy(sample.has_mask),
        weights=torch.from_numpy(sample.weights),
    )
