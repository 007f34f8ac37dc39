"""Semantic quality from one confusion matrix, filled image by image; and foreground IoU.

Legend: H and W an image's own height and width, K categories. A pixel that nobody labelled counts
as NOTHING: it is wrong to find a category there, but NOTHING is no category of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError
from student.evaluation.segment_map import NOTHING, VOID, LabelMap


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticQuality:
    """Over all pixels of all images; None where there is nothing to judge.

    Attributes:
        mean_iou: over the categories that the truth has.
        pixel_accuracy: share of judged pixels, NOTHING among them, that have the right label.
        nothing_iou: of NOTHING itself.
        by_category: IoU of each; None where the truth has none of it.
    """

    mean_iou: float | None
    pixel_accuracy: float | None
    nothing_iou: float | None
    by_category: tuple[float | None, ...]


class ConfusionMatrix:
    """`counts[t, f]`: pixels of true label t that were found as f; the last of both is NOTHING."""

    def __init__(self, num_categories: int) -> None:
        """Raises InputError if there are no categories."""
        if num_categories < 1:
            raise InputError(f"confusion matrix: expected categories, got {num_categories}")
        self.counts = np.zeros((num_categories + 1, num_categories + 1), dtype=np.int64)

    def add(
        self, truth: LabelMap, found: LabelMap, *, unjudged: frozenset[int] = frozenset()
    ) -> None:
        """One image: [H, W] categories or NOTHING; the truth may have VOID, which is left out.

        Args:
            truth: the right labels.
            found: the student's.
            unjudged: categories that may be anywhere nobody labelled.

        Raises:
            InputError: the maps differ in size.
        """
        is_judged = _judged(truth, found, unjudged)
        size = len(self.counts)
        # NOTHING is -1, which is the last row and column.
        rows, columns = truth[is_judged] % size, found[is_judged] % size
        pairs = rows.astype(np.int64) * size + columns
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def quality(self) -> SemanticQuality:
        """Of all that was added."""
        right = np.diagonal(self.counts)
        true_px, found_px = self.counts.sum(axis=1), self.counts.sum(axis=0)
        union = true_px + found_px - right
        ious = [float(r / u) if t else None for r, u, t in zip(right, union, true_px, strict=True)]
        there = [iou for iou in ious[:-1] if iou is not None]
        total = int(self.counts.sum())
        return SemanticQuality(
            mean_iou=sum(there) / len(there) if there else None,
            pixel_accuracy=float(right.sum() / total) if total else None,
            nothing_iou=ious[-1],
            by_category=tuple(ious[:-1]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForegroundPixels:
    """Of one image: judged pixels that are foreground in both, and in one at least."""

    both: int
    either: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForegroundQuality:
    """Of anything against nothing, whatever its category; None where there is no image.

    Attributes:
        iou: over the pixels of all images.
        mean_iou: mean over images, so that large ones do not count for more.
    """

    iou: float | None
    mean_iou: float | None


def foreground_pixels(
    truth: LabelMap, found: LabelMap, *, unjudged: frozenset[int] = frozenset()
) -> ForegroundPixels:
    """One image by [H, W] labels, of which all but NOTHING and VOID are foreground; see `add`.

    Raises:
        InputError: they differ in size.
    """
    is_judged = _judged(truth, found, unjudged)
    is_true, is_found = (truth >= 0) & is_judged, (found >= 0) & is_judged
    return ForegroundPixels(
        both=int(np.count_nonzero(is_true & is_found)),
        either=int(np.count_nonzero(is_true | is_found)),
    )


def foreground_quality(images: Sequence[ForegroundPixels]) -> ForegroundQuality:
    """Images without any foreground, true or found, count as 1 in the mean over images."""
    either = sum(image.either for image in images)
    ious = [image.both / image.either if image.either else 1.0 for image in images]
    return ForegroundQuality(
        iou=sum(image.both for image in images) / either if either else None,
        mean_iou=sum(ious) / len(ious) if ious else None,
    )


def _judged(truth: LabelMap, found: LabelMap, unjudged: frozenset[int]) -> NDArray[np.bool_]:
    """[H, W] neither VOID, nor of an unjudged category where nobody labelled."""
    if truth.shape != found.shape:
        raise InputError(f"labels: expected a map of {truth.shape}, got {found.shape}")
    is_judged: NDArray[np.bool_] = truth != VOID
    if unjudged:
        is_judged &= (truth != NOTHING) | ~np.isin(found, list(unjudged))
    return is_judged
