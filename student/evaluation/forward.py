"""Photos through the network: onto the canvas as in training, without jitter, and what it says.

Legend: H and W a photo's own size, S the side of the canvas, K texts, E their channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student.data.decode import decode_whole, normalised, scaled
from student.data.view import View, whole_view
from student.evaluation.full_size import Frame
from student.evaluation.image_output import ImageOutput, image_output

if TYPE_CHECKING:
    from student.checkpoint import Student

ImageRgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A photo as it lies on the canvas: [h, w, 3] uint8 RGB, and where that is."""

    pixels: ImageRgb
    frame: Frame


def placed_photo(photo: ImageRgb, side: int) -> Placed:
    """[H, W, 3] RGB uint8, its longer side as long as the canvas."""
    view = whole_view((photo.shape[0], photo.shape[1]), side)
    return Placed(pixels=scaled(photo, view.placed_hw), frame=_frame(view))


def placed_bytes(data: bytes, *, size_hw: tuple[int, int], side: int) -> Placed:
    """The same of stored bytes; to the pixel what `predict` makes of the photo.

    Raises:
        ObjectDamagedError: they cannot be decoded, or to a picture of another size.
    """
    return placed_photo(decode_whole(data, size_hw), side)


def placed_outputs(
    student: Student, images: Sequence[Placed], vectors: Tensor, *, device: str
) -> list[tuple[ImageOutput, int]]:
    """What the student says of each, all in one batch, and how many of its queries are learnable.

    Args:
        student: its network is on `device`.
        images: at least one.
        vectors: [K, E] of the texts.
        device: as torch names it.
    """
    side = student.config.data.image_side
    canvases = np.zeros((len(images), 3, side, side), dtype=np.float32)
    padding = np.ones((len(images), side, side), dtype=bool)
    for number, image in enumerate(images):
        height, width = image.frame.content_hw
        normalised(image.pixels, canvases[number])
        padding[number, :height, :width] = False
    is_half = student.config.train.precision == "bfloat16" and torch.device(device).type == "cuda"
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=is_half):
        output = student.segmenter(
            torch.from_numpy(canvases).to(device),
            torch.from_numpy(padding).to(device),
            vectors.to(device),
        )
    # The rest in full precision: products of bfloat16 have two digits.
    return [
        (image_output(output, number, image.frame), output.num_learnable)
        for number, image in enumerate(images)
    ]


def image_outputs(
    student: Student, photos: Sequence[ImageRgb], vectors: Tensor, *, device: str
) -> list[tuple[ImageOutput, int]]:
    """`placed_outputs` of [H, W, 3] RGB uint8 photos of any size."""
    side = student.config.data.image_side
    placed = [placed_photo(photo, side) for photo in photos]
    return placed_outputs(student, placed, vectors, device=device) if placed else []


def _frame(view: View) -> Frame:
    return Frame(canvas_hw=(view.side, view.side), content_hw=view.placed_hw, size_hw=view.image_hw)
