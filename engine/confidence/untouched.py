"""Answers that nobody drew: tools give back what they were given, whether a person looked or not.

A teacher's mask as gold would say that teachers are always right. CVAT, unless it is told not to,
turns masks into polygons on their way in, so what comes back untouched is not the same to the
pixel. It is the same as what that conversion makes of the teacher's mask, and so it is told from
what people draw, which may come closer to the teacher's mask than any polygon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from engine.confidence.gold_outcomes import Outcome
from engine.confidence.outputs import read_outputs, teachers_of
from manifests import rle
from manifests.dataset import Dataset

UNCHANGED = "unchanged"

_SAME_IOU = 0.995
"""From here on two masks that were made of the same one in the same way count as the same."""
_MIN_IOU = 0.5
"""Below, nobody has to look closer: the mask is another one."""


def teachers_masks(
    dataset: Dataset, shard: str, rows: Sequence[int], *, num_rows: int
) -> dict[int, set[bytes]]:
    """Row -> every mask that a teacher drew for it, its candidates too.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or has other rows.
    """
    masks: dict[int, set[bytes]] = {row: set() for row in rows}
    if rows:
        teachers = teachers_of(dataset.manifest)
        outputs = read_outputs(dataset, shard, teachers, ["counts"], num_rows=num_rows)
        for output in outputs.values():
            found = output.columns["counts"].take(pa.array(rows, pa.int64())).to_pylist()
            for row, counts in zip(rows, found, strict=True):
                masks[row].update([counts] if counts else [])
    return masks


def without_untouched(
    outcomes: Sequence[Outcome], masks: Mapping[int, set[bytes]], *, size_hw: tuple[int, int]
) -> list[Outcome]:
    """Refuses the answers for an image if every single mask in it is as a teacher drew it.

    One mask that was changed shows that a person was at work, who found the others right.

    Args:
        masks: see `teachers_masks`.
        size_hw: of the image.
    """
    drawn = [outcome for outcome in outcomes if outcome.counts]
    is_touched = any(
        outcome.row is None or not is_untouched(outcome.counts, masks[outcome.row], size_hw=size_hw)
        for outcome in drawn
    )
    if is_touched or not drawn:
        return list(outcomes)
    detail = "every mask of its image is as a teacher drew it, so perhaps nobody looked"
    return [
        outcome if outcome.reason else replace(outcome, reason=UNCHANGED, detail=detail)
        for outcome in outcomes
    ]


def is_untouched(counts: bytes, masks: Iterable[bytes], *, size_hw: tuple[int, int]) -> bool:
    """Whether a drawn mask is one of some others, as it is or as polygons."""
    return any(
        counts == mask
        or (
            _iou(counts, mask, size_hw) >= _MIN_IOU
            and _iou(counts, _as_polygons(mask, size_hw), size_hw) >= _SAME_IOU
        )
        for mask in masks
    )


def _iou(a: bytes, b: bytes, size_hw: tuple[int, int]) -> float:
    return rle.paired_iou(a, b, size_hw=size_hw)


def _as_polygons(mask: bytes, size_hw: tuple[int, int]) -> bytes:
    """A mask as it is after CVAT has made polygons of it: outer contours, thinned by Teh and Chin.

    They run through the middle of the outermost pixels; holes and parts of a pixel are lost.
    """
    import cv2

    contours, _ = cv2.findContours(
        np.ascontiguousarray(rle.decode(mask, size_hw=size_hw)),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_TC89_KCOS,
    )
    polygons = [contour.ravel().tolist() for contour in contours if len(contour) > 2]
    return rle.from_segmentation(polygons, size_hw=size_hw) or mask
