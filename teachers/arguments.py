"""The check every teacher makes on what `predict` is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teachers.protocol import BoxesXyxy, ImageRgb


def check_arguments(images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]) -> None:
    """Shapes, dtypes and ranges of `teachers.protocol.Teacher.predict`.

    Raises:
        ValueError: says which image, what was expected and what was got.
    """
    if len(images) != len(boxes_xyxy):
        raise ValueError(f"expected one box array an image, got {len(boxes_xyxy)}/{len(images)}")
    for index, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"image {index}: expected [H, W, 3] uint8, got {image.shape} {image.dtype}"
            )
        if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(
                f"boxes of image {index}: expected [N, 4] float32, got {boxes.shape} {boxes.dtype}"
            )
        _check_ranges(index, boxes, image.shape[0], image.shape[1])


def _check_ranges(index: int, boxes: BoxesXyxy, height: int, width: int) -> None:
    x0, y0, x1, y1 = boxes.T
    good = (x0 >= 0) & (y0 >= 0) & (x1 > x0) & (y1 > y0) & (x1 <= width) & (y1 <= height)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"box {row} of image {index}: expected 0 <= x0 < x1 <= {width} and "
            f"0 <= y0 < y1 <= {height}, got {boxes[row].tolist()}"
        )
