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
_MAX_OUTLINE_PX = 4_000_000
_MAX_NUMBER_CHARS = 7  # what maskApi itself writes for runs of 32 bits


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


def iou_matrix(
    a: Sequence[bytes], b: Sequence[bytes], *, size_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """[n, m] intersection over union of every mask of `a` with every one of `b`; 0 where both are
    empty."""
    if not (a and b):
        return np.zeros((len(a), len(b)))
    size = list(size_hw)
    of_a, of_b = ([{"size": size, "counts": counts} for counts in masks] for masks in (a, b))
    found: NDArray[np.float64] = np.nan_to_num(coco_mask.iou(of_a, of_b, [0] * len(b)))
    return found


def runs_from_counts(counts: bytes) -> NDArray[np.int64]:
    """The run lengths behind compressed counts (maskApi.c `rleToString`).

    A number is written in characters of 5 bits, lowest first, in two's complement; all but its
    last have the bit 0x20. From the fourth number on, each is the difference to the last but one.

    Raises:
        InputError: the bytes are not a compressed count string.
    """
    chars = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if ((chars < 0) | (chars >= 64)).any():
        raise InputError("mask RLE has a character outside COCO's alphabet; the mask is damaged")
    ends = np.flatnonzero((chars & 0x20) == 0)
    if len(chars) and (not len(ends) or ends[-1] != len(chars) - 1):
        raise InputError("mask RLE ends in the middle of a number; the mask is damaged")
    lengths = np.diff(ends, prepend=-1)
    if (lengths > _MAX_NUMBER_CHARS).any():
        raise InputError("mask RLE has a number that no image needs; the mask is damaged")
    starts = ends - lengths + 1
    shifts = 5 * (np.arange(len(chars)) - np.repeat(starts, lengths))
    values = np.add.reduceat((chars & 0x1F) << shifts, starts) if len(chars) else chars
    is_negative = (chars[ends] & 0x10) != 0
    runs: NDArray[np.int64] = values - (is_negative.astype(np.int64) << 5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check(counts: bytes, *, size_hw: tuple[int, int]) -> None:
    """Refuses counts that do not cover exactly height * width pixels with non-negative runs.

    Raises:
        InputError: says which of the two, with expected and found.
    """
    _check_runs(runs_from_counts(counts), size_hw=size_hw)


def _check_runs(runs: NDArray[np.int64], *, size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    if height < 1 or width < 1:
        raise InputError(f"mask RLE: expected an image with pixels, got size {height} x {width}")
    if (runs < 0).any():
        raise InputError("mask RLE has a negative run; the mask is damaged")
    # The longest run is looked at first: a sum of absurd runs could wrap round to the right one.
    covered = max(int(runs.max(initial=0)), int(runs.sum()))
    if covered != height * width:
        raise InputError(
            f"mask RLE covers {covered} pixels, expected {height} x {width} = {height * width}; "
            "the mask is damaged or belongs to an image of another size"
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
        runs = _runs_from_list(counts, size_hw=size_hw)
        packed = coco_mask.frPyObjects({"size": [*size_hw], "counts": counts}, *size_hw)["counts"]
    elif isinstance(counts, str):
        if not counts.isascii():
            raise InputError("mask RLE: counts are not ASCII; the mask is damaged")
        packed = counts.encode("ascii")
        runs = runs_from_counts(packed)
    else:
        kind = type(counts).__name__
        raise InputError(f"mask RLE: expected counts as list or string, got {kind}")
    _check_runs(runs, size_hw=size_hw)
    if (runs[1:] == 0).any():
        # Legal, but maskApi's box and overlap go wrong where a run in the middle has no pixels.
        return encode(decode(packed, size_hw=size_hw))
    return bytes(packed)


def _runs_from_list(counts: list[Any], *, size_hw: tuple[int, int]) -> NDArray[np.int64]:
    num_pixels = size_hw[0] * size_hw[1]
    if not all(type(run) is int and 0 <= run <= num_pixels for run in counts):
        raise InputError(f"mask RLE: expected counts of integers from 0 to {num_pixels} pixels")
    return np.array(counts, dtype=np.int64)


def _from_polygons(polygons: Sequence[Any], *, size_hw: tuple[int, int]) -> bytes:
    points = [_polygon_xy(polygon) for polygon in polygons]
    # maskApi walks along every outline at five steps a pixel and keeps each step in memory.
    outline_px = sum(_outline_px(xy) for xy in points)
    if outline_px > _MAX_OUTLINE_PX:
        raise InputError(
            f"polygon: expected an outline of at most {_MAX_OUTLINE_PX} pixels, got "
            f"{outline_px:.3g}; its coordinates are damaged or not pixels"
        )
    height, width = size_hw
    packed = coco_mask.frPyObjects([xy.ravel().tolist() for xy in points], height, width)
    return bytes(coco_mask.merge(packed)["counts"])


def _polygon_xy(polygon: object) -> NDArray[np.float64]:
    """[N, 2] vertices of a flat polygon from JSON."""
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise InputError("polygon: expected a flat list of x, y pairs")
    if not all(type(value) in (int, float) for value in polygon):
        raise InputError("polygon: expected numbers")
    try:
        points = np.asarray(polygon, dtype=np.float64)
    except OverflowError as error:  # JSON has integers of any length
        raise InputError("polygon: expected finite numbers") from error
    if not np.isfinite(points).all():
        raise InputError("polygon: expected finite numbers")
    if points.size < 6:
        raise InputError(f"polygon: expected at least 3 points, got {points.size // 2}")
    return points.reshape(-1, 2)


def _outline_px(xy: NDArray[np.float64]) -> float:
    """Pixels that a line drawer visits along a closed polygon."""
    steps = np.abs(xy - np.roll(xy, 1, axis=0)).max(axis=1)
    return float(np.ceil(steps).sum() + np.abs(xy).max())
