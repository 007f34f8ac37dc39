"""COCO run-length masks: column-major, compressed counts as ASCII bytes, in the image's own size.

Encoding and set operations are pycocotools'; this file adds what it lacks: validation that never
crashes on foreign input, and the conversion from the shapes a `segmentation` may have in JSON.
Runs alternate background, foreground, background ... and sum to height * width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from manifests.errors import InputError

Mask = NDArray[np.uint8]
_MAX_POLYGON_COORDINATES = 10_000_000


def encode(mask: NDArray[Any]) -> bytes:
    """Counts of an [H, W] mask (bool or 0/1 integers). Fortran order is three times as fast."""
    return bytes(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"])


def decode(counts: bytes, *, size_hw: tuple[int, int]) -> Mask:
    """[H, W] uint8 of 0 and 1, Fortran order. `counts` must be valid: see `check`."""
    mask: Mask = coco_mask.decode({"size": list(size_hw), "counts": counts})
    return mask


def area(counts: bytes, *, size_hw: tuple[int, int]) -> int:
    """Foreground pixels."""
    return int(coco_mask.area({"size": list(size_hw), "counts": counts}))


def box_xyxy(counts: bytes, *, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """[4] tight box of the foreground; zeros for an empty mask."""
    x, y, width, height = coco_mask.toBbox({"size": list(size_hw), "counts": counts})
    return np.array([x, y, x + width, y + height], dtype=np.float32)


def paired_iou(a: bytes, b: bytes, *, size_hw: tuple[int, int]) -> float:
    """Intersection over union of two masks of one image; 0.0 when both are empty."""
    size = list(size_hw)
    rle = [{"size": size, "counts": a}], [{"size": size, "counts": b}]
    return float(np.nan_to_num(coco_mask.iou(*rle, [0])[0, 0]))


def runs_from_counts(counts: bytes) -> NDArray[np.int64]:
    """The run lengths behind compressed counts (COCO's base-48 deltas, maskApi.c `rleFrString`).

    Raises:
        InputError: the bytes are not a compressed count string.
    """
    runs: list[int] = []
    position, end = 0, len(counts)
    while position < end:
        value, shift, more = 0, 0, True
        while more:
            if position >= end:
                raise InputError("mask RLE ends in the middle of a number; the mask is damaged")
            char = counts[position] - 48
            if not 0 <= char < 64 or shift > 60:
                raise InputError("mask RLE has a character outside COCO's alphabet")
            value |= (char & 0x1F) << shift
            more = bool(char & 0x20)
            position += 1
            shift += 5
            if not more and char & 0x10:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return np.array(runs, dtype=np.int64)


def check(counts: bytes, *, size_hw: tuple[int, int]) -> None:
    """Refuses counts that do not cover exactly height * width pixels with non-negative runs.

    Raises:
        InputError: says which of the two, with expected and found.
    """
    runs = runs_from_counts(counts)
    if (runs < 0).any():
        raise InputError("mask RLE has a negative run; the mask is damaged")
    height, width = size_hw
    if int(runs.sum()) != height * width:
        raise InputError(
            f"mask RLE covers {int(runs.sum())} pixels, expected {height} x {width} = "
            f"{height * width}; the mask belongs to an image of another size"
        )


def from_segmentation(segmentation: object, *, size_hw: tuple[int, int]) -> bytes | None:
    """Counts from a COCO `segmentation`: polygons, uncompressed RLE or compressed RLE.

    Args:
        segmentation: a list of flat polygons [x0, y0, x1, y1, ...] in pixels of the image, or
            {"size": [height, width], "counts": list of runs | str}.
        size_hw: the image's height and width.

    Returns:
        None when there is no segmentation (None, [], {}).

    Raises:
        InputError: it has another shape or size, or does not describe a mask.
    """
    if segmentation is None or segmentation in ([], {}):
        return None
    if isinstance(segmentation, dict):
        return _from_rle_object(segmentation, size_hw=size_hw)
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size_hw=size_hw)
    kind = type(segmentation).__name__
    raise InputError(f"segmentation: expected polygons or RLE, got {kind}")


def _from_rle_object(rle: dict[str, Any], *, size_hw: tuple[int, int]) -> bytes:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or [*size] != [*size_hw]:
        raise InputError(f"mask RLE: expected size {[*size_hw]}, got {size}")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts):
            raise InputError("mask RLE: expected counts of non-negative integers")
        if sum(counts) != size_hw[0] * size_hw[1]:
            raise InputError(
                f"mask RLE covers {sum(counts)} pixels, expected {size_hw[0] * size_hw[1]}"
            )
        packed = coco_mask.frPyObjects({"size": [*size_hw], "counts": counts}, *size_hw)
        return bytes(packed["counts"])
    if isinstance(counts, str):
        try:
            raw = counts.encode("ascii")
        except UnicodeEncodeError as error:
            raise InputError("mask RLE: counts are not ASCII; the mask is damaged") from error
        check(raw, size_hw=size_hw)
        return raw
    raise InputError(f"mask RLE: expected counts as list or string, got {type(counts).__name__}")


def _from_polygons(polygons: Sequence[Any], *, size_hw: tuple[int, int]) -> bytes:
    flat: list[list[float]] = []
    for polygon in polygons:
        if (
            not isinstance(polygon, list)
            or len(polygon) % 2
            or len(polygon) > (_MAX_POLYGON_COORDINATES)
        ):
            raise InputError("polygon: expected a flat list of x, y pairs")
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError("polygon: expected numbers") from error
        if not np.isfinite(points).all() or points.ndim != 1:
            raise InputError("polygon: expected finite numbers")
        if points.size < 6:
            raise InputError(f"polygon: expected at least 3 points, got {points.size // 2}")
        # maskApi rasterises along the whole outline: a vertex far outside would cost unbounded time.
        limit = np.tile([size_hw[1], size_hw[0]], points.size // 2)
        flat.append(np.clip(points, 0, limit).tolist())
    packed = coco_mask.merge(coco_mask.frPyObjects(flat, *size_hw))
    return bytes(packed["counts"])
