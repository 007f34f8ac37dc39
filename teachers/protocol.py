"""The contract between the label job and everything that can draw a mask for a box.

Legend: n boxes of one chunk, c candidate masks a box, H and W the image's own size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

ImageRgb = NDArray[np.uint8]
"""[H, W, 3], RGB, 0-255, upright."""

BoxesXyxy = NDArray[np.float32]
"""[N, 4], absolute pixels of that image, x1 > x0 and y1 > y0, inside the image."""


class PromptError(Exception):
    """A teacher cannot draw this box (too small for GrabCut, say); `reason` is a ledger word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherIdentity:
    """Everything about a teacher that can change its masks; part of every work key.

    Attributes:
        name: the registry name; its layer is `masks/<name>`.
        version: the teacher's own output version, raised by hand when its masks change.
        weights_sha256: digest of the weights file; None for a teacher without weights.
        config: every setting that changes the output, as JSON-able values.
    """

    name: str
    version: int
    weights_sha256: str | None = None
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskChunk:
    """Candidate masks for some boxes of one image, the teacher's own choice first.

    Attributes:
        image_index: position in the `images` given to `predict`.
        box_indices: [n] positions in that image's boxes.
        masks: [n, c, H, W] uint8 of 0 and 1. Column-major planes (each [H, W] plane Fortran
            contiguous) are encoded three times as fast; any strides are right.
        predicted_iou: [n, c] the model's own estimate, or None if it makes none. Raw: may be > 1.
        stability: [n, c] area(logit > +1) / area(logit > -1) (SAM, automatic mask generator), in
            [0, 1], 0 for an empty mask; None if the teacher has no logits.
        mean_foreground: [n, c] mean foreground probability inside the mask (BoxTeacher's mask
            score), in [0, 1], 0 for an empty mask; None if the teacher has no probabilities.
        jitter_iou: [n, c] IoU of the mask with the most like of those that the same teacher draws
            for a box moved a little, in [0, 1]; None if it was not asked.
        output_iou: [n, c] mean IoU of the mask with the teacher's other candidates, in [0, 1]; None
            if it makes one alone.
        box_iou, outside_fraction: [n, c] as in `teachers.signals.MaskSignals`, of the masks before
            the teacher cut them to their boxes; None if it did not: then they are measured.
        failures: box position -> PromptError for boxes of this image the teacher cannot draw; these
            positions are not in `box_indices`.
    """

    image_index: int
    box_indices: NDArray[np.int64]
    masks: NDArray[np.uint8]
    predicted_iou: NDArray[np.float32] | None = None
    stability: NDArray[np.float32] | None = None
    mean_foreground: NDArray[np.float32] | None = None
    jitter_iou: NDArray[np.float32] | None = None
    output_iou: NDArray[np.float32] | None = None
    box_iou: NDArray[np.float32] | None = None
    outside_fraction: NDArray[np.float32] | None = None
    failures: Mapping[int, PromptError] = field(default_factory=dict)


@runtime_checkable
class Teacher(Protocol):
    """Stateless: the masks of an image depend on that image and its boxes alone."""

    @property
    def identity(self) -> TeacherIdentity: ...

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        """Masks for every box of every image, in chunks that bound memory.

        Chunks come in the order of images and, within an image, of boxes. Every box is in exactly
        one chunk's `box_indices` or `failures`; an image without boxes gives no chunk.

        Raises:
            ValueError: the arguments do not have the documented shapes and dtypes.
            MemoryError: not enough memory for the batch (a GPU's out-of-memory is translated to
                this); the caller halves the batch and calls again.
        """
        ...


@runtime_checkable
class MachineBound(Protocol):
    """A teacher whose sums of floats come out differently on another kind of machine.

    Its signals then differ in their last digits, and rarely a pixel at a mask's edge.
    """

    @property
    def machine(self) -> Mapping[str, str | int]:
        """What of this machine shapes them; under the name of a setting where one governs it."""
        ...


def machine_of(teacher: Teacher) -> dict[str, str | int]:
    """See `MachineBound.machine`; empty for a teacher that computes the same everywhere."""
    return dict(teacher.machine) if isinstance(teacher, MachineBound) else {}
