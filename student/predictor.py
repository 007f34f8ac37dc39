"""The student as a predictor of plain photos: see teachers.predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError
from manifests.settings import did_you_mean
from student.predicted_segments import FOREGROUND, TASKS, Said, segments_of
from teachers.predictor import PredictedSegment, PredictorSource

if TYPE_CHECKING:
    from manifests.store import Store
    from student.checkpoint import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to look for.

    Attributes:
        task: a key of `predicted_segments.TASKS`; empty: `referring` with texts, else `instance`.
        texts: phrases, taken as they stand, each once; empty: the categories that the student was
            taught.
        top: segments of a photo, at most.
        min_score: class score below which `panoptic` makes no segment.
        max_overlap: IoU above which the worse one of two `instance` segments of a text is left out;
            a student that was trained for a short time finds everything several times. 1: none is.
        on_gpu: work on the first GPU that the process sees.
    """

    task: str = ""
    texts: tuple[str, ...] = ()
    top: int = 100
    min_score: float = 0.3
    max_overlap: float = 0.7
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"top: expected at least 1, got {self.top}")
        if not 0 < self.max_overlap <= 1:
            raise InputError(
                f"max_overlap: expected more than 0 and at most 1, got {self.max_overlap}"
            )
        if not all(text.strip(" _\t\n") for text in self.texts):
            raise InputError(
                f"text: expected a phrase to look for, got a blank one among {len(self.texts)}; "
                "without --text the student's categories are looked for"
            )
        task = self.task or ("referring" if self.texts else "instance")
        if task not in TASKS:
            raise InputError(f"task '{task}' is unknown; {did_you_mean(task, TASKS)}")
        object.__setattr__(self, "task", task)
        object.__setattr__(self, "texts", tuple(dict.fromkeys(self.texts)))


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
            "task": options.task,
            "top": options.top,
            **({"min_score": options.min_score} if options.task == "panoptic" else {}),
            **({"max_overlap": options.max_overlap} if options.task == "instance" else {}),
        },
        texts=_texts(options, checkpoint.lineage.categories),
        build=partial(_build, store, checkpoint.commit_id, options),
    )


def _texts(options: PredictOptions, categories: tuple[str, ...]) -> tuple[str, ...]:
    if options.task == FOREGROUND:
        return (FOREGROUND,)
    return tuple(dict.fromkeys(options.texts or categories))


def _build(store: Store, commit_id: str, options: PredictOptions) -> StudentPredictor:
    from student.checkpoint import load_student

    device = "cuda" if options.on_gpu else "cpu"
    return StudentPredictor(load_student(store, commit_id, device=device), options, device=device)


class StudentPredictor:
    """See `teachers.predictor.Predictor`."""

    def __init__(self, student: Student, options: PredictOptions, *, device: str) -> None:
        self._student, self._options, self._device = student, options, device
        self._texts = options.texts or student.categories
        self._max_overlap = options.max_overlap if options.task == "instance" else 1.0
        table = student.texts
        found = table.phrase_vectors if options.texts else table.vectors
        self._vectors = found(self._texts).to(device)  # [K, E]

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[list[PredictedSegment]]:
        """See `teachers.predictor.Predictor.predict`."""
        from student.evaluation.forward import image_outputs
        from student.evaluation.image_output import SegmentOptions
        from teachers.gpu_memory import out_of_memory_translated

        with out_of_memory_translated():
            outputs = image_outputs(self._student, photos, self._vectors, device=self._device)
        options = SegmentOptions(
            max_instances=self._options.top, object_threshold=self._options.min_score
        )
        return [
            segments_of(
                Said(image=image, texts=self._texts, num_learnable=number, options=options),
                self._options.task, top=self._options.top, max_overlap=self._max_overlap,
            )
            for image, number in outputs
        ]  # fmt: skip
