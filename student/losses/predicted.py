"""All that a network predicted, head after head: as float32, as one list, as a loss of 0."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from student.records import Predictions, SegmenterOutput


def as_float32(output: SegmenterOutput) -> SegmenterOutput:
    """The same output with every prediction in float32."""
    denoised = output.denoised
    if denoised is not None:
        denoised = replace(denoised, layers=tuple(_head(layer) for layer in denoised.layers))
    return replace(
        output,
        layers=tuple(_head(layer) for layer in output.layers),
        proposals=None if output.proposals is None else _head(output.proposals),
        denoised=denoised,
        pixel_embeddings=output.pixel_embeddings.float(),
    )


def predicted_tensors(output: SegmenterOutput) -> list[Tensor]:
    """Every predicted tensor of every head, each [B, ...]."""
    heads = [*output.layers]
    heads += [] if output.proposals is None else [output.proposals]
    heads += [] if output.denoised is None else output.denoised.layers
    tensors = [output.pixel_embeddings]
    for head in heads:
        tensors += [head.class_logits, head.boxes_cxcywh, head.mask_embeddings]
    return tensors


def no_loss(output: SegmenterOutput) -> Tensor:
    """A scalar 0 with a gradient of 0 to every prediction.

    DistributedDataParallel waits for the gradients of all parameters, also of those that this
    batch taught nothing.
    """
    # One element of each does; `nan_to_num`, as 0 times NaN is NaN.
    firsts = torch.cat([tensor.flatten()[:1] for tensor in predicted_tensors(output)])
    return 0 * firsts.nan_to_num(posinf=0, neginf=0).sum()


def _head(head: Predictions) -> Predictions:
    return Predictions(
        class_logits=head.class_logits.float(),
        boxes_cxcywh=head.boxes_cxcywh.float(),
        mask_embeddings=head.mask_embeddings.float(),
    )
