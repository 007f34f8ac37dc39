"""Between an image and SAM's 1024 x 1024 square: pixels and boxes in, masks back.

Method: segment_anything `ResizeLongestSide`, `Sam.preprocess` and `Sam.postprocess_masks`.
Legend: H, W image size; h, w its size in the square (longest side 1024, padded right and bottom).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from teachers.protocol import BoxesXyxy, ImageRgb

SQUARE = 1024
LOW_RES = 256
_MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
_STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The sizes of one image: its own and the one it has in the square."""

    size_hw: tuple[int, int]
    inner_hw: tuple[int, int]

    @classmethod
    def of(cls, size_hw: tuple[int, int]) -> Frame:
        """The frame of an image of that size; ratios round half up, as upstream's do."""
        scale = SQUARE / max(size_hw)
        height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
        return cls(size_hw=size_hw, inner_hw=(height, width))


def pixels_in_square(image: ImageRgb, frame: Frame) -> NDArray[np.float32]:
    """[1024, 1024, 3] normalised pixels of an RGB image; padding is zero after normalising."""
    height, width = frame.inner_hw
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    square = np.zeros((SQUARE, SQUARE, 3), dtype=np.float32)
    square[:height, :width] = (np.asarray(resized, dtype=np.float32) - _MEAN) / _STD
    return square


def boxes_in_square(box_xyxy: BoxesXyxy, frame: Frame) -> Tensor:
    """[n, 4] float32, pixels of the square."""
    (height, width), (inner_height, inner_width) = frame.size_hw, frame.inner_hw
    ratio = np.array([inner_width / width, inner_height / height] * 2)
    return torch.from_numpy((box_xyxy * ratio).astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What happens to one line of 256 logits on its way to full size, in one direction.

    Two bilinear steps (256 to 1024, cut to h or w, to H or W) are one linear map.

    Attributes:
        matrix: [full, 256]; each row sums to 1 and has at most four entries.
        first, last: [full] non-decreasing; the low-resolution pixels a full-size one is made of.
    """

    matrix: Tensor
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, inner: int, full: int, device: torch.device) -> Axis:
        """For a side of `full` pixels in the image and `inner` pixels in the square."""
        lines = torch.eye(LOW_RES)[None]  # [1, 256 lines, 256]
        square = F.interpolate(lines, SQUARE, mode="linear", align_corners=False)
        lines = F.interpolate(square[..., :inner], full, mode="linear", align_corners=False)
        matrix = lines[0].T.contiguous()
        used = matrix.numpy() != 0
        last = LOW_RES - 1 - used[:, ::-1].argmax(axis=1)
        return cls(matrix=matrix.to(device), first=used.argmax(axis=1), last=last)

    def made_of(self, start: int, stop: int) -> slice:
        """The full-size pixels that are made of low-resolution pixels in [start, stop) alone."""
        begin = int(np.searchsorted(self.first, start))
        return slice(begin, max(begin, int(np.searchsorted(self.last, stop))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Upsampler:
    """Low-resolution logits to the image's own size: bilinear interpolation is separable."""

    x: Axis
    y: Axis

    @classmethod
    def of(cls, frame: Frame, device: torch.device) -> Upsampler:
        """For masks of an image with that frame."""
        (height, width), (inner_height, inner_width) = frame.size_hw, frame.inner_hw
        return cls(x=Axis.of(inner_width, width, device), y=Axis.of(inner_height, height, device))
