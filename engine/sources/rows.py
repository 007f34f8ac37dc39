"""Rows of the small-file formats, gathered into the protocol's batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from engine.sources.protocol import BATCH_ROWS, SourceBatch
from engine.sources.tables import (
    annotation_batch,
    box_column,
    category_batch,
    flat_boxes,
    image_batch,
)

Box = tuple[float, float, float, float]
_NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image entry."""

    source_image_id: str
    file_name: str | None
    size_hw: tuple[int, int] | None = None
    defect: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    """One annotation entry; without a box it has a defect."""

    source_image_id: str
    category: str
    box_xyxy: Box | None = None
    flags: tuple[str, ...] = ()
    score: float | None = None
    segmentation: bytes | None = None
    defect: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryRow:
    """One category entry."""

    source_category_id: str
    name: str


Row = ImageRow | AnnotationRow | CategoryRow


def batches(rows: Iterable[Row]) -> Iterator[SourceBatch]:
    """The rows in batches of one kind each; the order within a kind is kept."""
    images: list[ImageRow] = []
    annotations: list[AnnotationRow] = []
    categories: list[CategoryRow] = []
    for row in rows:
        if isinstance(row, AnnotationRow):
            annotations.append(row)
        elif isinstance(row, ImageRow):
            images.append(row)
        else:
            categories.append(row)
        if len(annotations) >= BATCH_ROWS or len(images) >= BATCH_ROWS:
            yield from _flush(categories, images, annotations)
            categories, images, annotations = [], [], []
    yield from _flush(categories, images, annotations)


def _flush(
    categories: Sequence[CategoryRow],
    images: Sequence[ImageRow],
    annotations: Sequence[AnnotationRow],
) -> Iterator[SourceBatch]:
    if categories:
        yield category_batch(
            [row.source_category_id for row in categories], [row.name for row in categories]
        )
    if images:
        yield _image_batch(images)
    if annotations:
        yield _annotation_batch(annotations)


def _image_batch(rows: Sequence[ImageRow]) -> SourceBatch:
    heights = [row.size_hw[0] if row.size_hw else None for row in rows]
    widths = [row.size_hw[1] if row.size_hw else None for row in rows]
    return image_batch(
        source_image_id=pa.array([row.source_image_id for row in rows], pa.string()),
        file_name=pa.array([row.file_name for row in rows], pa.string()),
        height=pa.array(heights, pa.int32()),
        width=pa.array(widths, pa.int32()),
        defect=pa.array([row.defect for row in rows], pa.string()),
    )


def _annotation_batch(rows: Sequence[AnnotationRow]) -> SourceBatch:
    boxes = flat_boxes([row.box_xyxy or _NO_BOX for row in rows])
    defect = pa.array([row.defect for row in rows], pa.string())
    return annotation_batch(
        source_image_id=pa.array([row.source_image_id for row in rows], pa.string()),
        source_category_id=pa.array([row.category for row in rows], pa.string()),
        box_xyxy=box_column(boxes, defect=defect),
        flags=pa.array([list(row.flags) or None for row in rows], pa.list_(pa.string())),
        score=pa.array([row.score for row in rows], pa.float32()),
        segmentation=pa.array([row.segmentation for row in rows], pa.binary()),
        defect=defect,
    )
