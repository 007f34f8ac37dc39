"""GrabCut as a teacher: colours inside and outside the box, no weights; better than filled boxes.

Method: GrabCut (Rother et al., SIGGRAPH 2004) as OpenCV has it, on a crop around the box at a
bounded size. Outside the box is background. The middle of the box is taken for foreground: without
it, GrabCut often explains a whole object away as background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError
from teachers.arguments import check_arguments
from teachers.crop import Crop
from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, PromptError, TeacherIdentity
from teachers.settings import GrabCutSettings, Settings

_CHUNK_BYTES = 64 * 2**20
_MIN_SIDE_PX = 4.0
"""A smaller box has too few pixels for two colour models (opencv/opencv#14879, #27058)."""
_MIN_PIXELS = 16
"""OpenCV fits five Gaussians to each side and asserts when one is (nearly) empty."""
_CORE = 0.7
_OVAL = 1.2
"""Radii of two ellipses, in half box sizes: foreground for sure, and foreground probably.
Measured on photos of COCO, street fashion and balloons: without a core, mean IoU halves on COCO."""


def build(identity: TeacherIdentity, settings: Settings, _weights: Path | None) -> GrabCutTeacher:
    """See `teachers.registry.Builder`."""
    if not isinstance(settings, GrabCutSettings):
        raise InputError(f"teacher '{identity.name}' needs GrabCutSettings")
    return GrabCutTeacher(identity=identity, settings=settings)


class GrabCutTeacher:
    """Stateless; one candidate a box, no model signals."""

    def __init__(self, *, identity: TeacherIdentity, settings: GrabCutSettings) -> None:
        self.identity = identity
        self._settings = settings

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        """See `teachers.protocol.Teacher.predict`.

        Reasons of failures: `box_too_small_for_grabcut`, `grabcut_no_contrast` (no pixels to learn
        one of the two sides from), `grabcut_empty`.
        """
        check_arguments(images, boxes_xyxy)
        for image_index, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
            step = max(1, _CHUNK_BYTES // (image.shape[0] * image.shape[1]))
            for start in range(0, len(boxes), step):
                yield self._chunk(image_index, image, boxes, start, min(start + step, len(boxes)))

    def _chunk(
        self, image_index: int, image: ImageRgb, boxes: BoxesXyxy, start: int, stop: int
    ) -> MaskChunk:
        height, width = image.shape[:2]
        planes = np.zeros((stop - start, 1, width, height), dtype=np.uint8)  # [n, 1, W, H]
        failures: dict[int, PromptError] = {}
        drawn: list[int] = []
        for index in range(start, stop):
            try:
                crop, mask = _draw(image, boxes[index], self._settings)
            except PromptError as error:
                failures[index] = error
                continue
            planes[len(drawn), 0, crop.x0 : crop.x1, crop.y0 : crop.y1] = mask.T
            drawn.append(index)
        return MaskChunk(
            image_index=image_index,
            box_indices=np.array(drawn, dtype=np.int64),
            masks=planes[: len(drawn)].swapaxes(2, 3),
            failures=failures,
        )


def _draw(
    image: ImageRgb, box_xyxy: NDArray[np.float32], settings: GrabCutSettings
) -> tuple[Crop, NDArray[np.bool_]]:
    """The crop and the mask in it.

    Raises:
        PromptError: the box is too small, or nothing came out.
    """
    sides = box_xyxy[2:] - box_xyxy[:2]
    if sides.min() < _MIN_SIDE_PX:
        raise PromptError(
            "box_too_small_for_grabcut",
            f"expected sides of at least {_MIN_SIDE_PX:g} px, got {sides[0]:g} x {sides[1]:g}",
        )
    crop = Crop.around(box_xyxy, margin=settings.margin, size_hw=image.shape[:2])
    pixels = _shrunk(crop.of(image), settings.max_side)
    labels = _first_guess(crop, box_xyxy, pixels.shape[:2])
    num_foreground = int(np.count_nonzero(labels & 1))
    if min(num_foreground, labels.size - num_foreground) < _MIN_PIXELS:
        raise PromptError("grabcut_no_contrast", "too few pixels on one side to learn its colours")
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))  # the colour models, filled in
    unused_rectangle = (0, 0, 0, 0)
    mode = cv2.GC_INIT_WITH_MASK
    cv2.setRNGSeed(0)  # its k-means starts at random
    rounds = settings.iterations
    cv2.grabCut(pixels, labels, unused_rectangle, background, foreground, rounds, mode)
    mask = _grown((labels & 1).astype(np.float32), crop.size_hw)
    if not mask.any():
        raise PromptError("grabcut_empty", "GrabCut found no foreground in the box")
    return crop, mask


def _first_guess(
    crop: Crop, box_xyxy: NDArray[np.float32], grid_hw: tuple[int, int]
) -> NDArray[np.uint8]:
    """[h, w] GrabCut labels: an ellipse for sure, a wider one probably, the corners probably not.

    The corners leave GrabCut background to learn from when the box fills the whole image.
    """
    v, u = crop.inside_box(box_xyxy, grid_hw=grid_hw)
    inside = (np.abs(v)[:, None] <= 1) & (np.abs(u)[None] <= 1)
    radius = np.hypot(v[:, None], u[None])
    labels = np.full(grid_hw, cv2.GC_BGD, dtype=np.uint8)
    labels[inside] = cv2.GC_PR_BGD
    labels[inside & (radius < _OVAL)] = cv2.GC_PR_FGD
    labels[inside & (radius < _CORE)] = cv2.GC_FGD
    return labels


def _shrunk(pixels: ImageRgb, max_side: int) -> ImageRgb:
    """The pixels at most `max_side` long: GrabCut's time grows with their number."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _grown(mask: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    if mask.shape == size_hw:
        return mask > 0.5
    return cv2.resize(mask, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR) > 0.5
