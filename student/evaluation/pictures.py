"""Judged photos as pictures: what people marked, and beside it what the student found."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from manifests import rle
from manifests.html_page import PictureQuality
from student.data.decode import ImageRgb, decode_whole
from student.evaluation.image_output import ImageOutput, SegmentOptions
from student.evaluation.panoptic_segments import panoptic
from student.evaluation.result import ImageResult
from student.evaluation.segments import instances
from student.evaluation.truth import TrueImage
from teachers.overlay import PALETTE, Colour, Mark, draw_marks, encode_jpeg

_MAX_LISTED = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Picturable:
    """What a picture is drawn from, in any size.

    Attributes:
        photo: [H, W, 3] RGB.
        truth, found: marks over it.
        true_texts, found_texts: what each mark is, for the list below.
        is_unsure: nothing was found; the marks are the best of what was not sure enough.
    """

    result: ImageResult
    photo: ImageRgb
    truth: tuple[Mark, ...]
    true_texts: tuple[str, ...]
    found: tuple[Mark, ...]
    found_texts: tuple[str, ...]
    is_unsure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkView:
    """A line below a picture; `colour` as CSS writes it."""

    label: str
    colour: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideView:
    """One of the two pictures: a data: URI, the first marks, and how many there are."""

    picture: str
    marks: tuple[MarkView, ...]
    num_marks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoView:
    """One photo of the page; `picture_hw` is the size of both pictures."""

    result: ImageResult
    size_hw: tuple[int, int]
    picture_hw: tuple[int, int]
    truth: SideView
    found: SideView
    is_unsure: bool


def picturable(
    image: TrueImage,
    output: ImageOutput,
    result: ImageResult,
    *,
    categories: Sequence[str],
    options: SegmentOptions,
) -> Picturable:
    """One image with its panoptic segments or, where there are none, its best instances.

    Raises:
        ObjectDamagedError: the photo cannot be decoded.
    """
    truth, size_hw = image.truth, image.truth.size_hw
    segments = panoptic(output, options)
    counts = [rle.encode(segments.map.rows == row) for row in range(len(segments.queries))]
    texts, scores = segments.map.categories.tolist(), segments.scores.tolist()
    is_unsure = not counts
    if is_unsure:
        best = instances(output, options)
        num = min(len(best), max(1, result.num_true))
        counts = list(best.counts[:num])
        texts, scores = best.categories[:num].tolist(), best.scores[:num].tolist()
    # A category has one colour in both pictures.
    order = list(dict.fromkeys([*truth.categories.tolist(), *texts]))
    colours = {text: PALETTE[place % len(PALETTE)] for place, text in enumerate(order)}
    marked = [row for row in range(len(truth)) if truth.counts[row] is not None]
    names = [categories[text] for text in truth.categories[marked].tolist()]
    return Picturable(
        result=result,
        photo=decode_whole(image.data, image.truth.size_hw),
        truth=tuple(
            _mark(number, truth.region(row), colours[int(truth.categories[row])], size_hw)
            for number, row in enumerate(marked, 1)
        ),
        true_texts=tuple(
            f"{name} (crowd)" if truth.is_crowd[row] else name
            for row, name in zip(marked, names, strict=True)
        ),
        found=tuple(
            _mark(number, one, colours[text], size_hw, is_unsure=is_unsure)
            for number, (one, text) in enumerate(zip(counts, texts, strict=True), 1)
        ),
        found_texts=tuple(
            f"{categories[text]} {score:.2f}" for text, score in zip(texts, scores, strict=True)
        ),
        is_unsure=is_unsure,
    )


def photo_view(one: Picturable, quality: PictureQuality) -> PhotoView:
    """Both pictures in some size."""
    true = draw_marks(one.photo, one.truth, long_side=quality.long_side)
    found = draw_marks(one.photo, one.found, long_side=quality.long_side)
    return PhotoView(
        result=one.result,
        size_hw=(one.photo.shape[0], one.photo.shape[1]),
        picture_hw=(true.shape[0], true.shape[1]),
        truth=_side(true, one.truth, one.true_texts, quality),
        found=_side(found, one.found, one.found_texts, quality),
        is_unsure=one.is_unsure,
    )


def _side(
    drawn: ImageRgb, marks: Sequence[Mark], texts: Sequence[str], quality: PictureQuality
) -> SideView:
    encoded = base64.b64encode(encode_jpeg(drawn, quality=quality.jpeg)).decode("ascii")
    views = [
        MarkView(label=mark.label, colour="#{:02x}{:02x}{:02x}".format(*mark.colour), text=text)
        for mark, text in zip(marks, texts, strict=True)
    ]
    return SideView(
        picture=f"data:image/jpeg;base64,{encoded}",
        marks=tuple(views[:_MAX_LISTED]),
        num_marks=len(views),
    )


def _mark(
    number: int, counts: bytes, colour: Colour, size_hw: tuple[int, int], *, is_unsure: bool = False
) -> Mark:
    x0, y0, x1, y1 = rle.box_xyxy(counts, size_hw=size_hw).tolist()
    return Mark(
        label=str(number),
        box_xyxy=(x0, y0, x1, y1),
        counts=counts,
        style="plain" if is_unsure else "kept",
        colour=colour,
    )
