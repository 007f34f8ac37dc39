"""The elements of COCO-like JSON, typed, and the same made of whatever else a file may hold.

`None` in a field stands for missing or unusable; `engine.sources.coco` names the defect.
"""

from __future__ import annotations

import json
import math

import msgspec

Id = int | str | float | None
Box = tuple[float, float, float, float]
_CROWD_WORDS = {"0": False, "1": True, "false": False, "true": True}


class ImageElement(msgspec.Struct, gc=False):
    """One of `images`; the federated lists and `coco_url` are LVIS's."""

    id: Id = None
    file_name: str | None = None
    height: int | float | None = None
    width: int | float | None = None
    coco_url: str | None = None
    not_exhaustive_category_ids: list[Id] | None = None
    neg_category_ids: list[Id] | None = None


class AnnotationElement(msgspec.Struct, gc=False):
    """One of `annotations`; `isfake` and `isreflected` are Objects365's. `bbox` is xywh."""

    id: Id = None
    image_id: Id = None
    category_id: Id = None
    bbox: Box | None = None
    iscrowd: int | bool | None = None
    isfake: int | bool | None = None
    isreflected: int | bool | None = None
    score: float | None = None
    segmentation: msgspec.Raw = msgspec.Raw()


class CategoryElement(msgspec.Struct, gc=False):
    """One of `categories`."""

    id: Id = None
    name: str | None = None
    supercategory: str | None = None


def image_from(value: object) -> ImageElement:
    """An image of any JSON value; blank where that is not an object."""
    if not isinstance(value, dict):
        return ImageElement()
    return ImageElement(
        id=_id(value.get("id")),
        file_name=_text(value.get("file_name")),
        height=_number(value.get("height")),
        width=_number(value.get("width")),
        coco_url=_text(value.get("coco_url")),
        not_exhaustive_category_ids=_ids(value.get("not_exhaustive_category_ids")),
        neg_category_ids=_ids(value.get("neg_category_ids")),
    )


def annotation_from(value: object) -> AnnotationElement:
    """An annotation of any JSON value; blank where that is not an object or not interpretable."""
    if not isinstance(value, dict):
        return AnnotationElement()
    is_set = {key: _truth(value.get(key)) for key in ("iscrowd", "isfake", "isreflected")}
    score = _number(value.get("score"))
    if None in is_set.values() or (score is None and value.get("score") is not None):
        return AnnotationElement()
    segmentation = value.get("segmentation")
    return AnnotationElement(
        id=_id(value.get("id")),
        image_id=_id(value.get("image_id")),
        category_id=_id(value.get("category_id")),
        bbox=_box(value.get("bbox")),
        score=score,
        segmentation=msgspec.Raw(json.dumps(segmentation).encode()),
        **is_set,
    )


def category_from(value: object) -> CategoryElement:
    """A category of any JSON value; blank where that is not an object."""
    if not isinstance(value, dict):
        return CategoryElement()
    return CategoryElement(
        id=_id(value.get("id")),
        name=_text(value.get("name")),
        supercategory=_text(value.get("supercategory")),
    )


def id_text(value: Id) -> str | None:
    """An id as the protocol has it: 7, 7.0 and "7" are the same; None for none."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if value is not None and value != "" else None


def _id(value: object) -> Id:
    if isinstance(value, bool):
        return None
    return value if isinstance(value, int | float) else _text(value)


def _ids(value: object) -> list[Id] | None:
    return [_id(item) for item in value] if isinstance(value, list) else None


def _text(value: object) -> str | None:
    """A string that UTF-8 can hold: JSON escapes can also write half a surrogate pair."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _box(value: object) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, width, height = (_number(item) for item in value)
    if x is None or y is None or width is None or height is None:
        return None
    return x, y, width, height


def _truth(value: object) -> bool | None:
    """0 and 1, however they are written; None where it cannot be told."""
    if value is None:
        return False
    if isinstance(value, int | float):
        return bool(value)
    return _CROWD_WORDS.get(value.lower()) if isinstance(value, str) else None
