"""The student as a predictor of plain photos: see teachers.predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from manifests.errors import InputError
from teachers.predictor import PredictedSegment, PredictorSource

if TYPE_CHECKING:
    from manifests.store import Store
    from student.checkpoint import Student
    from student.evaluation.segments import ImageOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to look for.

    Attributes:
        texts: phrases, of each of which the one best segment of a photo is wanted; empty: the
            categories that the student was taught, and any number of segments.
        top: segments of a photo, at most.
        on_gpu: work on the first GPU that the process sees.
    """

    texts: tuple[str, ...] = ()
    top: int = 100
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"top: expected at least 1, got {self.top}")


def predictor_source(store: Store, ref: str, options: PredictOptions) -> PredictorSource:
    """Resolves the student once, here, so that all workers use the same.

    Raises:
        RefError: no such ref, or it is no checkpoint.
    """
    from student.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(store, ref)
    return PredictorSource(
        identity={
            "student": checkpoint.commit_id,
            "weights": checkpoint.attached["weights"],
            "texts": list(options.texts),
            "top": options.top,
        },
        build=partial(_build, store, checkpoint.commit_id, options),
    )


def _build(store: Store, commit_id: str, options: PredictOptions) -> StudentPredictor:
    from student.checkpoint import load_student

    device = "cuda" if options.on_gpu else "cpu"
    return StudentPredictor(load_student(store, commit_id, device=device), options, device=device)


class StudentPredictor:
    """See `teachers.predictor.Predictor`."""

    def __init__(self, student: Student, options: PredictOptions, *, device: str) -> None:
        self._student, self._options, self._device = student, options, device
        self._texts = options.texts or student.categories
        table = student.texts
        found = table.phrase_vectors if options.texts else table.vectors
        self._vectors = found(self._texts).to(device)  # [K, E]

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[list[PredictedSegment]]:
        """See `teachers.predictor.Predictor.predict`."""
        from student.evaluation.forward import image_outputs

        outputs = image_outputs(self._student, photos, self._vectors, device=self._device)
        return [self._segments(image, num_learnable) for image, num_learnable in outputs]

    def _segments(self, image: ImageOutput, num_learnable: int) -> list[PredictedSegment]:
        from student.evaluation.segments import SegmentOptions, instances, referred

        segment_options = SegmentOptions(max_instances=self._options.top)
        if not self._options.texts:
            found = instances(image, segment_options)
            return [
                PredictedSegment(
                    text=self._texts[int(found.categories[row])],
                    score=float(found.scores[row]),
                    box_xyxy=_box(found.boxes_xyxy[row]),
                    counts=found.counts[row],
                    query="learnable" if found.queries[row] < num_learnable else "conditional",
                )
                for row in range(len(found))
            ]
        segments = []
        for number, text in enumerate(self._texts):
            one = referred(image, number)
            box = rle.box_xyxy(one.counts, size_hw=image.frame.size_hw)
            if one.counts and rle.area(one.counts, size_hw=image.frame.size_hw):
                segments.append(
                    PredictedSegment(
                        text=text, score=one.score, box_xyxy=_box(box), counts=one.counts,
                        query="learnable" if one.query < num_learnable else "conditional",
                    )
                )  # fmt: skip
        return sorted(segments, key=lambda segment: -segment.score)[: self._options.top]


def _box(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2
