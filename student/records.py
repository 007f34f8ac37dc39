"""What the parts of the student hand to each other: targets, batches, predictions.

Legend: B images, H and W the canvas in pixels (padded, the same for the whole batch), K texts,
E channels of a text embedding, Q queries, C channels, N targets of one image.
Boxes inside the student are `cxcywh` in [0, 1] of the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The truth about one image of a batch; N may be 0.

    Attributes:
        labels: [N] int64, the text of each, an index into the batch's texts.
        boxes_cxcywh: [N, 4] float32 in [0, 1].
        masks: [N, H, W] uint8, 0 or 1; all 0 where `has_mask` is False.
        has_mask: [N] bool; False: the mask was dropped, and only class and box are taught.
        weights: [N] float32 in [0, 1], what the mask's losses are multiplied by; 1 for a human's.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    masks: Tensor
    has_mask: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        num = len(self.labels)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if len(value) != num:
                raise InputError(f"targets: expected {num} {entry.name}, got {len(value)}")

    def to(self, device: torch.device | str) -> Targets:
        """The same on another device."""
        return Targets(
            **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images of one step with their truth.

    Attributes:
        images: [B, 3, H, W] float32, normalised with ImageNet's mean and deviation; padding is 0.
        padding: [B, H, W] bool, True where there is no image.
        texts: [K, E] float32, embeddings of the categories and phrases of this step.
        names: the K texts themselves.
        is_judged: [B, K] bool: whether what is no target of this text in this image teaches that
            it is none. False for texts whose objects nobody labelled exhaustively there
            (federated datasets, crowds), and for phrases of other images.
        targets: one for each image.
        image_ids: one for each image.
        sizes_hw: [B, 2] int64, pixels of each image on the canvas, which start at its top left.
    """

    images: Tensor
    padding: Tensor
    texts: Tensor
    names: tuple[str, ...]
    is_judged: Tensor
    targets: tuple[Targets, ...]
    image_ids: tuple[str, ...]
    sizes_hw: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        tensors = ("images", "padding", "texts", "is_judged", "sizes_hw")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in tensors}
        targets = tuple(target.to(device) for target in self.targets)
        return Batch(names=self.names, image_ids=self.image_ids, targets=targets, **moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What one head says about Q queries.

    Attributes:
        class_logits: [B, Q, K], before the sigmoid.
        boxes_cxcywh: [B, Q, 4] in [0, 1].
        mask_embeddings: [B, Q, C]; times the pixel embeddings they are mask logits.
    """

    class_logits: Tensor
    boxes_cxcywh: Tensor
    mask_embeddings: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisedPredictions:
    """What the decoder makes of noised targets; only while training.

    Attributes:
        layers: one for each of the segmenter's `layers`, over the D noised queries.
        target_rows: [B, D] int64, the row of `Targets` each came from; -1: padding.
        is_positive: [B, D] bool; a negative one must be told from objects.
    """

    layers: tuple[Predictions, ...]
    target_rows: Tensor
    is_positive: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterOutput:
    """Everything the network says.

    Attributes:
        layers: before the first decoder layer, then after each; the last one counts. The first
            `num_learnable` of the Q queries are the learnable ones.
        proposals: the encoder's own top-k with their gradients; None without conditional queries.
        denoised: None but in training.
        pixel_embeddings: [B, C, H / 4, W / 4].
        num_learnable: see `layers`.
    """

    layers: tuple[Predictions, ...]
    proposals: Predictions | None
    denoised: DenoisedPredictions | None
    pixel_embeddings: Tensor
    num_learnable: int

    @property
    def last(self) -> Predictions:
        """The result."""
        return self.layers[-1]


def mask_logits(mask_embeddings: Tensor, pixel_embeddings: Tensor) -> Tensor:
    """[B, Q, C] and [B, C, h, w] to [B, Q, h, w] mask logits."""
    return torch.einsum("bqc,bchw->bqhw", mask_embeddings, pixel_embeddings)
