"""How well masks fit that phrases refer to: RefCOCO's measures (Yu et al., arXiv 1608.00272)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests import rle

_GOOD_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseResult:
    """One phrase in one image: pixels of both masks, and of either."""

    both: int
    either: int

    @property
    def iou(self) -> float:
        """0 where both masks are empty."""
        return self.both / self.either if self.either else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferringQuality:
    """Over phrases; None where there are none.

    Attributes:
        mean_iou: each phrase counts the same.
        overall_iou: pixels of all intersections by those of all unions.
        precision_50: share of phrases with an IoU above 0.5.
    """

    mean_iou: float | None
    overall_iou: float | None
    precision_50: float | None
    num_phrases: int


def phrase_result(truth: bytes, found: bytes, *, size_hw: tuple[int, int]) -> PhraseResult:
    """Of two COCO RLEs in the image's own size."""
    true, mine = (rle.decode(counts, size_hw=size_hw) != 0 for counts in (truth, found))
    return PhraseResult(
        both=int(np.count_nonzero(true & mine)), either=int(np.count_nonzero(true | mine))
    )


def referring_quality(results: Sequence[PhraseResult]) -> ReferringQuality:
    """Of the phrases of all images."""
    ious = [result.iou for result in results]
    either = sum(result.either for result in results)
    return ReferringQuality(
        mean_iou=sum(ious) / len(ious) if ious else None,
        overall_iou=sum(result.both for result in results) / either if either else None,
        precision_50=sum(iou > _GOOD_IOU for iou in ious) / len(ious) if ious else None,
        num_phrases=len(results),
    )
