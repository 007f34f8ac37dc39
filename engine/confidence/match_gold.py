"""Which box each answer is for: tools forget ids, so the mask's own box has to say it.

Legend: A answers, B boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.boxes import FloatArray, paired_iou

NO_BOX_MATCHES = "no_box_matches"
BOX_DISAGREES = "box_disagrees"
BOX_IS_TAKEN = "box_has_another_answer"

_FAINT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What became of one answer.

    Attributes:
        box: the box that it is for, or that comes nearest; None: it meets none.
        box_iou: of the mask's own box with that one.
        reason: why it cannot be used, a ledger word; None: it can.
    """

    box: int | None
    box_iou: float
    reason: str | None


def match_answers(
    mask_boxes_xyxy: FloatArray,
    answer_categories: Sequence[str],
    boxes_xyxy: FloatArray,
    box_categories: Sequence[str],
    *,
    min_box_iou: float,
) -> list[Match]:
    """[A] one match an answer: of its category, no box twice, the sum of IoUs as high as can be.

    Pairs below `min_box_iou` never take a box from one above it: they count next to nothing, and
    are matched only to say how near they came.

    Args:
        mask_boxes_xyxy: [A, 4] the tight boxes of the drawn masks.
        answer_categories: [A]
        boxes_xyxy: [B, 4] the labels' boxes.
        box_categories: [B]
        min_box_iou: in [0, 1].
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped, unused-ignore]

    iou = _iou(mask_boxes_xyxy, boxes_xyxy)  # [A, B]
    same = np.array(answer_categories, dtype=object)[:, None] == np.array(box_categories, object)
    iou = np.where(same, iou, 0) if iou.size else iou
    profit = np.where(iou >= min_box_iou, iou, _FAINT * iou)
    rows, columns = linear_sum_assignment(profit, maximize=True)
    of_answer = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [_match(iou[row], of_answer.get(row), min_box_iou) for row in range(len(iou))]


def _match(iou: NDArray[np.float32], column: int | None, min_box_iou: float) -> Match:
    """From the [B] IoUs of one answer and the box that it was given, if any."""
    if column is not None and iou[column] > 0:
        found = float(iou[column])
        reason = None if found >= min_box_iou else BOX_DISAGREES
        return Match(box=column, box_iou=found, reason=reason)
    best = float(iou.max(initial=0))
    if best >= min_box_iou and best > 0:
        return Match(box=None, box_iou=best, reason=BOX_IS_TAKEN)
    return Match(box=None, box_iou=best, reason=NO_BOX_MATCHES)


def _iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> NDArray[np.float32]:
    """[A, B] of every pair."""
    a, b = a_xyxy.reshape(-1, 4), b_xyxy.reshape(-1, 4)
    pairs = paired_iou(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1)))
    return pairs.reshape(len(a), len(b))
