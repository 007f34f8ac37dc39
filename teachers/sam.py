"""Segment Anything and MobileSAM as teachers: one image's boxes in, three masks a box out.

Method: Segment Anything (arXiv 2304.02643) prompted with a box, multi-mask output. Unlike in
upstream's predictor, nothing is kept from one image to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.boxes import paired_iou
from manifests.errors import InputError
from teachers.arguments import check_arguments
from teachers.cut import cut_to_boxes
from teachers.gpu_memory import out_of_memory_translated
from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, TeacherIdentity
from teachers.sam_build import SamParts, load_parts
from teachers.sam_consistency import best_iou, mean_iou_of_others
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
        with out_of_memory_translated(), torch.inference_mode(), self._autocast():
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
        chosen = boxes[indices]
        with out_of_memory_translated(), torch.inference_mode():
            logits, iou = self._decode(image_tokens, chosen, frame)
            outputs = logits > 0
            agreeing = {"output_iou": mean_iou_of_others(outputs)}
            if self._settings.jitter:
                moved, _ = self._decode(image_tokens, self._moved(chosen, frame), frame)
                agreeing["jitter_iou"] = best_iou(outputs, moved > 0)
            full = full_size(logits, upsampler)
        signals = {
            "predicted_iou": iou.cpu().numpy(),
            "stability": full.stability.numpy(),
            "mean_foreground": full.mean_foreground.numpy(),
            **{name: values.cpu().numpy() for name, values in agreeing.items()},
        }
        box_iou = _box_iou(full, chosen)
        masks = full.masks.numpy()
        if self._settings.cut_to_box:
            outside = cut_to_boxes(masks, full.tight_xyxy.numpy(), chosen)
            signals |= {"box_iou": box_iou, "outside_fraction": outside}
        order = _best_first(signals, box_iou, is_empty=np.logical_not(masks.any(axis=(2, 3))))
        for row, candidates in enumerate(order):
            masks[row] = masks[row, candidates]

        def ordered(name: str) -> NDArray[np.float32] | None:
            return np.take_along_axis(signals[name], order, axis=1) if name in signals else None

        return MaskChunk(
            image_index=image_index,
            box_indices=indices,
            masks=masks.swapaxes(2, 3),
            predicted_iou=ordered("predicted_iou"),
            stability=ordered("stability"),
            mean_foreground=ordered("mean_foreground"),
            jitter_iou=ordered("jitter_iou"),
            output_iou=ordered("output_iou"),
            box_iou=ordered("box_iou"),
            outside_fraction=ordered("outside_fraction"),
        )

    def _decode(
        self, image_tokens: Tensor, boxes: BoxesXyxy, frame: Frame
    ) -> tuple[Tensor, Tensor]:
        """[n, 3, 256, 256] logits of the multi-mask outputs, x before y, and [n, 3] their IoUs."""
        prompts = boxes_in_square(boxes, frame).to(self._device)
        with self._autocast():
            logits, iou = self._parts.decoder.decode(image_tokens, prompts)
        return logits[:, 1:].float(), iou[:, 1:].float()

    def _moved(self, boxes: BoxesXyxy, frame: Frame) -> BoxesXyxy:
        """The boxes up and to the right by `jitter` of their size, and a little larger and smaller.

        Each side moves by another share, so that neither place nor size nor shape stays.
        """
        shares = np.array([-1.0, 0.6, -0.6, 1.0], np.float32) * self._settings.jitter
        sides = boxes[:, 2:] - boxes[:, :2]
        height, width = frame.size_hw
        moved: BoxesXyxy = boxes + shares * np.tile(sides, 2)
        return moved.clip(0, np.array([width, height, width, height], np.float32))

    def _autocast(self) -> AbstractContextManager[object]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self._settings.precision))


def _box_iou(full: FullSizeMasks, boxes: BoxesXyxy) -> NDArray[np.float32]:
    """[n, 3] IoU of each mask's own box with the prompt."""
    tight = full.tight_xyxy.numpy()  # [n, 3, 4]
    paired = paired_iou(tight, np.repeat(boxes, tight.shape[1], axis=0))
    return paired.reshape(tight.shape[:2]).astype(np.float32)


def _best_first(
    signals: Mapping[str, NDArray[np.float32]],
    box_iou: NDArray[np.float32],
    *,
    is_empty: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """[n, 3] candidates by predicted IoU + stability + IoU of the mask's own box with the prompt.

    Masks that are empty come last.

    The prompt is a box around the whole object, which predicted IoU alone, trained for clicks,
    does not know: the sum gains 0.025 / 0.007 / 0.007 mean IoU over it on photos of COCO, street
    fashion and balloons with MobileSAM. SAM's single-mask output gains nothing on top.
    """
    score = signals["predicted_iou"] + signals["stability"] + box_iou
    return np.argsort(np.where(is_empty, np.inf, -score), axis=1, kind="stable")


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
