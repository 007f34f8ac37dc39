"""From a source's coordinates to boxes and masks of the stored image, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.decode import ImageRejectedError, UprightImage
from engine.ingest_config import ImagePolicy
from manifests import boxes, rle
from manifests.errors import InputError

_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How a source's coordinates lie on the stored image.

    Attributes:
        size_hw: of the stored, upright image.
        scale_xy: multiplies the source's coordinates.
        orientation: the EXIF turn that the coordinates still need; 1 for none.
        raw_size_hw: the image's size before that turn.
    """

    size_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    orientation: int
    raw_size_hw: tuple[int, int]

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Size of the pixel grid that the scaled coordinates are in."""
        return self.size_hw if self.orientation == 1 else self.raw_size_hw


class Placements:
    """The placements of one image, by the size that an image entry of the source declares.

    Equal pictures are one image here, but each entry's boxes stay in the grid that it declares.
    """

    def __init__(
        self,
        image: UprightImage,
        *,
        box_unit: Literal["pixel", "relative"],
        policy: ImagePolicy,
    ) -> None:
        self._place = partial(place, image, box_unit=box_unit, policy=policy)
        self._known: dict[tuple[int | None, int | None], Placement | ImageRejectedError] = {}

    def of(self, declared: Mapping[str, Any]) -> Placement | ImageRejectedError:
        """The placement for a row with `height` and `width`, or why it has none."""
        size = declared["height"], declared["width"]
        if size not in self._known:
            height, width = size
            declared_hw = None if height is None or width is None else (height, width)
            try:
                self._known[size] = self._place(declared_hw=declared_hw)
            except ImageRejectedError as error:
                self._known[size] = error
        return self._known[size]


def place(
    image: UprightImage,
    *,
    declared_hw: tuple[int, int] | None,
    box_unit: Literal["pixel", "relative"],
    policy: ImagePolicy,
) -> Placement:
    """Decides in which grid a source's boxes are.

    Raises:
        ImageRejectedError: `image_size_mismatch`, the declared size is neither of the image's.
    """
    size_hw = (image.rgb.shape[0], image.rgb.shape[1])
    is_raw = _is_raw_frame(image, size_hw, declared_hw, policy)
    frame_hw = image.raw_size_hw if is_raw else size_hw
    scale_xy = (1.0, 1.0)
    if box_unit == "relative":
        scale_xy = (float(frame_hw[1]), float(frame_hw[0]))
    elif declared_hw is not None and declared_hw != frame_hw:
        scale_xy = _rescaled(declared_hw, frame_hw, policy)
    return Placement(
        size_hw=size_hw,
        scale_xy=scale_xy,
        orientation=image.orientation if is_raw else 1,
        raw_size_hw=image.raw_size_hw,
    )


def place_boxes(source_xyxy: NDArray[np.float64], placement: Placement) -> NDArray[np.float32]:
    """[N, 4] boxes on the stored image, not clipped; NaN stays NaN."""
    scaled = source_xyxy.reshape(-1, 4) * np.tile(placement.scale_xy, 2)
    with np.errstate(over="ignore"):  # becomes infinite, which `refuse_box` finds
        scaled_f32 = scaled.astype(np.float32)
    return boxes.rotate_with_exif(
        scaled_f32,
        orientation=placement.orientation,
        raw_size_hw=placement.raw_size_hw,
    )


def refuse_box(
    box_xyxy: NDArray[np.float32], *, size_hw: tuple[int, int], min_side_px: float
) -> str | None:
    """The ledger word for a [4] box that cannot be a prompt, or None."""
    if not np.isfinite(box_xyxy).all():
        return "box_not_finite"
    width, height = box_xyxy[2:] - box_xyxy[:2]
    if width < 0 or height < 0:
        return "box_negative_size"
    if width == 0 or height == 0:
        return "box_zero_area"
    clipped = boxes.clip(box_xyxy, size_hw=size_hw)
    sides = clipped[2:] - clipped[:2]
    if (sides <= 0).any():
        return "box_outside_image"
    if (sides < min_side_px).any():
        return "box_too_small"
    return None


def place_mask(segmentation: object, placement: Placement) -> bytes | None:
    """RLE counts on the stored image from a COCO `segmentation`; None if there is none.

    Raises:
        InputError: the segmentation does not describe a mask of this image.
    """
    if isinstance(segmentation, list) and placement.scale_xy != (1.0, 1.0):
        segmentation = [_scaled_polygon(polygon, placement.scale_xy) for polygon in segmentation]
    counts = rle.from_segmentation(segmentation, size_hw=placement.frame_hw)
    if counts is None or placement.orientation == 1:
        return counts
    mask = rle.decode(counts, size_hw=placement.frame_hw)
    return rle.encode(turn_upright(mask, placement.orientation))


def turn_upright(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """An [H, W] raw-grid mask turned as EXIF `orientation` (1-8) asks for."""
    if orientation >= 5:
        mask = mask.T
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    return np.flip(mask, axis=flips.get(orientation, ()))


def _is_raw_frame(
    image: UprightImage,
    size_hw: tuple[int, int],
    declared_hw: tuple[int, int] | None,
    policy: ImagePolicy,
) -> bool:
    if image.orientation == 1 or policy.exif_frame == "upright":
        return False
    if policy.exif_frame == "raw":
        return True
    return declared_hw == image.raw_size_hw and declared_hw != size_hw


def _rescaled(
    declared_hw: tuple[int, int], frame_hw: tuple[int, int], policy: ImagePolicy
) -> tuple[float, float]:
    height, width = declared_hw
    if policy.on_size_mismatch == "rescale" and height > 0 and width > 0:
        aspect = (frame_hw[1] / frame_hw[0]) / (width / height)
        if abs(aspect - 1) <= _ASPECT_TOLERANCE:
            return frame_hw[1] / width, frame_hw[0] / height
    raise ImageRejectedError(
        "image_size_mismatch",
        f"the source says {width} x {height}, the image is {frame_hw[1]} x {frame_hw[0]}",
    )


def _scaled_polygon(polygon: object, scale_xy: tuple[float, float]) -> list[float]:
    try:
        points = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("polygon: expected numbers") from error
    if points.ndim != 1 or points.size % 2:
        raise InputError("polygon: expected a flat list of x, y pairs")
    scaled: list[float] = (points * np.tile(scale_xy, points.size // 2)).tolist()
    return scaled
