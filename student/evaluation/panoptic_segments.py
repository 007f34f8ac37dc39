"""Panoptic segments by the rule of Mask2Former (arXiv 2112.01527), for sigmoid class scores.

Legend: Q queries, K texts, H and W the image's own size, n segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student.evaluation.full_size import FullSize
from student.evaluation.image_output import ImageOutput, SegmentOptions
from student.evaluation.instances import IntArray
from student.evaluation.segment_map import NOTHING, LabelMap, SegmentMap

_INSIDE = 0.5  # a mask is where its probability is at least this


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticSegments:
    """Segments that do not overlap, by falling score.

    Attributes:
        map: their pixels and texts.
        scores: [n] float32, class scores.
        queries: [n] int64; of merged segments the best one's.
    """

    map: SegmentMap
    scores: NDArray[np.float32]
    queries: IntArray


def panoptic(image: ImageOutput, options: SegmentOptions) -> PanopticSegments:
    """Each pixel goes to the query with the largest class score times mask probability.

    A query of which too little of its mask is left (`overlap_threshold`) gives no segment, and its
    pixels to no other.
    """
    height, width = image.frame.size_hw
    scores, texts = _best_texts(image.scores)
    kept = (scores > options.object_threshold).nonzero()[:, 0]
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    owners = np.full((height, width), NOTHING, dtype=np.int32)
    mask_px = torch.zeros(len(kept), dtype=torch.int64)
    won_px = torch.zeros(len(kept), dtype=torch.int64)
    if len(kept):
        full = FullSize(image.frame, image.mask_logits[kept])
        for top, bottom in full.strips(num_masks=len(kept), max_pixels=options.max_pixels):
            inside = full.rows(top, bottom).sigmoid()  # [n, rows, W]
            owner = (inside * scores[kept, None, None]).argmax(dim=0, keepdim=True)
            is_inside = inside.gather(0, owner)[0] >= _INSIDE
            mask_px += (inside >= _INSIDE).sum(dim=(1, 2)).cpu()
            won_px += torch.bincount(owner.flatten(), minlength=len(kept)).cpu()
            owners[top:bottom] = torch.where(is_inside, owner[0], NOTHING).cpu().numpy()
    is_whole = won_px >= options.overlap_threshold * mask_px
    return _panoptic(owners, kept.cpu(), scores.cpu(), texts.cpu(), is_whole, options.merged)


def _panoptic(
    owners: LabelMap, kept: Tensor, scores: Tensor, texts: Tensor, is_whole: Tensor,
    merged: frozenset[int],
) -> PanopticSegments:  # fmt: skip
    """Numbers what is left of the queries; merged texts share the number of their best one."""
    is_seen = np.isin(np.arange(len(kept)), owners) & is_whole.numpy()
    number_of = np.full(len(kept) + 1, NOTHING, dtype=np.int32)  # the last is for NOTHING itself
    first: list[int] = []
    of_text: dict[int, int] = {}
    for row in np.flatnonzero(is_seen).tolist():
        text = int(texts[kept[row]])
        number_of[row] = of_text.get(text, len(first)) if text in merged else len(first)
        if number_of[row] == len(first):
            of_text[text] = len(first)
            first.append(int(kept[row]))
    queries = torch.tensor(first, dtype=torch.int64)
    return PanopticSegments(
        map=SegmentMap(
            rows=number_of[owners],
            categories=texts[queries].numpy(),
            is_crowd=np.zeros(len(first), dtype=bool),
        ),
        scores=scores[queries].numpy(),
        queries=queries.numpy(),
    )


def _best_texts(scores: Tensor) -> tuple[Tensor, Tensor]:
    """[Q] best score and its text; without texts nothing scores."""
    if not scores.shape[1]:
        nothing = scores.new_zeros(len(scores))
        return nothing, nothing.long()
    best = scores.max(dim=1)
    return best.values, best.indices
