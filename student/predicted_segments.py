"""What a student says of one photo, as segments, for each of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from teachers.predictor import PredictedSegment

if TYPE_CHECKING:
    from student.evaluation.image_output import ImageOutput, SegmentOptions

FOREGROUND = "foreground"
_LIKELY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One photo's output and what it was asked for.

    Attributes:
        image: see there.
        texts: its K texts.
        num_learnable: of its queries, the first ones.
        options: every threshold.
    """

    image: ImageOutput
    texts: Sequence[str]
    num_learnable: int
    options: SegmentOptions

    def segment(self, text: str, score: float, counts: bytes, query: int) -> PredictedSegment:
        """A segment with the box of its mask; a query of -1 is several together."""
        x1, y1, x2, y2 = rle.box_xyxy(counts, size_hw=self.image.frame.size_hw).tolist()
        kind = "learnable" if query < self.num_learnable else "conditional"
        return PredictedSegment(
            text=text, score=score, box_xyxy=(x1, y1, x2, y2), counts=counts,
            query="several" if query < 0 else kind,
        )  # fmt: skip

    def is_empty(self, counts: bytes) -> bool:
        """Whether a mask has no pixel."""
        return not rle.area(counts, size_hw=self.image.frame.size_hw)


def _instances(said: Said) -> Iterator[PredictedSegment]:
    """Boxes are the box head's, not the masks', but where those lie outside of the photo."""
    from student.evaluation.segments import instances

    found = instances(said.image, said.options)
    for row in range(len(found)):
        x1, y1, x2, y2 = found.boxes_xyxy[row].tolist()
        query = int(found.queries[row])
        if x2 <= x1 or y2 <= y1:
            if said.is_empty(found.counts[row]):
                continue
            size_hw = said.image.frame.size_hw
            x1, y1, x2, y2 = rle.box_xyxy(found.counts[row], size_hw=size_hw).tolist()
        yield PredictedSegment(
            text=said.texts[int(found.categories[row])],
            score=float(found.scores[row]), box_xyxy=(x1, y1, x2, y2), counts=found.counts[row],
            query="learnable" if query < said.num_learnable else "conditional",
        )  # fmt: skip


def _panoptic(said: Said) -> Iterator[PredictedSegment]:
    from student.evaluation.panoptic_segments import panoptic

    found = panoptic(said.image, said.options)
    for row, category in enumerate(found.map.categories.tolist()):
        counts = _encoded(found.map.rows == row)
        yield said.segment(
            said.texts[category], float(found.scores[row]), counts, int(found.queries[row])
        )


def _semantic(said: Said) -> Iterator[PredictedSegment]:
    """One segment a text; its score is the mean foreground probability of its pixels."""
    from student.evaluation.segments import pixels

    found = pixels(said.image, said.options)
    for category in np.unique(found.labels[found.labels >= 0]).tolist():
        mask = found.labels == category
        score = float(found.foreground[mask].mean())
        yield said.segment(said.texts[category], score, _encoded(mask), -1)


def _foreground(said: Said) -> Iterator[PredictedSegment]:
    """What is rather one of the texts than nothing: above half of the surest pixel's probability.

    Class scores of a student that has seen little are low everywhere, so they are not compared
    with a fixed number.
    """
    from student.evaluation.segments import pixels

    probability = pixels(said.image, said.options).foreground
    mask = probability >= max(_LIKELY * float(probability.max(initial=0)), 1e-6)
    if mask.any():
        yield said.segment(FOREGROUND, float(probability[mask].mean()), _encoded(mask), -1)


def _referred(said: Said) -> Iterator[PredictedSegment]:
    """One segment a text at most."""
    from student.evaluation.segments import referred

    for number, text in enumerate(said.texts):
        one = referred(said.image, number)
        if not said.is_empty(one.counts):
            yield said.segment(text, one.score, one.counts, one.query)


TASKS: Mapping[str, Callable[[Said], Iterator[PredictedSegment]]] = {
    "instance": _instances,
    "panoptic": _panoptic,
    "semantic": _semantic,
    "foreground": _foreground,
    "referring": _referred,
}
"""What `maskmill predict --task` may be."""


def segments_of(
    said: Said, task: str, *, top: int, max_overlap: float = 1.0
) -> list[PredictedSegment]:
    """A photo's segments for a key of TASKS, best score first.

    Args:
        said: what to make them of.
        task: which.
        top: how many at most.
        max_overlap: of two segments of a text whose IoU is larger, the better one is there alone.
    """
    found = sorted(TASKS[task](said), key=lambda segment: -segment.score)
    size_hw = said.image.frame.size_hw
    return _without_copies(found, max_overlap=max_overlap, size_hw=size_hw)[:top]


def _without_copies(
    segments: Sequence[PredictedSegment], *, max_overlap: float, size_hw: tuple[int, int]
) -> list[PredictedSegment]:
    """Greedy non-maximum suppression of masks within each text; `segments` are best first."""
    rows_of: dict[str, list[int]] = {}
    for row, segment in enumerate(segments):
        rows_of.setdefault(segment.text, []).append(row)
    kept: list[int] = []
    for rows in rows_of.values():
        masks = [segments[row].counts for row in rows]
        overlaps = rle.iou_matrix(masks, masks, size_hw=size_hw) > max_overlap
        is_kept = np.ones(len(rows), dtype=bool)
        for place in range(1, len(rows)):
            is_kept[place] = not (overlaps[place, :place] & is_kept[:place]).any()
        kept += [row for row, is_one in zip(rows, is_kept, strict=True) if is_one]
    return [segments[row] for row in sorted(kept)]


def _encoded(mask: NDArray[np.bool_]) -> bytes:
    return rle.encode(mask.astype(np.uint8))
