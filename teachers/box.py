"""The filled box: no model, the floor that every other teacher has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, TeacherIdentity
from teachers.settings import Settings

_CHUNK_BYTES = 64 * 2**20


class BoxTeacher:
    """Fills each box, rounded outward to whole pixels."""

    identity = TeacherIdentity(name="box", version=1)

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        """See `teachers.protocol.Teacher.predict`; one candidate a box, no model signals."""
        for image_index, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
            height, width = image.shape[:2]
            step = max(1, _CHUNK_BYTES // (height * width))
            for start in range(0, len(boxes), step):
                indices = np.arange(start, min(start + step, len(boxes)))
                planes = np.zeros((len(indices), 1, width, height), dtype=np.uint8)  # [n, 1, W, H]
                for row, index in enumerate(indices):
                    x0, y0 = np.floor(boxes[index, :2]).astype(int)
                    x1, y1 = np.ceil(boxes[index, 2:]).astype(int)
                    planes[row, 0, x0:x1, y0:y1] = 1
                masks = planes.swapaxes(2, 3)  # [n, 1, H, W], column-major planes
                yield MaskChunk(image_index=image_index, box_indices=indices, masks=masks)


def build(_identity: TeacherIdentity, _settings: Settings, _weights: Path | None) -> BoxTeacher:
    """See `teachers.registry.Builder`; there is nothing to set."""
    return BoxTeacher()
