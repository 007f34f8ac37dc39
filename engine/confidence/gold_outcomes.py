"""What becomes of each answer for one image: the box that it is for, or why it cannot be used.

Legend: B boxes of the image that can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.confidence.drawn import (
    BAD_SEGMENTATION,
    NO_MASK,
    UNKNOWN_CATEGORY,
    Answer,
    DrawnImage,
)
from engine.confidence.match_gold import Match, match_answers
from manifests import rle
from manifests.boxes import FloatArray
from manifests.errors import InputError

EMPTY_MASK = "empty_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBoxes:
    """The boxes of an image that people were asked to draw.

    Attributes:
        rows: [B] in the shard.
        boxes_xyxy: [B, 4]
        categories: [B]
    """

    rows: Sequence[int]
    boxes_xyxy: FloatArray
    categories: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one answer.

    Attributes:
        reason: why it is not used, a ledger word, and `detail`; "" if it is.
        row: the box in the shard that it is for, or comes nearest to; None: there is none.
        counts: the mask, COCO RLE; b"" if it is none.
    """

    answer: Answer
    reason: str = ""
    detail: str = ""
    row: int | None = None
    counts: bytes = b""


def outcomes_of_image(
    drawn: Sequence[DrawnImage],
    boxes: ImageBoxes,
    *,
    size_hw: tuple[int, int],
    known_categories: frozenset[str],
    min_box_iou: float,
) -> list[Outcome]:
    """Looks at every answer for an image, which may be in several places of the file.

    Args:
        size_hw: of the stored image.
        known_categories: those of the dataset.
        min_box_iou: see `match_answers`.
    """
    seen = [outcome for image in drawn for outcome in _seen(image, size_hw, known_categories)]
    usable = [outcome for outcome in seen if not outcome.reason]
    tight = [rle.box_xyxy(outcome.counts, size_hw=size_hw) for outcome in usable]
    matches = iter(
        match_answers(
            np.array(tight, dtype=np.float32).reshape(-1, 4),
            [str(outcome.answer.category) for outcome in usable],
            boxes.boxes_xyxy,
            boxes.categories,
            min_box_iou=min_box_iou,
        )
    )
    return [
        outcome if outcome.reason else _matched(outcome, next(matches), boxes) for outcome in seen
    ]


def _matched(outcome: Outcome, match: Match, boxes: ImageBoxes) -> Outcome:
    row = None if match.box is None else boxes.rows[match.box]
    if match.reason is None:
        return replace(outcome, row=row)
    detail = f"its own box has IoU {match.box_iou:.2f} with the nearest box of its category"
    return replace(outcome, row=row, reason=match.reason, detail=detail)


def _seen(
    image: DrawnImage, size_hw: tuple[int, int], known_categories: frozenset[str]
) -> Iterator[Outcome]:
    is_other_size = image.size_hw not in (None, size_hw)
    for answer in image.answers:
        if answer.problem:
            yield Outcome(answer=answer, reason=answer.problem, detail=answer.detail)
        elif answer.category not in known_categories:
            detail = "the dataset has no such category"
            yield Outcome(answer=answer, reason=UNKNOWN_CATEGORY, detail=detail)
        elif is_other_size:
            detail = f"the file says the image is {image.size_hw}, it is {size_hw} (height, width)"
            yield Outcome(answer=answer, reason=BAD_SEGMENTATION, detail=detail)
        else:
            yield _decoded(answer, size_hw)


def _decoded(answer: Answer, size_hw: tuple[int, int]) -> Outcome:
    try:
        counts = rle.from_segmentation(answer.segmentation, size_hw=size_hw)
    except InputError as error:
        return Outcome(answer=answer, reason=BAD_SEGMENTATION, detail=str(error))
    if counts is None:
        return Outcome(answer=answer, reason=NO_MASK, detail="a box without a mask")
    if rle.area(counts, size_hw=size_hw) == 0:
        return Outcome(answer=answer, reason=EMPTY_MASK, detail="its mask has no pixel")
    return Outcome(answer=answer, counts=counts)
