"""Boxes of the synthetic store: skewed over images and categories.

Legend: m boxes of one shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from synthetic_masks import Floats, Ints
from synthetic_photos import Photos, ShardPlan, arrow_table

from manifests import schemas
from manifests.digest import content_id

CATEGORIES = tuple(f"category {number:02}" for number in range(80))
_CROWD = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """[m] boxes: `image_row` and `codes` (positions in CATEGORIES) say of what."""

    image_row: Ints
    codes: Ints
    xyxy: Floats
    is_crowd: NDArray[np.bool_]


def draw_boxes(plan: ShardPlan, photos: Photos) -> Boxes:
    """Boxes in the order of images; how many on an image, and of which category, is skewed."""
    rng, count = plan.generator(1), plan.num_masks
    shares = rng.gamma(1.5, size=plan.num_images)
    each = rng.multinomial(count, shares / shares.sum())
    image_row = np.repeat(np.arange(plan.num_images), each)
    height, width = photos.size_hw[image_row].T
    sides_w = np.clip(rng.lognormal(np.log(70), 0.8, count), 4, width - 1)
    sides_h = np.clip(sides_w * rng.lognormal(0.1, 0.4, count), 4, height - 1)
    x0 = rng.random(count) * (width - sides_w)
    y0 = rng.random(count) * (height - sides_h)
    xyxy = np.stack([x0, y0, x0 + sides_w, y0 + sides_h], axis=1)
    frequency = 1 / np.arange(1, len(CATEGORIES) + 1)
    return Boxes(
        image_row=image_row,
        codes=rng.choice(len(CATEGORIES), count, p=frequency / frequency.sum()),
        # Sources give hundredths of a pixel; the stored layer is float32.
        xyxy=np.round(xyxy, 2),
        is_crowd=rng.random(count) < _CROWD,
    )


def boxes_table(plan: ShardPlan, photos: Photos, boxes: Boxes) -> pa.Table:
    """[m] rows of BOXES_SCHEMA; ids are made of the same parts as ingest makes them of."""
    count = len(boxes.codes)
    own_ids = [str(plan.first_annotation + n) for n in range(count)]
    rows = boxes.image_row.tolist()
    raw_boxes = boxes.xyxy.astype("<f8")
    columns = {
        "annotation_id": [
            content_id(photos.ids[row], plan.source, "id", own, raw_boxes[n].tobytes())
            for n, (row, own) in enumerate(zip(rows, own_ids, strict=True))
        ],
        "image_id": [photos.ids[row] for row in rows],
        "image_row": boxes.image_row,
        "category": pa.array(CATEGORIES).take(pa.array(boxes.codes)),
        "box_xyxy": boxes_array(boxes.xyxy),
        "is_crowd": boxes.is_crowd,
        "is_group_of": np.zeros(count, dtype=bool),
        "flags": [[]] * count,
        "score": pa.nulls(count, pa.float32()),
        "source": [plan.source] * count,
        "source_annotation_id": own_ids,
    }
    return arrow_table(columns, schemas.BOXES_SCHEMA)


def boxes_array(xyxy: Floats, *, is_null: NDArray[np.bool_] | None = None) -> pa.FixedSizeListArray:
    """[N] boxes as Arrow holds them, with nulls."""
    flat = pa.array(xyxy.astype(np.float32).ravel())
    mask = None if is_null is None else pa.array(is_null)
    return pa.FixedSizeListArray.from_arrays(flat, 4, mask=mask)
