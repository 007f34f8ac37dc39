"""An image folder and a CSV of boxes, with any of the usual column names.

Every image of the folder is kept, with or without rows; a row with an image and nothing else says
that the image has no boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.sources.csv_stream import CsvBatch, box_defects, read_csv, read_header
from engine.sources.files import IMAGE_SUFFIXES, Folder
from engine.sources.protocol import BATCH_ROWS, SourceBatch, SourceConfig, SourceInput
from engine.sources.tables import (
    annotation_batch,
    box_column,
    broken_rows_batch,
    category_batch,
    image_batch,
)
from manifests.errors import InputError

Unit = Literal["pixel", "relative"]
_IMAGE = ("file_name", "filename", "image", "path")
_LABEL = ("label", "category", "class")
_CORNERS = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"))
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))


def open_csv_boxes(config: SourceConfig) -> CsvBoxesSource:
    """The source behind the format `csv`."""
    unit = config.options.get("unit", "pixel")
    if unit not in get_args(Unit):
        raise InputError(
            f"source '{config.name}': option 'unit': expected 'pixel' or 'relative', got '{unit}'"
        )
    return CsvBoxesSource(
        path=config.annotations,
        images=config.images,
        unit="relative" if unit == "relative" else "pixel",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which column of the file means what; `box` are four, xyxy or xywh."""

    image: str
    label: str
    box: tuple[str, ...]
    is_xywh: bool
    id: str | None
    score: str | None
    iscrowd: str | None

    @property
    def columns(self) -> list[str]:
        named = (self.image, self.label, *self.box, self.id, self.score, self.iscrowd)
        return [name for name in named if name is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvBoxesSource:
    """One CSV file and the folder of its images."""

    path: str
    images: str
    unit: Unit = "pixel"

    @property
    def box_unit(self) -> Unit:
        return self.unit

    @property
    def images_implied(self) -> bool:
        return True

    def inputs(self) -> Iterator[SourceInput]:
        """The file, and which images there are."""
        yield SourceInput(role="annotations", url=self.path)
        names = Folder(self.images).names(IMAGE_SUFFIXES)
        yield SourceInput(role="image_names", url=self.images, names=names, is_listing=True)

    def scan(self) -> Iterator[SourceBatch]:
        """The folder's images, then the rows with their images and new categories."""
        layout = _layout(self.path)
        names = Folder(self.images).names(IMAGE_SUFFIXES)
        for start in range(0, len(names), BATCH_ROWS):
            column = pa.array(names[start : start + BATCH_ROWS], pa.string())
            yield image_batch(source_image_id=column, file_name=column)
        seen: set[str] = set()
        for batch in read_csv(self.path, columns=layout.columns, quoted=True):
            yield from _rows(batch, layout, seen)


def _rows(batch: CsvBatch, layout: _Layout, seen: set[str]) -> Iterator[SourceBatch]:
    named = pc.unique(batch.text(layout.image))
    named = named.filter(pc.not_equal(named, ""))
    labels = [text for text in pc.unique(batch.text(layout.label)).to_pylist() if text]
    new = [label for label in labels if label not in seen]
    seen.update(new)
    if new:
        yield category_batch(new, new)
    if len(named):
        yield image_batch(source_image_id=named, file_name=named)
    blank = np.logical_and.reduce([batch.empty(name) for name in (layout.label, *layout.box)])
    blank &= ~batch.empty(layout.image)
    boxed = CsvBatch(columns=batch.columns.filter(pa.array(~blank)), broken_rows=0)
    if boxed.columns.num_rows:
        yield _annotations(boxed, layout)
    yield from broken_rows_batch(batch.broken_rows)


def _annotations(batch: CsvBatch, layout: _Layout) -> SourceBatch:
    boxes = np.stack([batch.numbers(name) for name in layout.box], axis=1)  # [N, 4]
    if layout.is_xywh:
        boxes[:, 2:] += boxes[:, :2]
    defect = box_defects(batch, image=layout.image, label=layout.label, boxes=boxes)
    return annotation_batch(
        source_image_id=batch.text(layout.image),
        source_annotation_id=None if layout.id is None else _non_empty(batch, layout.id),
        source_category_id=batch.text(layout.label),
        box_xyxy=box_column(boxes, defect=defect),
        is_crowd=None if layout.iscrowd is None else pa.array(batch.truths(layout.iscrowd)),
        score=None if layout.score is None else _scores(batch.numbers(layout.score)),
        defect=defect,
    )


def _non_empty(batch: CsvBatch, name: str) -> pa.Array:
    text = batch.text(name)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _scores(scores: NDArray[np.float64]) -> pa.Array:
    return pa.array(scores.astype(np.float32), mask=np.isnan(scores))


def _layout(path: str) -> _Layout:
    header = read_header(path)
    by_lower = {name.lower(): name for name in header}
    box = _first_all(by_lower, (*_CORNERS, *_SIDES))
    image, label = _first(by_lower, _IMAGE), _first(by_lower, _LABEL)
    if box is None or image is None or label is None:
        raise InputError(
            f"{path}: expected a column of each: image ({', '.join(_IMAGE)}), label "
            f"({', '.join(_LABEL)}), box (x0,y0,x1,y1 or xmin,ymin,xmax,ymax or "
            f"x,y,width,height or x,y,w,h), found {', '.join(header)}; rename the columns"
        )
    return _Layout(
        image=image,
        label=label,
        box=tuple(by_lower[name] for name in box),
        is_xywh=box in _SIDES,
        id=by_lower.get("id"),
        score=by_lower.get("score"),
        iscrowd=by_lower.get("iscrowd"),
    )


def _first(by_lower: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((by_lower[name] for name in names if name in by_lower), None)


def _first_all(
    by_lower: Mapping[str, str], choices: Sequence[tuple[str, ...]]
) -> tuple[str, ...] | None:
    return next((names for names in choices if all(name in by_lower for name in names)), None)
