"""Box geometry: `xyxy`, absolute pixels, float32, origin top-left, of the stored image.

A box covers the half-open area [x0, x1) x [y0, y1), so a full-frame box is (0, 0, width, height).
Arrays are [N, 4]; every converter names both ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def xywh_to_xyxy(box_xywh: NDArray[np.floating]) -> FloatArray:
    """[N, 4] (x, y, width, height) to [N, 4] (x0, y0, x1, y1)."""
    box = np.asarray(box_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1).astype(np.float32)


def xyxy_to_xywh(box_xyxy: NDArray[np.floating]) -> FloatArray:
    """[N, 4] (x0, y0, x1, y1) to [N, 4] (x, y, width, height)."""
    box = np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1).astype(np.float32)


def cxcywh_to_xyxy(box_cxcywh: NDArray[np.floating]) -> FloatArray:
    """[N, 4] (centre x, centre y, width, height) to [N, 4] (x0, y0, x1, y1)."""
    box = np.asarray(box_cxcywh, dtype=np.float64).reshape(-1, 4)
    half = box[:, 2:] / 2
    return np.concatenate([box[:, :2] - half, box[:, :2] + half], axis=1).astype(np.float32)


def xyxy_to_cxcywh(box_xyxy: NDArray[np.floating]) -> FloatArray:
    """[N, 4] (x0, y0, x1, y1) to [N, 4] (centre x, centre y, width, height)."""
    box = np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4)
    size = box[:, 2:] - box[:, :2]
    return np.concatenate([box[:, :2] + size / 2, size], axis=1).astype(np.float32)


def clip(box_xyxy: FloatArray, *, size_hw: tuple[int, int]) -> FloatArray:
    """Boxes cut to the image; a box that lies outside becomes one of zero area."""
    height, width = size_hw
    limit = np.array([width, height, width, height], dtype=np.float32)
    clipped: FloatArray = np.clip(box_xyxy, np.float32(0), limit)
    return clipped


def area(box_xyxy: FloatArray) -> FloatArray:
    """[N] areas in pixels; 0 for a box whose sides are not positive."""
    box = box_xyxy.reshape(-1, 4)
    sides = np.maximum(box[:, 2:] - box[:, :2], 0)
    product: FloatArray = sides[:, 0] * sides[:, 1]
    return product


def paired_iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """[N] intersection over union of row i of `a` with row i of `b`; 0 where the union is empty."""
    a, b = a_xyxy.reshape(-1, 4), b_xyxy.reshape(-1, 4)
    corner = np.maximum(a[:, :2], b[:, :2])
    sides = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - corner, 0)
    overlap = sides[:, 0] * sides[:, 1]
    union = area(a) + area(b) - overlap
    iou: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def rotate_with_exif(
    box_xyxy: FloatArray, *, orientation: int, raw_size_hw: tuple[int, int]
) -> FloatArray:
    """Boxes of the raw pixel grid, moved to the upright image that EXIF `orientation` asks for.

    `raw_size_hw` is the size before the rotation. Orientation 1 changes nothing; 2-8 are EXIF's
    mirrors and quarter turns (EXIF 2.32, tag 0x0112).

    Raises:
        ValueError: `orientation` is not 1-8.
    """
    height, width = raw_size_hw
    x0, y0, x1, y1 = box_xyxy.reshape(-1, 4).T
    corners = {
        1: (x0, y0, x1, y1),
        2: (width - x1, y0, width - x0, y1),
        3: (width - x1, height - y1, width - x0, height - y0),
        4: (x0, height - y1, x1, height - y0),
        5: (y0, x0, y1, x1),
        6: (height - y1, x0, height - y0, x1),
        7: (height - y1, width - x1, height - y0, width - x0),
        8: (y0, width - x1, y1, width - x0),
    }
    if orientation not in corners:
        raise ValueError(f"EXIF orientation: expected 1 to 8, got {orientation}")
    return np.stack(corners[orientation], axis=1).astype(np.float32)
