"""The photos of a report: an image, its drawn boxes and masks, and what became of each."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.decode import ImageRejectedError, ImageRgb, decode_stored
from engine.report_confidence_rows import confidence_rows
from engine.report_rows import DROPPED, KEPT, ROWS, UNJUDGED, judged_rows
from engine.report_survey import PhotoRef
from manifests import schemas
from manifests.dataset import Dataset
from manifests.html_page import PictureQuality
from manifests.image_tar import STREAM_COLUMNS
from teachers.overlay import Mark, Style, colour_of, draw_marks, encode_jpeg

Row = dict[str, Any]  # Any: one value of each column
_INDEX_COLUMNS = ["file_name", "source", "height", "width", "quarantine", *STREAM_COLUMNS]
_STYLES: dict[str, Style] = {KEPT: "kept", UNJUDGED: "kept", DROPPED: "dropped"}
_MAX_LISTED = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkView:
    """One line of the list beside a photo; `colour` as CSS writes it."""

    label: str
    colour: str
    category: str
    teacher: str | None
    outcome: str
    reason: str | None
    is_crowd: bool
    has_mask: bool
    confidence: float | None
    predicted_iou: float | None
    stability: float | None
    box_iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoView:
    """One photo of the page.

    Attributes:
        picture: a data: URI, or None if the stored bytes do not decode.
        picture_hw: height and width of `picture`.
        marks: the first ones; `num_marks` is how many there are, all drawn.
        counts: outcome -> boxes.
    """

    file_name: str
    source: str
    image_id: str
    size_hw: tuple[int, int]
    transforms: tuple[str, ...]
    quarantine: str | None
    picture: str | None
    picture_hw: tuple[int, int]
    marks: tuple[MarkView, ...]
    num_marks: int
    counts: dict[str, int]


def photo_views(
    dataset: Dataset, photos: Sequence[PhotoRef], quality: PictureQuality
) -> Iterator[PhotoView]:
    """The photos in the order given, which is by shard; each shard is read once.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store has lost something.
        InputError: a mask is damaged.
    """
    for shard, found in groupby(photos, key=lambda photo: photo.shard):
        of_shard = list(found)
        wanted = pa.array([photo.row for photo in of_shard], pa.int32())
        index = dataset.table(shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS).take(wanted)
        rows = ROWS.empty_table()
        if dataset.manifest.get(shard, schemas.BOXES):
            rows = judged_rows(dataset, shard, with_counts=True)
            rows = rows.append_column("confidence", _confidence(dataset, shard, rows.num_rows))
            rows = rows.filter(pc.is_in(rows["image_row"], value_set=wanted))
        entries = index.to_pylist()
        stored = dataset.images(shard, index)
        for photo, entry, data in zip(of_shard, entries, stored, strict=True):
            mine = rows.filter(pc.equal(rows["image_row"], photo.row)).to_pylist()
            yield _view(photo, entry, mine, data, quality)


def _confidence(dataset: Dataset, shard: str, num_rows: int) -> pa.Array:
    """Of the masks that are shown; null where there is none, or it was not calibrated."""
    found = confidence_rows(dataset, shard)
    if found is None:
        return pa.nulls(num_rows, pa.float32())
    return pa.array(found.confidence, mask=np.isnan(found.confidence))


def _view(
    photo: PhotoRef,
    entry: Row,
    rows: list[Row],
    data: bytes,
    quality: PictureQuality,
) -> PhotoView:
    marks = [_mark(number, row) for number, row in enumerate(rows)]
    picture, picture_hw = _picture(data, marks, quality)
    outcomes = [str(row["outcome"]) for row in rows]
    return PhotoView(
        file_name=entry["file_name"],
        source=entry["source"],
        image_id=photo.image_id,
        size_hw=(entry["height"], entry["width"]),
        transforms=tuple(entry["transforms"]),
        quarantine=entry["quarantine"],
        picture=picture,
        picture_hw=picture_hw,
        marks=tuple(_mark_view(*pair) for pair in zip(marks[:_MAX_LISTED], rows, strict=False)),
        num_marks=len(marks),
        counts={outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
    )


def _picture(
    data: bytes, marks: Sequence[Mark], quality: PictureQuality
) -> tuple[str | None, tuple[int, int]]:
    try:
        photo: ImageRgb = decode_stored(data)
    except ImageRejectedError:
        return None, (0, 0)
    drawn = draw_marks(photo, marks, long_side=quality.long_side)
    encoded = base64.b64encode(encode_jpeg(drawn, quality=quality.jpeg)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}", (drawn.shape[0], drawn.shape[1])


def _mark(number: int, row: Row) -> Mark:
    style = _STYLES.get(row["outcome"], "plain")
    if row["is_crowd"] and not row["has_mask"]:
        style = "plain"  # it is left out by its nature, not for its quality
    x1, y1, x2, y2 = row["box_xyxy"]
    return Mark(
        label=str(number + 1),
        box_xyxy=(x1, y1, x2, y2),
        counts=row["counts"],
        style=style,
        colour=colour_of(number, style),
    )


def _mark_view(mark: Mark, row: Row) -> MarkView:
    red, green, blue = mark.colour
    return MarkView(
        label=mark.label,
        colour=f"#{red:02x}{green:02x}{blue:02x}",
        category=row["category"],
        teacher=row["teacher"],
        outcome=row["outcome"],
        reason=row["reason"],
        is_crowd=row["is_crowd"],
        has_mask=row["has_mask"],
        confidence=row["confidence"],
        predicted_iou=row["predicted_iou"],
        stability=row["stability"],
        box_iou=row["box_iou"],
    )
