"""Boundary AP: masks are compared near their outlines (Cheng et al., "Boundary IoU", 2103.16562).

The IoU of two masks is the smaller of their mask IoU and the IoU of what of each lies within 2% of
the image's diagonal of its own outline (the paper's section 5); the rest is COCO's AP.
"""

from __future__ import annotations

from collections.abc import Sequence

from student.evaluation.ap import AveragePrecision, average_precision
from student.evaluation.instances import FoundInstances, TrueInstances


def boundary_precision(
    truths: Sequence[TrueInstances], found: Sequence[FoundInstances], *, num_categories: int
) -> AveragePrecision:
    """As `average_precision`, with faster-coco-eval's `boundary` IoU."""
    return average_precision(truths, found, num_categories=num_categories, kind="boundary")
