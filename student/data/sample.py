"""One image of a batch with its targets, cut, scaled and flipped together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.boxes import area, xyxy_to_cxcywh
from manifests.errors import ObjectDamagedError
from student.config import DataConfig
from student.data.decode import ImageRgb, decode_view
from student.data.paint import Painted, paint_masks
from student.data.training_data import ImageRow, TrainingData
from student.data.view import View, random_view

_LEAST_PX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A training image; N targets are left of those it has.

    Attributes:
        image_id: of the image.
        side: of the canvas, at whose top left the image lies.
        pixels: [h, w, 3] uint8 RGB, what is seen of it, as large as on the canvas.
        categories: [N] int64, places in the data's categories.
        boxes_cxcywh: [N, 4] float32 in [0, 1] of the canvas.
        masks: [N, side, side] uint8, 0 or 1.
        has_mask: [N] bool.
        weights: [N] float32.
        judged: [C] bool, see `judged_categories`.
        complaints: what was found damaged. A damaged image is black, has no targets and judges
            nothing; of a damaged mask the box is left.
    """

    image_id: str
    side: int
    pixels: ImageRgb
    categories: NDArray[np.int64]
    boxes_cxcywh: NDArray[np.float32]
    masks: NDArray[np.uint8]
    has_mask: NDArray[np.bool_]
    weights: NDArray[np.float32]
    judged: NDArray[np.bool_]
    complaints: tuple[str, ...] = ()


def training_sample(
    data: TrainingData, image: int, config: DataConfig, rng: np.random.Generator
) -> Sample:
    """One of the data's images as a training step sees it.

    Raises:
        StoreError: a masks cell is damaged, or the store cannot be read.
    """
    row = data.image(image)
    view = random_view(row.size_hw, config, rng)
    try:
        placed = decode_view(data.image_bytes(image), view)
    except ObjectDamagedError as error:
        return _damaged(row, view, f"image {row.image_id} of shard {row.shard[:12]}: {error}")
    targets, judged = _seen(row, view, config.max_targets, rng)
    drawn = np.flatnonzero(row.mask_rows[targets] >= 0)
    counts = data.mask_counts(image, row.mask_rows[targets[drawn]])
    masks = np.zeros((len(targets), view.side, view.side), np.uint8)
    painted = paint_masks(counts, view, [masks[place] for place in drawn])
    seen = _Seen(
        boxes_xyxy=view.place(row.boxes_xyxy[targets]),
        is_whole=view.holds(row.boxes_xyxy[targets]),
        painted=dict(zip(drawn.tolist(), painted, strict=True)),
    )
    is_there, has_mask = seen.is_there(), seen.has_mask()
    return Sample(
        image_id=row.image_id,
        side=view.side,
        pixels=placed,
        categories=row.categories[targets][is_there].astype(np.int64),
        boxes_cxcywh=xyxy_to_cxcywh(seen.boxes()[is_there] / view.side),
        masks=masks if is_there.all() else masks[is_there],
        has_mask=has_mask[is_there],
        weights=row.weights[targets][is_there],
        judged=judged,
        complaints=tuple(
            f"mask of image {row.image_id} {one.fault}" for one in painted if one.fault
        ),
    )


def _seen(
    row: ImageRow, view: View, max_targets: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Targets whose boxes are seen, `max_targets` at most, and what is judged if others are not
    told about."""
    boxes = view.place(row.boxes_xyxy)
    targets = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if len(targets) <= max_targets:
        return targets, row.judged
    chosen = np.zeros(len(targets), dtype=bool)
    chosen[rng.permutation(len(targets))[:max_targets]] = True
    judged = row.judged.copy()
    judged[row.categories[targets[~chosen]]] = False
    return targets[chosen], judged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """N targets on the canvas: their own boxes, cut to what is seen, and masks by place."""

    boxes_xyxy: NDArray[np.float32]
    is_whole: NDArray[np.bool_]
    painted: dict[int, Painted]

    def has_mask(self) -> NDArray[np.bool_]:
        """[N] whether there is a mask with a pixel, and not a damaged one."""
        has = np.zeros(len(self.boxes_xyxy), dtype=bool)
        for place, mask in self.painted.items():
            has[place] = not mask.fault and mask.num_pixels > 0
        return has

    def is_there(self) -> NDArray[np.bool_]:
        """[N] whether at least a pixel is seen: of the mask, or of the box where there is none.

        A chain or a strap may be too thin for any pixel of a smaller photo. Seen as a whole, its
        box tells where it is all the same; as nothing at all it would teach that nothing is there.
        """
        there = area(self.boxes_xyxy) >= _LEAST_PX
        for place, mask in self.painted.items():
            if not mask.fault and not self.is_whole[place]:
                there[place] = mask.num_pixels > 0
        return there

    def boxes(self) -> NDArray[np.float32]:
        """[N, 4] the true boxes; of an object that is cut, the box of what is seen of its mask."""
        boxes = self.boxes_xyxy.copy()
        for place, mask in self.painted.items():
            if self.is_whole[place] or mask.box_xyxy is None:
                continue
            limits = self.boxes_xyxy[place]
            seen = np.concatenate(
                [
                    np.maximum(mask.box_xyxy[:2], limits[:2]),
                    np.minimum(mask.box_xyxy[2:], limits[2:]),
                ]
            )
            if (seen[2:] > seen[:2]).all():
                boxes[place] = seen
        return boxes


def _damaged(row: ImageRow, view: View, complaint: str) -> Sample:
    return Sample(
        image_id=row.image_id,
        side=view.side,
        pixels=np.zeros((*view.placed_hw, 3), np.uint8),  # all padding would be a network's NaN
        categories=np.zeros(0, np.int64),
        boxes_cxcywh=np.zeros((0, 4), np.float32),
        masks=np.zeros((0, view.side, view.side), np.uint8),
        has_mask=np.zeros(0, dtype=bool),
        weights=np.zeros(0, np.float32),
        judged=np.zeros(len(row.judged), dtype=bool),
        complaints=(complaint,),
    )
