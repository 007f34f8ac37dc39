"""Outputs of a network that knows exactly what it sees, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from student.evaluation.full_size import Frame
from student.evaluation.image_output import ImageOutput
from student.records import Predictions, SegmenterOutput

SURE, UNSURE = 12.0, -12.0


def image_of(
    masks: Sequence[Tensor],
    scores: Sequence[Sequence[float]],
    *,
    frame: Frame | None = None,
    boxes_cxcywh: Sequence[Sequence[float]] | None = None,
) -> ImageOutput:
    """One query for each [h, w] bool mask or float logits; scores of each text in [0, 1]."""
    logits = [
        torch.where(mask, SURE, UNSURE) if mask.dtype == torch.bool else mask for mask in masks
    ]
    height, width = logits[0].shape
    size = (4 * height, 4 * width)
    return ImageOutput(
        scores=torch.tensor(scores, dtype=torch.float32),
        boxes_cxcywh=torch.tensor(boxes_cxcywh or [[0.5, 0.5, 1, 1]] * len(masks)),
        mask_logits=torch.stack(logits).float(),
        frame=frame or Frame(canvas_hw=size, content_hw=size, size_hw=size),
    )


def output_of(images: Sequence[ImageOutput], *, num_learnable: int = 0) -> SegmenterOutput:
    """A batch whose masks are the images' own: each query has a pixel embedding to itself."""
    scores = torch.stack([image.scores for image in images]).clamp(1e-6, 1 - 1e-6)
    num_queries = scores.shape[1]
    last = Predictions(
        class_logits=scores.logit(),
        boxes_cxcywh=torch.stack([image.boxes_cxcywh for image in images]),
        mask_embeddings=torch.eye(num_queries).expand(len(images), -1, -1),
    )
    return SegmenterOutput(
        layers=(last,),
        proposals=None,
        denoised=None,
        pixel_embeddings=torch.stack([image.mask_logits for image in images]),
        num_learnable=num_learnable,
    )


def part(rows: tuple[int, int], columns: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """[h, w] bool, true in a rectangle."""
    mask = torch.zeros(size_hw, dtype=torch.bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask
