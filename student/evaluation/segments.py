"""From the network's output to instances, pixel labels and referred masks in an image's own size.

The rules are Mask2Former's (arXiv 2112.01527, public code), with sigmoid class scores as in Mask
DINO (arXiv 2206.02777). Panoptic segments have their own file.

Legend: Q queries, K texts, h and w the size of mask logits, H and W the image's own, n results.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from manifests import rle
from manifests.boxes import clip, cxcywh_to_xyxy
from manifests.errors import InputError
from student.evaluation.full_size import FullSize
from student.evaluation.image_output import ImageOutput as ImageOutput
from student.evaluation.image_output import SegmentOptions as SegmentOptions
from student.evaluation.image_output import image_output as image_output
from student.evaluation.instances import FoundInstances, IntArray
from student.evaluation.segment_map import NOTHING, LabelMap


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSegments:
    """Semantic and foreground segmentation.

    Attributes:
        labels: [H, W] int32, a text or NOTHING.
        foreground: [H, W] float32, the probability of being any of the texts.
    """

    labels: LabelMap
    foreground: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferredSegment:
    """The mask that a phrase refers to: COCO RLE, its class score, and its query."""

    counts: bytes
    score: float
    query: int


def instances(image: ImageOutput, options: SegmentOptions) -> FoundInstances:
    """The best (query, text) pairs, scored by class score times mask quality; no empty masks.

    Mask quality is the mean probability inside the mask. Boxes are the box head's, cut to the
    image.
    """
    num_texts = image.scores.shape[1]
    top = image.scores.flatten().topk(min(options.max_instances, image.scores.numel()))
    pairs = top.indices.cpu().numpy()
    queries, texts = np.divmod(pairs, max(num_texts, 1))
    wanted, place = np.unique(queries, return_inverse=True)
    counts, quality = _whole_masks(image, wanted)
    scores = top.values.cpu().numpy() * quality[place]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]  # an empty mask has no quality
    return FoundInstances(
        size_hw=image.frame.size_hw,
        categories=texts[order],
        scores=scores[order].astype(np.float32),
        boxes_xyxy=_boxes_xyxy(image)[queries[order]],
        counts=tuple(counts[row] for row in place[order].tolist()),
        queries=queries[order],
    )


def pixels(image: ImageOutput, options: SegmentOptions) -> PixelSegments:
    """A label for every pixel: the text with the largest sum of class score times mask probability.

    The foreground probability is the largest such product, of any query and text.
    """
    height, width = image.frame.size_hw
    labels = np.full((height, width), NOTHING, dtype=np.int32)
    foreground = np.zeros((height, width), dtype=np.float32)
    best = image.scores.amax(dim=1) if image.scores.shape[1] else image.scores.new_zeros(0)
    voters = (best >= options.semantic_floor).nonzero()[:, 0]
    if not len(voters):
        return PixelSegments(labels=labels, foreground=foreground)
    votes = image.scores[voters]  # [n, K]
    votes = torch.where(votes >= options.semantic_floor, votes, 0)
    full = FullSize(image.frame, image.mask_logits[voters])
    maps = len(voters) + votes.shape[1]
    for top, bottom in full.strips(num_masks=maps, max_pixels=options.max_pixels):
        inside = full.rows(top, bottom).sigmoid()  # [n, rows, W]
        label = torch.einsum("qk,qhw->khw", votes, inside).argmax(dim=0)
        most = (inside * best[voters, None, None]).amax(dim=0)
        label = torch.where(most >= options.foreground_threshold, label, NOTHING)
        labels[top:bottom] = label.cpu().numpy()
        foreground[top:bottom] = most.cpu().numpy()
    return PixelSegments(labels=labels, foreground=foreground)


def referred(image: ImageOutput, text: int) -> ReferredSegment:
    """The mask of the query that fits one text best.

    Raises:
        InputError: there is no such text.
    """
    if not 0 <= text < image.scores.shape[1]:
        raise InputError(f"phrase: expected one of {image.scores.shape[1]} texts, got {text}")
    query = int(image.scores[:, text].argmax())
    counts, _ = _whole_masks(image, np.array([query]))
    return ReferredSegment(counts=counts[0], score=float(image.scores[query, text]), query=query)


def _whole_masks(image: ImageOutput, queries: IntArray) -> tuple[list[bytes], NDArray[np.float32]]:
    """COCO RLEs of some queries, and [n] their quality: 0 where a mask is empty.

    Only the part of each that may be inside is made: most masks are small.
    """
    height, width = image.frame.size_hw
    full = FullSize(image.frame, image.mask_logits)
    counts: list[bytes] = []
    quality = np.zeros(len(queries), dtype=np.float32)
    for place, query in enumerate(queries.tolist()):
        mask = np.zeros((width, height), dtype=np.uint8).T  # as COCO's RLE runs
        part = full.positive(query)
        if part is not None:
            is_inside = part.logits > 0
            rows, columns = is_inside.shape
            mask[part.top : part.top + rows, part.left : part.left + columns] = is_inside.cpu()
            inside = part.logits[is_inside].sigmoid()
            quality[place] = float(inside.mean()) if len(inside) else 0.0
        counts.append(rle.encode(mask))
    return counts, quality


def _boxes_xyxy(image: ImageOutput) -> NDArray[np.float32]:
    """[Q, 4] absolute pixels of the image."""
    frame = image.frame
    on_canvas = cxcywh_to_xyxy(image.boxes_cxcywh.cpu().numpy())
    scale = [
        canvas * size / content
        for canvas, content, size in zip(
            frame.canvas_hw, frame.content_hw, frame.size_hw, strict=True
        )
    ]
    height, width = scale
    absolute = on_canvas * np.array([width, height, width, height], dtype=np.float32)
    return clip(absolute, size_hw=frame.size_hw)
