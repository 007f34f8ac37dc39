"""The targets of all images of a batch in one row, so that work on them is one operation.

Legend: B images, T targets of the whole batch, N the most targets of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from student.records import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTargets:
    """Targets in the order of their images.

    Attributes:
        labels: [T] int64.
        boxes_cxcywh: [T, 4] float32.
        masks: [T, H, W] uint8.
        mask_weights: [T] float32, how much each mask counts; 0 where there is none.
        has_weight: [T] bool on the CPU: `mask_weights` above 0.
        images: [T] int64, the image of each.
        places: [T] int64, its row within that image.
        counts: targets of each image.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    masks: Tensor
    mask_weights: Tensor
    has_weight: Tensor
    images: Tensor
    places: Tensor
    counts: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The first flat row of each image."""
        return tuple(sum(self.counts[:image]) for image in range(len(self.counts)))

    def padded(self, values: Tensor) -> Tensor:
        """[T, ...] to [B, N, ...], zeros where an image has fewer targets."""
        shape = (len(self.counts), max(self.counts, default=0), *values.shape[1:])
        padded = values.new_zeros(shape)
        padded[self.images, self.places] = values
        return padded


def flat_targets(targets: Sequence[Targets], *, use_weights: bool) -> FlatTargets:
    """The targets of B >= 1 images.

    Args:
        use_weights: a mask counts its row's weight; False: every mask that is there counts 1.
    """
    device = targets[0].labels.device
    counts = tuple(len(target.labels) for target in targets)
    has_mask = torch.cat([target.has_mask for target in targets])
    weights = torch.cat([target.weights for target in targets]).float()
    mask_weights = has_mask * (weights if use_weights else 1.0)
    return FlatTargets(
        labels=torch.cat([target.labels for target in targets]),
        boxes_cxcywh=torch.cat([target.boxes_cxcywh for target in targets]).float(),
        masks=torch.cat([target.masks for target in targets]),
        mask_weights=mask_weights,
        has_weight=(mask_weights > 0).cpu(),
        images=torch.repeat_interleave(torch.tensor(counts)).to(device),
        places=torch.cat([torch.arange(count) for count in counts]).to(device),
        counts=counts,
    )
