"""Ultralytics YOLO: a folder of images and a text file of relative boxes or polygons for each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from engine.sources.files import FileText
from engine.sources.protocol import SourceBatch, SourceConfig, SourceInput
from engine.sources.rows import AnnotationRow, CategoryRow, ImageRow, Row, batches
from engine.sources.yolo_layout import Picture, YoloLayout, find_layout

_log = logging.getLogger(__name__)
_PICTURES_AT_ONCE = 512
_POLYGON_CELLS = 7  # a class and three points


def open_yolo(config: SourceConfig) -> YoloSource:
    """The source behind the format `yolo`."""
    split = config.options.get("split")
    return YoloSource(
        annotations=config.annotations,
        images=config.images,
        split=None if split is None else str(split),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloSource:
    """A data.yaml, or a folder with images/, labels/ and classes.txt; `split` limits it to one."""

    annotations: str
    images: str
    split: str | None = None

    @property
    def box_unit(self) -> Literal["pixel", "relative"]:
        return "relative"

    @property
    def images_implied(self) -> bool:
        return False

    def inputs(self) -> Iterator[SourceInput]:
        """The settings, lists and label files, and which images there are."""
        layout = find_layout(self.annotations, self.images, split=self.split)
        pictures = list(layout.pictures())
        labels = {picture.label for picture in pictures if picture.label is not None}
        names = sorted({*labels, *layout.label_files(), *layout.settings})
        yield SourceInput(role="annotations", url=layout.folder.url, names=names)
        shown = sorted(picture.file_name for picture in pictures)
        yield SourceInput(role="image_names", url=self.images, names=shown, is_listing=True)

    def scan(self) -> Iterator[SourceBatch]:
        """Categories, every image with its labels, then labels without an image."""
        layout = find_layout(self.annotations, self.images, split=self.split)
        yield from batches(_rows(layout))


def _rows(layout: YoloLayout) -> Iterator[Row]:
    for number, name in layout.names.items():
        yield CategoryRow(source_category_id=str(number), name=name)
    seen: set[str] = set()
    pictures = layout.pictures()
    while group := list(islice(pictures, _PICTURES_AT_ONCE)):
        labels = [picture.label for picture in group if picture.label is not None]
        seen.update(labels)
        texts = {text.name: text for text in layout.folder.read(labels)}
        for picture in group:
            yield from _picture_rows(picture, texts)
    orphans = [name for name in layout.label_files() if name not in seen]
    for text in layout.folder.read(orphans):
        yield from _label_rows(text, source_image_id=text.name)


def _picture_rows(picture: Picture, texts: dict[str, FileText]) -> Iterator[Row]:
    text = texts[picture.label] if picture.label is not None else None
    problem = text.problem if text is not None else None
    if problem is not None:
        _log.warning("label file %s is unreadable: %s", picture.label, problem)
    yield ImageRow(
        source_image_id=picture.file_name,
        file_name=picture.file_name,
        defect="malformed_annotation_file" if problem is not None else None,
    )
    if text is not None:
        yield from _label_rows(text, source_image_id=picture.file_name)


def _label_rows(text: FileText, *, source_image_id: str) -> Iterator[AnnotationRow]:
    for line in text.text.decode("utf-8-sig", "replace").splitlines():
        if line.strip():
            yield _parse(line, source_image_id)


def _parse(line: str, source_image_id: str) -> AnnotationRow:
    """One line: class and box, with or without confidence, or class and polygon."""
    try:
        category, *numbers = (float(cell) for cell in line.split())
        if not category.is_integer():
            raise ValueError("a class is a whole number")
    except (ValueError, OverflowError):
        return _malformed(source_image_id)
    if len(numbers) in (4, 5):
        centre_x, centre_y, width, height = numbers[:4]
        half_width, half_height = width / 2, height / 2
        return AnnotationRow(
            source_image_id=source_image_id,
            category=str(int(category)),
            box_xyxy=(
                centre_x - half_width,
                centre_y - half_height,
                centre_x + half_width,
                centre_y + half_height,
            ),
            score=numbers[4] if len(numbers) == 5 else None,
        )
    if len(numbers) < _POLYGON_CELLS - 1 or len(numbers) % 2:
        return _malformed(source_image_id)
    xs, ys = numbers[0::2], numbers[1::2]
    return AnnotationRow(
        source_image_id=source_image_id,
        category=str(int(category)),
        box_xyxy=(min(xs), min(ys), max(xs), max(ys)),
        segmentation=json.dumps([numbers]).encode(),
    )


def _malformed(source_image_id: str) -> AnnotationRow:
    return AnnotationRow(
        source_image_id=source_image_id, category="", defect="malformed_label_line"
    )
