"""COCO instances as tools write them: ids are the file's own, and file names may have folders.

`iscrowd` says nothing here: CVAT writes 1 for whatever was drawn with its brush.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from engine.confidence.drawn import UNKNOWN_CATEGORY, UNKNOWN_IMAGE, Answer, DrawnImage, size_hw_of

_KEYS = ("images", "annotations")
_Record = Mapping[str, Any]  # Any: JSON


def is_coco(document: object) -> TypeGuard[_Record]:
    """Whether it has COCO's two lists."""
    return isinstance(document, dict) and all(isinstance(document.get(k), list) for k in _KEYS)


def coco_answers(document: _Record) -> Iterator[DrawnImage]:
    """The images of a document with their answers; answers to images it lacks come at the end."""
    categories = _names(document.get("categories"))
    answers: dict[str, list[Answer]] = defaultdict(list)
    for record in document["annotations"]:
        entry = record if isinstance(record, dict) else {}
        answers[_key(entry.get("image_id"))].append(_answer(entry, categories))
    for record in document["images"]:
        if isinstance(record, dict):
            yield _image(record, tuple(answers.pop(_key(record.get("id")), ())))
    for key, lost in answers.items():
        detail = f"the file has no image with the id {key}"
        yield DrawnImage(
            file_name="", given_id=None, size_hw=None,
            answers=tuple(
                Answer(
                    name=answer.name, category=answer.category, segmentation=None,
                    problem=UNKNOWN_IMAGE, detail=detail,
                )
                for answer in lost
            ),
        )  # fmt: skip


def _key(value: object) -> str:
    """Ids are compared as what they look like: 7 and "7" are one."""
    return str(value)


def _names(records: object) -> dict[str, str]:
    found = {}
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            found[_key(record.get("id"))] = record["name"]
    return found


def _image(record: _Record, answers: tuple[Answer, ...]) -> DrawnImage:
    name, given = record.get("file_name"), record.get("maskmill_image_id")
    return DrawnImage(
        file_name=name if isinstance(name, str) else "",
        given_id=given if isinstance(given, str) else None,
        size_hw=size_hw_of(record.get("height"), record.get("width")),
        answers=answers,
    )


def _answer(entry: _Record, categories: Mapping[str, str]) -> Answer:
    key = _key(entry.get("category_id"))
    category = categories.get(key)
    is_lost = category is None
    return Answer(
        name=_key(entry.get("id", "")),
        category=category,
        segmentation=entry.get("segmentation"),
        problem=UNKNOWN_CATEGORY if is_lost else "",
        detail=f"the file has no category with the id {key}" if is_lost else "",
    )
