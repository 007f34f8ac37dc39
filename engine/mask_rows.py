"""Rows of the masks layer: one per box, from a teacher's chunk or without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests import rle, schemas
from teachers.protocol import MaskChunk
from teachers.signals import Gradient, measure_mask

MaskRow = dict[str, Any]  # Any: one value of each column of MASKS_SCHEMA
_NO_MASK: MaskRow = {field.name: None for field in schemas.MASK_FIELDS}


def skipped_row(reason: str, *, size_hw: tuple[int, int]) -> MaskRow:
    """A box that no teacher is asked about."""
    return _row(schemas.SKIPPED, reason, size_hw, _NO_MASK, [])


def failed_row(reason: str, *, size_hw: tuple[int, int]) -> MaskRow:
    """A box that was asked about and got no mask."""
    return _row(schemas.FAILED, reason, size_hw, _NO_MASK, [])


def mask_row(
    counts: bytes, mask: NDArray[np.uint8], box_xyxy: NDArray[np.float32], *, status: str
) -> MaskRow:
    """A mask that comes from people: geometry signals only."""
    fields = {**_NO_MASK, "counts": counts, **_geometry(mask, box_xyxy)}
    return _row(status, None, (mask.shape[0], mask.shape[1]), fields, [])


def absent_row(reason: str | None, *, size_hw: tuple[int, int]) -> MaskRow:
    """A box for which people drew no mask, or one that could not be used (`reason`)."""
    return _row(schemas.ABSENT, reason, size_hw, _NO_MASK, [])


def pending_row(reason: str | None, *, size_hw: tuple[int, int]) -> MaskRow:
    """A box that came after the teacher: its mask is still to be drawn."""
    return _row(schemas.PENDING, reason, size_hw, _NO_MASK, [])


def rows_from_chunk(
    chunk: MaskChunk,
    boxes_xyxy: NDArray[np.float32],
    *,
    size_hw: tuple[int, int],
    gradient: Gradient | None = None,
) -> Iterator[tuple[int, MaskRow]]:
    """(box position, row) for every box of the chunk, drawn or failed.

    An empty mask as the teacher's own choice is a failure: there is nothing to keep.

    Args:
        gradient: of the photo; None: no `edge_alignment`.
    """
    for box, error in chunk.failures.items():
        yield box, failed_row(error.reason, size_hw=size_hw)
    for n, box in enumerate(chunk.box_indices):
        outputs = [
            _output(chunk, n, c, boxes_xyxy[box], gradient) for c in range(chunk.masks.shape[1])
        ]
        chosen, others = outputs[0], [output for output in outputs[1:] if output["area_px"]]
        if not chosen["area_px"]:
            yield int(box), failed_row("empty_mask", size_hw=size_hw)
        else:
            yield int(box), _row(schemas.OK, None, size_hw, chosen, others)


_OF_MODEL = ("predicted_iou", "stability", "mean_foreground", "jitter_iou", "output_iou")
_BEFORE_CUT = ("box_iou", "outside_fraction")


def _output(
    chunk: MaskChunk, n: int, c: int, box_xyxy: NDArray[np.float32], gradient: Gradient | None
) -> MaskRow:
    mask = chunk.masks[n, c]
    row: MaskRow = dict.fromkeys(_OF_MODEL) | _geometry(mask, box_xyxy, gradient)
    for name in (*_OF_MODEL, *_BEFORE_CUT):
        values = getattr(chunk, name)
        if values is not None:
            row[name] = float(values[n, c])
    return {"counts": rle.encode(mask), **row}


def _geometry(
    mask: NDArray[np.uint8], box_xyxy: NDArray[np.float32], gradient: Gradient | None = None
) -> MaskRow:
    return asdict(measure_mask(mask, box_xyxy, gradient))


def _row(
    status: str,
    reason: str | None,
    size_hw: tuple[int, int],
    fields: MaskRow,
    candidates: list[MaskRow],
) -> MaskRow:
    return {
        "status": status,
        "reason": reason,
        "height": size_hw[0],
        "width": size_hw[1],
        **fields,
        "candidates": candidates,
    }
