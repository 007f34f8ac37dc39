"""The contact sheets of a report: which masks of which boxes are on them, drawn and described."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from engine.confidence.outputs import Output, read_outputs
from engine.contact_sheet import Outline, draw_crop
from engine.decode import ImageRejectedError, ImageRgb, decode_stored
from engine.report_confidence_survey import (
    BEST_DROPPED,
    BEST_KEPT,
    DISAGREE,
    WORST_KEPT,
    BoxRef,
)
from engine.report_rows import DROPPED
from manifests import rle, schemas
from manifests.dataset import Dataset
from manifests.html_page import PictureQuality
from manifests.image_tar import STREAM_COLUMNS
from manifests.kept_masks import aligned_table
from teachers.overlay import PALETTE, RED, Colour, encode_jpeg

OVERCONFIDENT = "overconfident"
SHEETS = (BEST_KEPT, WORST_KEPT, BEST_DROPPED, DISAGREE, OVERCONFIDENT)

BLUE, GREEN, AMBER = PALETTE[:3]
_MIN_SIDE = 160
_INDEX_COLUMNS = ["file_name", "height", "width", *STREAM_COLUMNS]
Counts = dict[tuple[int, str], bytes]  # (row of boxes, output's name or HUMAN) -> RLE


def css_colour(colour: Colour) -> str:
    """As CSS writes it."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


SHEET_COLOURS: Mapping[str, str] = {
    "first": css_colour(BLUE),
    "second": css_colour(AMBER),
    "good": css_colour(GREEN),
    "bad": css_colour(RED),
}
"""For the legends; `first` and `second` of two masks that are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOfTile:
    """One mask of a tile; `true_iou` is with the human mask, where there is one."""

    name: str
    colour: str
    confidence: float
    true_iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileView:
    """One picture of a sheet, with what is said below it.

    Attributes:
        picture: a data: URI, or None if the stored bytes do not decode.
    """

    sheet: str
    picture: str | None
    picture_hw: tuple[int, int]
    file_name: str
    category: str
    masks: tuple[MaskOfTile, ...]
    outcome: str
    reason: str | None
    teachers_iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A tile to be drawn: its sheet, its place there, and its box."""

    sheet: str
    number: int
    ref: BoxRef


def tile_views(
    dataset: Dataset, sheets: Mapping[str, Sequence[BoxRef]], quality: PictureQuality
) -> list[TileView]:
    """The tiles sheet by sheet; each shard is read once, and of its images only those needed.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store has lost something.
        InputError: a mask is damaged.
    """
    places = [
        _Place(sheet=sheet, number=number, ref=ref)
        for sheet in SHEETS
        for number, ref in enumerate(sheets.get(sheet, ()))
        if dataset.manifest.get(ref.shard, schemas.IMAGES)
    ]
    places.sort(key=lambda place: (place.ref.shard_number, place.ref.row))
    drawn: dict[tuple[str, int], TileView] = {}
    for shard, found in groupby(places, key=lambda place: place.ref.shard):
        for place, view in _of_shard(dataset, shard, list(found), quality):
            drawn[place.sheet, place.number] = view
    order = {sheet: number for number, sheet in enumerate(SHEETS)}
    return [drawn[key] for key in sorted(drawn, key=lambda key: (order[key[0]], key[1]))]


def _of_shard(
    dataset: Dataset, shard: str, places: Sequence[_Place], quality: PictureQuality
) -> Iterator[tuple[_Place, TileView]]:
    columns = ["image_row", "box_xyxy"]
    boxes = dataset.table(shard, schemas.BOXES, columns=columns)
    counts = _counts(dataset, shard, [place.ref for place in places], boxes.num_rows)
    rows = pa.array([place.ref.row for place in places], pa.int64())
    mine = boxes.take(rows).to_pylist()
    images = sorted({row["image_row"] for row in mine})
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS)
    index = index.take(pa.array(images, pa.int64()))
    stored = dataset.images(shard, index)
    for image_row, entry, data in zip(images, index.to_pylist(), stored, strict=True):
        photo = _decoded(data)
        for place, box in zip(places, mine, strict=True):
            if box["image_row"] == image_row:
                yield place, _view(place, box["box_xyxy"], entry, photo, counts, quality)


def _decoded(data: bytes) -> ImageRgb | None:
    try:
        return decode_stored(data)
    except ImageRejectedError:
        return None


def _counts(dataset: Dataset, shard: str, refs: Sequence[BoxRef], num_rows: int) -> Counts:
    """The masks that the tiles of a shard need, and the human ones of their boxes."""
    found: Counts = {}
    wanted: dict[Output, list[int]] = {}
    for ref in refs:
        for output in ref.outputs:
            wanted.setdefault(output, []).append(ref.row)
    teachers = sorted({output.teacher for output in wanted})
    outputs = read_outputs(dataset, shard, teachers, ["counts"], num_rows=num_rows)
    for output, rows in wanted.items():
        if output in outputs:
            column = outputs[output].columns["counts"]
            found |= {(row, output.name): column[row].as_py() for row in rows}
    if dataset.manifest.get(shard, schemas.MASKS_HUMAN):
        layer = schemas.MASKS_HUMAN
        human = aligned_table(dataset, shard, layer, num_rows, columns=["counts"])["counts"]
        found |= {(ref.row, schemas.MASKS_HUMAN): human[ref.row].as_py() for ref in refs}
    return {key: data for key, data in found.items() if data is not None}


def _view(
    place: _Place,
    box: Sequence[float],
    entry: Mapping[str, Any],  # Any: one value of each column
    photo: ImageRgb | None,
    counts: Counts,
    quality: PictureQuality,
) -> TileView:
    ref = place.ref
    human = counts.get((ref.row, schemas.MASKS_HUMAN))
    size_hw = entry["height"], entry["width"]
    masks, outlines = [], []
    for output, confidence, colour in zip(
        ref.outputs, ref.confidence, _colours(place), strict=False
    ):
        drawn = counts.get((ref.row, output.name))
        true = _iou(drawn, human, size_hw) if drawn and human else None
        masks.append(
            MaskOfTile(
                name=output.name, colour=css_colour(colour), confidence=confidence, true_iou=true
            )
        )
        outlines += [Outline(counts=drawn, colour=colour)] if drawn else []
    if place.sheet == OVERCONFIDENT and human:
        outlines.append(Outline(counts=human, colour=GREEN))
    picture, picture_hw = _picture(photo, box, outlines, quality)
    return TileView(
        sheet=place.sheet, picture=picture, picture_hw=picture_hw, file_name=entry["file_name"],
        category=ref.category, masks=tuple(masks), outcome=ref.outcome, reason=ref.reason,
        teachers_iou=ref.teachers_iou,
    )  # fmt: skip


def _iou(drawn: bytes, human: bytes, size_hw: tuple[int, int]) -> float:
    for counts in (drawn, human):
        rle.check(counts, size_hw=size_hw)
    return rle.paired_iou(drawn, human, size_hw=size_hw)


def _colours(place: _Place) -> tuple[Colour, Colour]:
    """Of a tile's masks, the first and the second."""
    if place.sheet in (DISAGREE, OVERCONFIDENT):
        return BLUE, AMBER
    return (RED if place.ref.outcome == DROPPED else GREEN), AMBER


def _picture(
    photo: ImageRgb | None,
    box: Sequence[float],
    outlines: Sequence[Outline],
    quality: PictureQuality,
) -> tuple[str | None, tuple[int, int]]:
    if photo is None:
        return None, (0, 0)
    x1, y1, x2, y2 = box
    # Six in a row of a page that shows one photo in two thirds of its width.
    long_side = max(_MIN_SIDE, quality.long_side // 3)
    drawn = draw_crop(photo, (x1, y1, x2, y2), outlines, long_side=long_side)
    encoded = base64.b64encode(encode_jpeg(drawn, quality=quality.jpeg)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}", (drawn.shape[0], drawn.shape[1])
