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

    @property
    def low_res_hw(self) -> tuple[int, int]:
        """The part of a 256 x 256 logit map that is not padding, rounded up."""
        step = SQUARE // LOW_RES
        return -(-self.inner_hw[0] // step), -(-self.inner_hw[1] // step)


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
class Upsampler:
    """Two bilinear steps (256 to 1024, cut to h x w, to H x W) as one matrix a direction.

    Bilinear interpolation is linear and separable, so `rows @ logits @ columns.T` is the same map.

    Attributes:
        rows: [H, 256]. columns: [W, 256]. Each row sums to 1 and has at most four entries.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, frame: Frame, device: torch.device) -> Upsampler:
        """For masks of an image with that frame."""
        rows, columns = (
            _resize_matrix(inner, full, device)
            for inner, full in zip(frame.inner_hw, frame.size_hw, strict=True)
        )
        return cls(rows=rows, columns=columns)


def _resize_matrix(inner: int, full: int, device: torch.device) -> Tensor:
    """[full, 256]: what the two steps do to one line of 256 logits."""
    lines = torch.eye(LOW_RES, device=device)[None]  # [1, 256 lines, 256]
    square = F.interpolate(lines, SQUARE, mode="linear", align_corners=False)
    lines = F.interpolate(square[..., :inner], full, mode="linear", align_corners=False)
    return lines[0].T.contiguous()
