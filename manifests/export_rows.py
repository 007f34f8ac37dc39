"""The JSON records of an export: COCO's keys, LVIS's federated keys, and what maskmill adds.

These are `msgspec.Struct`s because ten million of them go to disk; keys without a value are left
out. Box coordinates are rounded to 1/1000 pixel, scores to six digits: float32 holds no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import rle
from manifests.boxes import xyxy_to_xywh
from manifests.export_images import ShardImages
from manifests.export_plan import ExportIds
from manifests.polygons import polygons_from_rle

_BATCH_ROWS = 4096


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a picture came from, for one that came from several places."""

    source: str
    source_image_id: str
    file_name: str


class Rle(msgspec.Struct, frozen=True, kw_only=True):
    """COCO's compressed RLE; `size` is (height, width)."""

    size: tuple[int, int]
    counts: str


class AnnotationRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An annotation. `bbox` is the label's box (x, y, width, height), `area` the mask's pixels.

    `iscrowd` is 1 for crowds and for group-of boxes; without a mask (no `teacher`) their
    segmentation is the filled box, because evaluators need one. Any other box without a mask has an
    empty segmentation and its own area, as COCO has it for boxes alone. `confidence` is the mask's
    expected IoU; `weight` what it counts for in training, 1 where the key is left out.
    """

    id: int
    image_id: int
    category_id: int
    category: str | None = None
    iscrowd: int
    bbox: tuple[float, float, float, float]
    area: int
    segmentation: Rle | list[list[int]]
    score: float | None = None
    confidence: float | None = None
    weight: float | None = None
    box_score: float | None = None
    teacher: str | None = None
    is_group_of: bool = False
    flags: list[str] = []
    maskmill_annotation_id: str
    source: str
    source_annotation_id: str | None = None


class ImageRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image; `annotations` only where a record holds its own (WebDataset)."""

    id: int
    file_name: str
    height: int
    width: int
    not_exhaustive_category_ids: list[int]
    neg_category_ids: list[int]
    maskmill_image_id: str
    source: str
    source_image_id: str
    original_file_name: str
    origins: list[Origin] = []
    quarantine: str | None = None
    annotations: list[AnnotationRow] | None = None


def image_rows(images: pa.Table, *, ids: ExportIds, planned: ShardImages) -> Iterator[ImageRow]:
    """Rows of KEPT_IMAGES_SCHEMA as records, under the planned numbers and file names."""
    numbers = ids.of_images(images, first=planned.first)
    of_category = ids.category_ids
    for number, name, row in zip(numbers, planned.names, images.to_pylist(), strict=True):
        yield ImageRow(
            id=number,
            file_name=name,
            height=row["height"],
            width=row["width"],
            not_exhaustive_category_ids=sorted(of_category[c] for c in row["not_exhaustive"]),
            neg_category_ids=sorted(of_category[c] for c in row["negative"]),
            maskmill_image_id=row["image_id"],
            source=row["source"],
            source_image_id=row["source_image_id"],
            original_file_name=row["file_name"],
            origins=[Origin(**origin) for origin in row["origins"]]
            if len(row["origins"]) > 1
            else [],
            quarantine=row["quarantine"],
        )


def annotation_rows(
    annotations: pa.Table,
    *,
    ids: ExportIds,
    first: int,
    image_ids: Mapping[int, int],
    polygons: bool = False,
    category_names: bool = False,
) -> Iterator[AnnotationRow]:
    """Rows of KEPT_SCHEMA as records.

    Args:
        first: the number of the first row, from 1.
        image_ids: `image_row` -> integer id.
        polygons: segmentations as polygons, except for crowds and empty masks.
        category_names: also the category's name, for records that travel without the table.
    """
    for start in range(0, annotations.num_rows, _BATCH_ROWS):
        batch = annotations.slice(start, _BATCH_ROWS)
        numbers = ids.of_annotations(batch, first=first + start)
        boxes_xyxy = np.asarray(batch["box_xyxy"].combine_chunks().flatten()).reshape(-1, 4)
        rows = batch.drop_columns("box_xyxy").to_pylist()
        for number, box_xyxy, row in zip(numbers, boxes_xyxy, rows, strict=True):
            made = _annotation(row, box_xyxy, number, ids, image_ids, polygons)
            named = msgspec.structs.replace(made, category=row["category"])
            yield named if category_names else made


def _annotation(
    row: dict[str, Any],  # Any: one value of each column of KEPT_SCHEMA
    box_xyxy: NDArray[np.float32],
    number: int,
    ids: ExportIds,
    image_ids: Mapping[int, int],
    polygons: bool,
) -> AnnotationRow:
    size_hw = row["height"], row["width"]
    is_crowd = row["is_crowd"] or row["is_group_of"]
    segmentation: Rle | list[list[int]] = []
    if row["teacher"] is None and not is_crowd:
        area = round(float(np.prod(box_xyxy[2:] - box_xyxy[:2])))
    else:
        counts = row["counts"] or rle_of_box(box_xyxy, size_hw=size_hw)
        has_area = row["counts"] and row["area_px"] is not None
        area = row["area_px"] if has_area else rle.area(counts, size_hw=size_hw)
        segmentation = _segmentation(counts, size_hw, polygons=polygons and not is_crowd)
    return AnnotationRow(
        id=number,
        image_id=image_ids[row["image_row"]],
        category_id=ids.category_ids[row["category"]],
        iscrowd=int(is_crowd),
        bbox=_rounded_xywh(box_xyxy),
        area=area,
        segmentation=segmentation,
        score=_rounded(row["predicted_iou"]),
        confidence=_rounded(row["confidence"]),
        weight=None if row["weight"] == 1 else _rounded(row["weight"]),
        box_score=_rounded(row["box_score"]),
        teacher=row["teacher"],
        is_group_of=row["is_group_of"],
        flags=row["flags"],
        maskmill_annotation_id=row["annotation_id"],
        source=row["source"],
        source_annotation_id=row["source_annotation_id"],
    )


def rle_of_box(box_xyxy: NDArray[np.float32], *, size_hw: tuple[int, int]) -> bytes:
    """Counts of every pixel that the box touches."""
    x0, y0 = np.floor(np.maximum(box_xyxy[:2], 0)).astype(int)
    x1, y1 = np.ceil(box_xyxy[2:]).astype(int)
    mask = np.zeros(size_hw, dtype=np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return rle.encode(mask)


def _segmentation(
    counts: bytes, size_hw: tuple[int, int], *, polygons: bool
) -> Rle | list[list[int]]:
    rings = polygons_from_rle(counts, size_hw=size_hw) if polygons else []
    if rings:
        return [ring.ravel().tolist() for ring in rings]
    return Rle(size=size_hw, counts=counts.decode("ascii"))


def _rounded_xywh(box_xyxy: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x, y, width, height = np.round(xyxy_to_xywh(box_xyxy)[0].astype(np.float64), 3).tolist()
    return x, y, width, height


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
