"""Samples to a batch, all but the texts' embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from student.data.decode import normalised
from student.data.order import Ints
from student.data.sample import Sample
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
    side = samples[0].side
    images = np.zeros((len(samples), 3, side, side), np.float32)
    padding = np.ones((len(samples), side, side), dtype=bool)
    for row, sample in enumerate(samples):
        height, width = sample.pixels.shape[:2]
        padding[row, :height, :width] = False
        normalised(sample.pixels, images[row])
    judged = np.stack([sample.judged[texts] for sample in samples])
    return Batch(
        images=torch.from_numpy(images),
        padding=torch.from_numpy(padding),
        texts=torch.empty(len(texts), 0),
        names=tuple(names[text] for text in texts.tolist()),
        is_judged=torch.from_numpy(judged),
        targets=tuple(_targets(sample, texts) for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        sizes_hw=torch.tensor([sample.pixels.shape[:2] for sample in samples], dtype=torch.int64),
    )


def _targets(sample: Sample, texts: Ints) -> Targets:
    return Targets(
        labels=torch.from_numpy(np.searchsorted(texts, sample.categories)),
        boxes_cxcywh=torch.from_numpy(sample.boxes_cxcywh),
        masks=torch.from_numpy(sample.masks),
        has_mask=torch.from_numpy(sample.has_mask),
        weights=torch.from_numpy(sample.weights),
    )
