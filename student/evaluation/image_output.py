"""What the network says of one image, and every number that makes segments of it.

Legend: Q queries, K texts, h and w the size of mask logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from manifests.errors import InputError
from student.evaluation.full_size import Frame
from student.records import SegmenterOutput, mask_logits


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """Every number between an output and its segments.

    Attributes:
        max_instances: (query, text) pairs with the best class scores.
        object_threshold: class score that a query needs for a panoptic segment (Mask DINO's).
        overlap_threshold: share of its mask that a panoptic segment must keep (Mask2Former's).
        semantic_floor: class scores below it do not vote for a pixel's label: hundreds of queries
            that are all but sure to be nothing would outvote one that is sure.
        foreground_threshold: a pixel whose foreground probability is lower has no label.
        merged: texts whose panoptic segments are one: what is called stuff elsewhere.
        max_pixels: of all masks in memory at once.
    """

    max_instances: int = 100
    object_threshold: float = 0.25
    overlap_threshold: float = 0.8
    semantic_floor: float = 0.05
    foreground_threshold: float = 0.25
    merged: frozenset[int] = frozenset()
    max_pixels: int = 2**24

    def __post_init__(self) -> None:
        for name in ("max_instances", "max_pixels"):
            if getattr(self, name) < 1:
                raise InputError(f"segments: expected {name} of at least 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutput:
    """What the network says of one image.

    Attributes:
        scores: [Q, K] in [0, 1].
        boxes_cxcywh: [Q, 4] in [0, 1] of the canvas.
        mask_logits: [Q, h, w] over the whole canvas.
        frame: where the image is on it.
    """

    scores: Tensor
    boxes_cxcywh: Tensor
    mask_logits: Tensor
    frame: Frame


def image_output(output: SegmenterOutput, index: int, frame: Frame) -> ImageOutput:
    """One image of a batch, as the last decoder layer has it."""
    last, one = output.last, slice(index, index + 1)
    masks = mask_logits(last.mask_embeddings[one].float(), output.pixel_embeddings[one].float())
    return ImageOutput(
        scores=last.class_logits[index].detach().float().sigmoid(),
        boxes_cxcywh=last.boxes_cxcywh[index].detach().float(),
        mask_logits=masks[0].detach(),
        frame=frame,
    )
