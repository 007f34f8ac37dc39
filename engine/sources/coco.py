"""COCO instances JSON, and Objects365's, which adds `isfake` and `isreflected`.

Images with LVIS's federated lists keep them, so that LVIS subsets saved as COCO stay federated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.sources.coco_entries import (
    AnnotationElement,
    Box,
    CategoryElement,
    Id,
    ImageElement,
    annotation_from,
    category_from,
    id_text,
    image_from,
)
from engine.sources.json_stream import ArrayKey, read_arrays
from engine.sources.protocol import SourceBatch, SourceConfig, SourceInput
from engine.sources.tables import (
    INT32_MAX,
    annotation_batch,
    box_column,
    category_batch,
    first_defect,
    flag_column,
    flat_boxes,
    image_batch,
)
from manifests.errors import InputError

_KEYS = (
    ArrayKey(name="images", element=ImageElement, coerce=image_from),
    ArrayKey(name="annotations", element=AnnotationElement, coerce=annotation_from),
    ArrayKey(name="categories", element=CategoryElement, coerce=category_from),
)
_NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)
_NO_SEGMENTATION = frozenset({b"", b"null", b"[]", b"{}"})
_LONGEST_NONE = max(map(len, _NO_SEGMENTATION))


def open_coco(config: SourceConfig) -> CocoSource:
    """The source behind the formats `coco` and `objects365`."""
    return CocoSource(path=config.annotations, file_name_of=lambda image: image.file_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSource:
    """One COCO-like JSON file; `file_name_of` is where dialects differ."""

    path: str
    file_name_of: Callable[[ImageElement], str | None]

    @property
    def box_unit(self) -> Literal["pixel", "relative"]:
        return "pixel"

    @property
    def images_implied(self) -> bool:
        return False

    def inputs(self) -> Iterator[SourceInput]:
        """The file."""
        yield SourceInput(role="annotations", url=self.path)

    def scan(self) -> Iterator[SourceBatch]:
        """Batches in the order of the file, whichever of its arrays comes first."""
        for batch in read_arrays(self.path, _KEYS):
            if batch.key == "images":
                yield _images(batch.elements, self.file_name_of)
            elif batch.key == "annotations":
                yield _annotations(batch.elements)
            else:
                yield _categories(batch.elements, self.path)


def _images(
    elements: Sequence[ImageElement], file_name_of: Callable[[ImageElement], str | None]
) -> SourceBatch:
    ids = _id_column([image.id for image in elements])
    names = pa.array([file_name_of(image) or None for image in elements], pa.string())
    defects = [("malformed_image_entry", _is_null(ids) | _is_null(names))]
    return image_batch(
        source_image_id=ids,
        file_name=names,
        height=_size_column([image.height for image in elements]),
        width=_size_column([image.width for image in elements]),
        not_exhaustive=_ids_column([image.not_exhaustive_category_ids for image in elements]),
        negative=_ids_column([image.neg_category_ids for image in elements]),
        defect=first_defect(defects, rows=len(elements)),
    )


def _annotations(elements: Sequence[AnnotationElement]) -> SourceBatch:
    ids = _id_column([entry.id for entry in elements])
    image_ids = _id_column([entry.image_id for entry in elements])
    category_ids = _id_column([entry.category_id for entry in elements])
    xywh = [entry.bbox for entry in elements]
    no_box = np.zeros(len(elements), dtype=bool)
    if None in xywh:
        no_box = np.array([box is None for box in xywh])
    boxes = flat_boxes([box or _NO_BOX for box in xywh])
    boxes[:, 2:] += boxes[:, :2]
    no_image, no_category = _is_null(image_ids), _is_null(category_ids)
    defects = [
        ("malformed_annotation_entry", no_image & no_category & no_box),
        ("missing_image_id", no_image),
        ("missing_category_id", no_category),
        ("malformed_box", no_box),
    ]
    defect = first_defect(defects, rows=len(elements))
    return annotation_batch(
        source_image_id=image_ids,
        source_annotation_id=ids,
        source_category_id=category_ids,
        box_xyxy=box_column(boxes, defect=defect),
        is_crowd=pa.array(_set([entry.iscrowd for entry in elements])),
        flags=_flags(elements),
        score=_score_column([entry.score for entry in elements]),
        segmentation=_segmentation_column([entry.segmentation for entry in elements]),
        defect=defect,
    )


def _categories(elements: Sequence[CategoryElement], path: str) -> SourceBatch:
    for number, category in enumerate(elements, start=1):
        if id_text(category.id) is None or not category.name:
            raise InputError(
                f"{path}: expected every category to have an id and a name, got neither or one "
                f"in entry {number} of categories (id {category.id!r}, name {category.name!r}); "
                f"fix the entry"
            )
    return category_batch(
        [id_text(category.id) or "" for category in elements],
        [category.name or "" for category in elements],
        [category.supercategory for category in elements],
    )


def _id_column(ids: Sequence[Id]) -> pa.Array:
    """Ids as text: at once where all are integers, else one by one."""
    try:
        # The type is left to Arrow: asked for integers, it would silently cut 1.5 to 1.
        column = pa.array(ids)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        column = None
    if column is not None and pa.types.is_int64(column.type):
        return column.cast(pa.string())
    return pa.array([id_text(value) for value in ids], pa.string())


def _ids_column(lists: Sequence[Sequence[Id] | None]) -> pa.Array | None:
    if _all_none(lists):
        return None
    texts = [
        None if ids is None else [text for text in map(id_text, ids) if text is not None]
        for ids in lists
    ]
    return pa.array(texts, pa.list_(pa.string()))


def _size_column(sizes: Sequence[int | float | None]) -> pa.Array:
    """Declared heights or widths; null for what no image can have."""
    return pa.array(
        [int(size) if size is not None and 0 < size <= INT32_MAX else None for size in sizes],
        pa.int32(),
    )


def _flags(elements: Sequence[AnnotationElement]) -> pa.Array | None:
    fake = _set([entry.isfake for entry in elements])
    reflected = _set([entry.isreflected for entry in elements])
    if not (fake.any() or reflected.any()):
        return None
    return flag_column(("fake", "reflected"), (fake, reflected))


def _score_column(scores: Sequence[float | None]) -> pa.Array | None:
    return None if _all_none(scores) else pa.array(scores, pa.float32())


def _segmentation_column(texts: Sequence[msgspec.Raw]) -> pa.Array | None:
    # Long ones are not looked up: that would hash every polygon of the dataset.
    found = [
        None if len(text) <= _LONGEST_NONE and text in _NO_SEGMENTATION else text
        for text in map(bytes, texts)
    ]
    return None if _all_none(found) else pa.array(found, pa.binary())


def _set(values: Sequence[int | bool | None]) -> NDArray[np.bool_]:
    if _all_none(values):
        return np.zeros(len(values), dtype=bool)
    return np.fromiter(values, np.bool_, len(values))


def _all_none(values: Sequence[object]) -> bool:
    return values.count(None) == len(values)


def _is_null(column: pa.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls
