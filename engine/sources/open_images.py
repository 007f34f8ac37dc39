"""Open Images: the boxes CSV, class descriptions, image-level labels and image lists.

Image-level labels make the dataset federated: a label verified as absent (confidence 0) becomes
`negative`; every category that is neither boxed nor negative is unknown. An image named in the
label file has a non-null `negative` even where it is empty; since files of image-level labels
cover more images than boxes do, use the one that belongs to the boxes ("-boxable").

Human masks of Open Images are not read: they are PNG files of sizes other than their images', so
they can be neither joined nor scaled without opening images, which a source does not do.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.sources.csv_stream import CsvBatch, box_defects, read_csv
from engine.sources.files import open_bytes
from engine.sources.image_labels import absent_labels
from engine.sources.protocol import SourceBatch, SourceConfig, SourceInput
from engine.sources.tables import (
    annotation_batch,
    box_column,
    broken_rows_batch,
    category_batch,
    flag_column,
    image_batch,
)
from manifests.errors import InputError

_BOX_COLUMNS = ("XMin", "YMin", "XMax", "YMax")
_FLAG_COLUMNS = {
    "occluded": "IsOccluded",
    "truncated": "IsTruncated",
    "depiction": "IsDepiction",
    "inside": "IsInside",
}
_COLUMNS = (
    "ImageID", "LabelName", "Confidence", *_BOX_COLUMNS, "IsGroupOf", *_FLAG_COLUMNS.values(),
)  # fmt: skip


def open_open_images(config: SourceConfig) -> OpenImagesSource:
    """The source behind the format `open_images`."""
    options = {name: str(value) for name, value in config.options.items()}
    extension = options.get("extension", ".jpg")
    return OpenImagesSource(
        boxes=config.annotations,
        classes=options.get("classes"),
        image_labels=options.get("image_labels"),
        images_csv=options.get("images_csv"),
        extension=extension if extension.startswith(".") else f".{extension}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImagesSource:
    """The CSV files of one split; all but `boxes` may be absent.

    Attributes:
        boxes: the boxes CSV.
        classes: class descriptions, label name to display name; without it labels are the names.
        image_labels: verified image-level labels.
        images_csv: all images, so that those without boxes are kept.
        extension: of the image files, which are called `<ImageID><extension>`.
    """

    boxes: str
    classes: str | None = None
    image_labels: str | None = None
    images_csv: str | None = None
    extension: str = ".jpg"

    @property
    def box_unit(self) -> Literal["pixel", "relative"]:
        return "relative"

    @property
    def images_implied(self) -> bool:
        return True

    def inputs(self) -> Iterator[SourceInput]:
        """The files that are given."""
        files = {
            "annotations": self.boxes, "classes": self.classes,
            "image_labels": self.image_labels, "images_csv": self.images_csv,
        }  # fmt: skip
        for role, url in files.items():
            if url is not None:
                yield SourceInput(role=role, url=url)

    def scan(self) -> Iterator[SourceBatch]:
        """Categories, image-level labels, listed images, then boxes with their images."""
        if self.classes is not None:
            yield _classes(self.classes)
        if self.image_labels is not None:
            # Before all others: an image's first entry counts, and only this one has `negative`.
            for group in absent_labels(self.image_labels):
                yield image_batch(
                    source_image_id=group["image_id"],
                    file_name=self._file_names(group["image_id"]),
                    negative=pc.coalesce(group["negative"], pa.scalar([], pa.list_(pa.string()))),
                )
        if self.images_csv is not None:
            for batch in read_csv(self.images_csv, columns=("ImageID",), quoted=False):
                yield from self._images(batch.text("ImageID"))
        seen: set[str] = set()
        for batch in read_csv(self.boxes, columns=_COLUMNS, quoted=False):
            if self.classes is None:
                yield from _new_categories(batch, seen)
            yield from self._images(batch.text("ImageID"))
            yield from _annotations(batch)

    def _images(self, image_ids: pa.Array) -> Iterator[SourceBatch]:
        ids = pc.unique(image_ids)
        ids = ids.filter(pc.not_equal(ids, ""))
        if len(ids):
            yield image_batch(source_image_id=ids, file_name=self._file_names(ids))

    def _file_names(self, ids: pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(ids, self.extension, "")


def _annotations(batch: CsvBatch) -> Iterator[SourceBatch]:
    boxes = np.stack([batch.numbers(name) for name in _BOX_COLUMNS], axis=1)  # [N, 4]
    defect = box_defects(batch, image="ImageID", label="LabelName", boxes=boxes)
    confidence = batch.numbers("Confidence")
    # Boxes drawn or verified by people carry a dummy confidence of 1: no detector's score.
    no_score = np.isnan(confidence) | (confidence == 1)
    yield annotation_batch(
        source_image_id=batch.text("ImageID"),
        source_category_id=batch.text("LabelName"),
        box_xyxy=box_column(boxes, defect=defect),
        is_group_of=pa.array(batch.truths("IsGroupOf")),
        flags=flag_column(
            tuple(_FLAG_COLUMNS), [batch.truths(name) for name in _FLAG_COLUMNS.values()]
        ),
        score=pa.array(confidence.astype(np.float32), mask=no_score),
        defect=defect,
    )
    yield from broken_rows_batch(batch.broken_rows)


def _new_categories(batch: CsvBatch, seen: set[str]) -> Iterator[SourceBatch]:
    new = [label for label in pc.unique(batch.text("LabelName")).to_pylist() if label not in seen]
    seen.update(new)
    named = [label for label in new if label]
    if named:
        yield category_batch(named, named)


def _classes(path: str) -> SourceBatch:
    """Label names and display names; the file has a header in some releases and none in others."""
    with open_bytes(path) as file:
        try:
            rows = list(csv.reader(io.StringIO(file.read().decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"{path}: expected a CSV file in UTF-8, got '{error}'; convert it"
            ) from error
    rows = [row for row in rows if row]
    if rows and rows[0][0] == "LabelName":
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or not row[0] or not row[1]:
            raise InputError(
                f"{path}: expected a label name and a display name, got {row} in entry {number}; "
                f"fix the line"
            )
    return category_batch([row[0] for row in rows], [row[1] for row in rows])
