"""Masks layers of the synthetic store, as people and as a teacher like SAM would fill them.

Legend: m boxes of one shard. Every layer has a random generator of its own, so that another teacher
or more candidates leave the other layers as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import synthetic_masks
from numpy.typing import NDArray
from synthetic_boxes import Boxes, boxes_array
from synthetic_masks import Floats
from synthetic_photos import TOO_DARK, Photos, ShardPlan, arrow_table

from manifests import schemas

_EMPTY, _NOT_DRAWN = 0.001, 0.03


def human_table(plan: ShardPlan, photos: Photos, boxes: Boxes) -> pa.Table:
    """[m] rows of MASKS_SCHEMA: close to their boxes, some absent, without a model's signals."""
    rng = plan.generator(2)
    is_drawn = rng.random(len(boxes.codes)) >= _NOT_DRAWN
    error = np.full(int(is_drawn.sum()), 0.004)
    fields = _drawn_fields(rng, photos, boxes, is_drawn, error)
    statuses = np.where(is_drawn, schemas.OK, schemas.ABSENT)
    return _masks_table(photos, boxes, statuses, np.full(len(statuses), None), fields, [], 0)


def teacher_table(plan: ShardPlan, photos: Photos, boxes: Boxes, position: int) -> pa.Table:
    """[m] rows of MASKS_SCHEMA of the teacher at that position, the worse the less it is sure."""
    rng, count = plan.generator(3 + position), len(boxes.codes)
    reasons = np.full(count, None)
    reasons[boxes.is_crowd] = "crowd"
    reasons[photos.is_dark[boxes.image_row]] = f"quarantined_{TOO_DARK}"
    is_skipped = reasons != None  # noqa: E711  elementwise
    is_empty = (rng.random(count) < _EMPTY) & ~is_skipped
    is_drawn = ~is_skipped & ~is_empty
    quality = rng.beta(3.5, 1.3, int(is_drawn.sum()))
    fields = _model_fields(rng, photos, boxes, is_drawn, quality)
    statuses = np.select([is_drawn, is_skipped], [schemas.OK, schemas.SKIPPED], schemas.FAILED)
    others = [
        _model_fields(rng, photos, boxes, is_drawn, quality * 0.8**number)
        for number in range(1, plan.candidates + 1)
    ]
    reasons[is_empty] = "empty_mask"
    return _masks_table(photos, boxes, statuses, reasons, fields, others, int(is_drawn.sum()))


def _model_fields(
    rng: np.random.Generator,
    photos: Photos,
    boxes: Boxes,
    is_drawn: NDArray[np.bool_],
    quality: Floats,
) -> dict[str, pa.Array]:
    doubt = 1 - quality
    model = {
        "predicted_iou": np.clip(1 - 0.35 * doubt + rng.normal(0, 0.03, len(doubt)), 0, 1.02),
        "stability": np.clip(1 - 0.25 * doubt + rng.normal(0, 0.02, len(doubt)), 0, 1),
        "mean_foreground": np.clip(0.995 - 0.1 * doubt + rng.normal(0, 0.004, len(doubt)), 0, 1),
    }
    # Without numbers of their own, so that the masks are those of before there were these signals.
    unsteady = doubt * (2 - model["stability"])
    model |= {
        "edge_alignment": 0.5 + 0.4 * quality * model["mean_foreground"],
        "jitter_iou": np.clip(1 - 0.3 * unsteady, 0, 1),
        "output_iou": np.clip(1 - 0.6 * unsteady, 0, 1),
    }
    fields = _drawn_fields(rng, photos, boxes, is_drawn, 0.01 + 0.3 * doubt**2)
    return fields | {name: _spread(values, is_drawn) for name, values in model.items()}


def _drawn_fields(
    rng: np.random.Generator,
    photos: Photos,
    boxes: Boxes,
    is_drawn: NDArray[np.bool_],
    error: Floats,
) -> dict[str, pa.Array]:
    """[m] MASK_FIELDS that a mask itself has; each side of a mask is off by `error` box sides."""
    prompts = boxes.xyxy[is_drawn].astype(np.float32).astype(np.float64)
    sides = np.tile(prompts[:, 2:] - prompts[:, :2], 2)
    around = prompts + rng.normal(0, 1, prompts.shape) * error[:, None] * sides
    size_hw = photos.size_hw[boxes.image_row[is_drawn]]
    blobs = synthetic_masks.draw(rng, around, size_hw)
    signals = asdict(synthetic_masks.measure(blobs, prompts))
    tight = np.zeros((len(is_drawn), 4))
    tight[is_drawn] = signals.pop("mask_box_xyxy")
    return {
        "counts": synthetic_masks.encode(blobs, is_drawn),
        "mask_box_xyxy": boxes_array(tight, is_null=~is_drawn),
        **{name: _spread(values, is_drawn) for name, values in signals.items()},
    }


def _masks_table(
    photos: Photos,
    boxes: Boxes,
    statuses: NDArray[np.str_],
    reasons: NDArray[np.object_],
    fields: Mapping[str, pa.Array],
    others: list[dict[str, pa.Array]],
    num_drawn: int,
) -> pa.Table:
    size_hw = photos.size_hw[boxes.image_row]
    columns = {
        "status": statuses,
        "reason": pa.array(reasons, pa.string()),
        "height": size_hw[:, 0],
        "width": size_hw[:, 1],
        **_all_fields(fields, len(statuses)),
        "candidates": _candidates(statuses == schemas.OK, others, num_drawn),
    }
    return arrow_table(columns, schemas.MASKS_SCHEMA)


def _candidates(
    is_drawn: NDArray[np.bool_], others: list[dict[str, pa.Array]], num_drawn: int
) -> pa.ListArray:
    """[m] lists: the n-th of `others` is every drawn row's n-th candidate."""
    count = len(others)
    offsets = np.concatenate([[0], np.cumsum(is_drawn * count)]).astype(np.int32)
    # Row after row, not candidate after candidate.
    order = np.arange(count * num_drawn).reshape(count, num_drawn).T.ravel()
    drawn = pa.array(is_drawn)
    columns = [
        pa.concat_arrays(
            [_all_fields(other, len(is_drawn))[field.name].filter(drawn).cast(field.type)
             for other in others] or [pa.nulls(0, field.type)]
        ).take(pa.array(order))
        for field in schemas.MASK_FIELDS
    ]  # fmt: skip
    values = pa.StructArray.from_arrays(columns, fields=schemas.MASK_FIELDS)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _all_fields(fields: Mapping[str, pa.Array], count: int) -> dict[str, pa.Array]:
    return {
        field.name: fields.get(field.name, pa.nulls(count, field.type))
        for field in schemas.MASK_FIELDS
    }


def _spread(values: NDArray[np.number], is_drawn: NDArray[np.bool_]) -> pa.Array:
    """[m] the values in turn where something is drawn, null elsewhere."""
    spread = np.zeros(len(is_drawn), dtype=values.dtype)
    spread[is_drawn] = values
    return pa.array(spread, mask=~is_drawn)
