"""Label Studio's export "JSON": tasks, each with its photo's address and what people drew in it.

Brush regions and polygons (in per cent of the photo) are masks, one object each; rectangles are
not, and neither are predictions that nobody submitted. Where several people drew in one photo, the
annotation that was changed last is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeGuard
from urllib.parse import unquote

from engine.confidence.brush_rle import from_brush_rle
from engine.confidence.drawn import (
    BAD_SEGMENTATION,
    NO_MASK,
    OLDER_ANNOTATION,
    UNKNOWN_CATEGORY,
    Answer,
    DrawnImage,
    size_hw_of,
)
from manifests import rle
from manifests.errors import InputError

_MOST_PIXELS = 2**28
_LABELS = ("brushlabels", "polygonlabels", "labels")
_Record = Mapping[str, Any]  # Any: JSON


def is_label_studio(document: object) -> TypeGuard[list[_Record]]:
    """Whether it is a list of tasks."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in document)
        and any(isinstance(task.get("annotations"), list) for task in document)
    )


def label_studio_answers(tasks: list[_Record]) -> Iterator[DrawnImage]:
    """The photos of an export with what was submitted for each."""
    for task in tasks:
        data = task["data"]
        given, address = data.get("maskmill_image_id"), data.get("image")
        made = [one for one in _dicts(task.get("annotations")) if not one.get("was_cancelled")]
        made.sort(key=lambda one: str(one.get("updated_at", "")))
        answers = [
            answer if one is made[-1] else _outdated(answer)
            for one in made
            for answer in _answers(one)
        ]
        # "/data/local-files/?d=images/a.jpg", "s3://bucket/a.jpg?..." : the name comes last.
        name = unquote(str(address or "")).rpartition("?d=")[2].partition("?")[0]
        yield DrawnImage(
            file_name=name,
            given_id=given if isinstance(given, str) else None,
            size_hw=_size([region for one in made[-1:] for region in _dicts(one.get("result"))]),
            answers=tuple(answers),
        )


def _outdated(answer: Answer) -> Answer:
    detail = "somebody drew in this photo later"
    return replace(answer, problem=OLDER_ANNOTATION, detail=detail)


def _dicts(value: object) -> list[_Record]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _size(regions: list[_Record]) -> tuple[int, int] | None:
    for region in regions:
        size_hw = size_hw_of(region.get("original_height"), region.get("original_width"))
        if size_hw is not None and size_hw[0] * size_hw[1] <= _MOST_PIXELS:
            return size_hw
    return None


def _answers(annotation: _Record) -> Iterator[Answer]:
    for region in _dicts(annotation.get("result")):
        value = region.get("value")
        if not isinstance(value, dict) or "type" not in region:
            continue  # a relation between regions, or a choice about the whole photo
        yield _answer(region, value)


def _answer(region: _Record, value: _Record) -> Answer:
    words = next((value[key] for key in _LABELS if value.get(key)), None)
    category = words[0] if isinstance(words, list) and isinstance(words[0], str) else None
    blank = Answer(name=str(region.get("id", "")), category=category, segmentation=None)
    if "rle" not in value and "points" not in value:
        return replace(blank, problem=NO_MASK, detail=f"a region of type {region['type']}")
    size_hw = _size([region])
    try:
        if size_hw is None:
            raise InputError("region: expected original_width and original_height in pixels")
        if category is None:
            return replace(blank, problem=UNKNOWN_CATEGORY, detail="a region without a label")
        return replace(blank, segmentation=_segmentation(value, size_hw))
    except InputError as error:
        return replace(blank, problem=BAD_SEGMENTATION, detail=str(error))


def _segmentation(value: _Record, size_hw: tuple[int, int]) -> object:
    if "rle" in value:
        mask = from_brush_rle(value["rle"], size_hw=size_hw)
        return {"size": [*size_hw], "counts": rle.encode(mask).decode("ascii")}
    points = value["points"]
    is_list = isinstance(points, list) and all(
        isinstance(p, list) and len(p) == 2 and all(type(n) in (int, float) for n in p)
        for p in points
    )
    if not is_list:
        raise InputError("polygon: expected points as pairs of numbers, in per cent")
    height, width = size_hw
    return [[n for x, y in points for n in (x / 100 * width, y / 100 * height)]]
