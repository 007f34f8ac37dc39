"""Segment Anything and MobileSAM as teachers: one image's boxes in, three masks a box out.

Method: Segment Anything (arXiv 2304.02643) prompted with a box, multi-mask output. Unlike in
upstream's predictor, nothing is kept from one image to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.boxes import paired_iou
from manifests.errors import InputError
from teachers.arguments import check_arguments
from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, TeacherIdentity
from teachers.sam_build import SamParts, load_parts
from teachers.sam_frame import Frame, Upsampler, boxes_in_square, pixels_in_square
from teachers.sam_masks import FullSizeMasks, full_size
from teachers.settings import SamSettings, Settings

_NUM_CANDIDATES = 3
_IMAGE_BATCH = {"cpu": 1, "cuda": 8}
_BOX_BATCH = {"cpu": 2, "cuda": 64}


def build(identity: TeacherIdentity, settings: Settings, weights: Path | None) -> SamTeacher:
    """See `teachers.registry.Builder`."""
    if not isinstance(settings, SamSettings) or weights is None:
        raise InputError(f"teacher '{identity.name}' needs SamSettings and a weights file")
    device = _device(settings.device)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    parts = load_parts(identity.name, weights, device)
    return SamTeacher(identity=identity, settings=settings, parts=parts, device=device)


class SamTeacher:
    """Stateless: holds weights and settings, no image."""

    def __init__(
        self,
        *,
        identity: TeacherIdentity,
        settings: SamSettings,
        parts: SamParts,
        device: torch.device,
    ) -> None:
        self.identity = identity
        self._parts, self._device, self._settings = parts, device, settings
        self._image_batch = settings.image_batch or _IMAGE_BATCH[device.type]
        self._box_batch = settings.box_batch or _BOX_BATCH[device.type]

    @property
    def machine(self) -> Mapping[str, str | int]:
        """See `teachers.protocol.MachineBound`."""
        batches = {"image_batch": self._image_batch, "box_batch": self._box_batch}
        if self._device.type == "cuda":
            return {"device": "cuda", "gpu": torch.cuda.get_device_name(self._device), **batches}
        return {
            "device": self._device.type,
            "instructions": str(torch.backends.cpu.get_cpu_capability()),
            "num_threads": torch.get_num_threads(),
            **batches,
        }

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        """See `teachers.protocol.Teacher.predict`; three candidates a box, best first."""
        check_arguments(images, boxes_xyxy)
        with_boxes = [index for index, boxes in enumerate(boxes_xyxy) if len(boxes)]
        for start in range(0, len(with_boxes), self._image_batch):
            group = with_boxes[start : start + self._image_batch]
            frames = [Frame.of(_size_hw(images[index])) for index in group]
            embeddings = self._encode([images[index] for index in group], frames)
            for index, frame, embedding in zip(group, frames, embeddings, strict=True):
                yield from self._masks_of_image(index, boxes_xyxy[index], frame, embedding)

    def _encode(self, images: Sequence[ImageRgb], frames: Sequence[Frame]) -> Tensor:
        """[B, 256, 64, 64] embeddings."""
        pairs = zip(images, frames, strict=True)
        pixels = np.stack([pixels_in_square(image, frame) for image, frame in pairs])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # [B, 3, 1024, 1024], channels last
        with _out_of_memory_translated(), torch.inference_mode(), self._autocast():
            embeddings: Tensor = self._parts.encoder(batch.to(self._device))
        return embeddings.float()

    def _masks_of_image(
        self, image_index: int, boxes: BoxesXyxy, frame: Frame, embedding: Tensor
    ) -> Iterator[MaskChunk]:
        with torch.inference_mode():
            image_tokens = self._parts.decoder.image_tokens(embedding)
            upsampler = Upsampler.of(frame, self._device)
        step = self._boxes_at_once(frame)
        start = 0
        while start < len(boxes):
            indices = np.arange(start, min(start + step, len(boxes)))
            try:
                chunk = self._chunk(image_index, indices, boxes, frame, image_tokens, upsampler)
            except MemoryError:
                if step == 1:
                    raise
                step = step // 2
                continue
            yield chunk
            start += step

    def _boxes_at_once(self, frame: Frame) -> int:
        height, width = frame.size_hw
        by_bytes = self._settings.mask_bytes // (_NUM_CANDIDATES * height * width)
        return max(1, min(self._box_batch, by_bytes))

    def _chunk(
        self,
        image_index: int,
        indices: NDArray[np.int64],
        boxes: BoxesXyxy,
        frame: Frame,
        image_tokens: Tensor,
        upsampler: Upsampler,
    ) -> MaskChunk:
        with _out_of_memory_translated(), torch.inference_mode():
            prompts = boxes_in_square(boxes[indices], frame).to(self._device)
            with self._autocast():
                logits, iou = self._parts.decoder.decode(image_tokens, prompts)
            full = full_size(logits[:, 1:].float(), upsampler)
            predicted_iou = iou[:, 1:].float().cpu().numpy()
        order = _best_first(predicted_iou, full, boxes[indices])
        masks = full.masks.numpy()
        for row, candidates in enumerate(order):
            masks[row] = masks[row, candidates]
        return MaskChunk(
            image_index=image_index,
            box_indices=indices,
            masks=masks.swapaxes(2, 3),
            predicted_iou=np.take_along_axis(predicted_iou, order, axis=1),
            stability=np.take_along_axis(full.stability.numpy(), order, axis=1),
            mean_foreground=np.take_along_axis(full.mean_foreground.numpy(), order, axis=1),
        )

    def _autocast(self) -> AbstractContextManager[object]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self._settings.precision))


def _best_first(
    predicted_iou: NDArray[np.float32], full: FullSizeMasks, boxes: BoxesXyxy
) -> NDArray[np.int64]:
    """[n, 3] candidates by predicted IoU + stability + IoU of the mask's own box with the prompt.

    The prompt is a box around the whole object, which predicted IoU alone, trained for clicks,
    does not know: the sum gains 0.025 / 0.007 / 0.007 mean IoU over it on photos of COCO, street
    fashion and balloons with MobileSAM. SAM's single-mask output gains nothing on top.
    """
    tight = full.tight_xyxy.numpy()  # [n, 3, 4]
    box_iou = paired_iou(tight, np.repeat(boxes, tight.shape[1], axis=0)).reshape(tight.shape[:2])
    score = predicted_iou + full.stability.numpy() + box_iou
    return np.argsort(-score, axis=1, kind="stable")


@contextmanager
def _out_of_memory_translated() -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(f"the GPU is full: {error}") from error


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: expected one of {torch.cuda.device_count()} CUDA devices, got '{wanted}'; "
            f"use device = 'auto' or 'cpu'"
        )
    return device


def _size_hw(image: ImageRgb) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
