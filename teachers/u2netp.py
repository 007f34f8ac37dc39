"""U-2-Netp as a teacher: what stands out in a crop around the box.

Method: U^2-Net (arXiv 2005.09007), its small variant, with the authors' normalisation. A saliency
net knows no boxes: it answers for the most striking thing in the crop, wherever that lies; the mask
is what of it lies in the box.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from manifests.errors import InputError
from teachers.arguments import check_arguments
from teachers.crop import Crop
from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, PromptError, TeacherIdentity
from teachers.settings import Settings, U2NetpSettings

_SIDE = 320
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_CHUNK_BYTES = 64 * 2**20
_LOGIT_OFFSET = 1.0
"""Stability compares the mask at thresholds this far apart in logits, as SAM's does."""

_WIDE = {"AVX512": 256, "AVX2": 11}
"""Sets of vector instructions, widest first, by OpenCV's numbers (`cv::CpuFeatures`)."""


def build(identity: TeacherIdentity, settings: Settings, weights: Path | None) -> U2NetpTeacher:
    """See `teachers.registry.Builder`."""
    if not isinstance(settings, U2NetpSettings) or weights is None:
        raise InputError(f"teacher '{identity.name}' needs U2NetpSettings and a weights file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.num_threads
    session = onnxruntime.InferenceSession(
        str(weights), options, providers=["CPUExecutionProvider"]
    )
    return U2NetpTeacher(identity=identity, settings=settings, session=session)


class U2NetpTeacher:
    """Stateless; one candidate a box, with stability and mean foreground."""

    def __init__(
        self, *, identity: TeacherIdentity, settings: U2NetpSettings, session: Any
    ) -> None:
        """`session` is an onnxruntime session (untyped); its input is [1, 3, 320, 320], fixed."""
        self.identity = identity
        self._settings, self._session = settings, session
        self._input: str = session.get_inputs()[0].name
        self._output: str = session.get_outputs()[0].name

    @property
    def machine(self) -> Mapping[str, str | int]:
        """See `teachers.protocol.MachineBound`. The number of threads was measured not to show."""
        found = [name for name, code in _WIDE.items() if cv2.checkHardwareSupport(code)]
        return {"device": "cpu", "instructions": found[0] if found else platform.machine()}

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        """See `teachers.protocol.Teacher.predict`. Reason of failures: `u2netp_empty`."""
        check_arguments(images, boxes_xyxy)
        for image_index, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
            step = max(1, _CHUNK_BYTES // (image.shape[0] * image.shape[1]))
            for start in range(0, len(boxes), step):
                indices = range(start, min(start + step, len(boxes)))
                yield self._chunk(image_index, image, boxes, indices)

    def _chunk(
        self, image_index: int, image: ImageRgb, boxes: BoxesXyxy, indices: range
    ) -> MaskChunk:
        height, width = image.shape[:2]
        planes = np.zeros((len(indices), 1, width, height), dtype=np.uint8)  # [n, 1, W, H]
        signals: list[tuple[float, float]] = []
        drawn: list[int] = []
        failures: dict[int, PromptError] = {}
        for index in indices:
            crop, saliency = self._saliency(image, boxes[index])
            mask = saliency > self._settings.threshold
            if not mask.any():
                failures[index] = PromptError("u2netp_empty", "nothing stands out in the box")
                continue
            planes[len(drawn), 0, crop.x0 : crop.x1, crop.y0 : crop.y1] = mask.T
            signals.append((_stability(saliency, self._settings.threshold), saliency[mask].mean()))
            drawn.append(index)
        stability, mean_foreground = (
            np.array(signals, dtype=np.float32).reshape(-1, 2, 1).swapaxes(0, 1)
        )  # each [n, 1]
        return MaskChunk(
            image_index=image_index,
            box_indices=np.array(drawn, dtype=np.int64),
            masks=planes[: len(drawn)].swapaxes(2, 3),
            stability=stability,
            mean_foreground=mean_foreground,
            failures=failures,
        )

    def _saliency(
        self, image: ImageRgb, box_xyxy: NDArray[np.float32]
    ) -> tuple[Crop, NDArray[np.float32]]:
        """The crop and the saliency in it, [h, w] in [0, 1], 0 outside the box."""
        crop = Crop.around(box_xyxy, margin=self._settings.margin, size_hw=image.shape[:2])
        pixels = _normalised(crop.of(image))
        answer = self._session.run([self._output], {self._input: pixels})[0][0, 0]  # [320, 320]
        saliency = cv2.resize(
            _stretched(answer), crop.size_hw[::-1], interpolation=cv2.INTER_LINEAR
        )
        v, u = crop.inside_box(box_xyxy, grid_hw=crop.size_hw)
        inside = (np.abs(v)[:, None] <= 1) & (np.abs(u)[None] <= 1)
        return crop, np.where(inside, saliency, np.float32(0))


def _normalised(pixels: ImageRgb) -> NDArray[np.float32]:
    """[1, 3, 320, 320]: divided by the crop's own maximum, then by ImageNet's statistics."""
    resized = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    scaled = np.asarray(resized, dtype=np.float32)
    scaled = scaled / max(float(scaled.max()), 1.0)
    return np.ascontiguousarray(((scaled - _MEAN) / _STD).transpose(2, 0, 1)[None])


def _stretched(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the full range 0 to 1, as the authors do; all 0 for a constant map."""
    low, high = float(saliency.min()), float(saliency.max())
    if high - low < 1e-6:
        return np.zeros_like(saliency)
    stretched: NDArray[np.float32] = (saliency - low) / (high - low)
    return stretched


def _stability(saliency: NDArray[np.float32], threshold: float) -> float:
    """area(logit > t + 1) / area(logit > t - 1), where t is the threshold's own logit."""
    logit = np.log(threshold / (1 - threshold))
    high, low = 1 / (1 + np.exp(-logit - _LOGIT_OFFSET)), 1 / (1 + np.exp(-logit + _LOGIT_OFFSET))
    return float((saliency > high).sum() / max(1, (saliency > low).sum()))
