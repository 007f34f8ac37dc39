"""What every export format shares: options, summary, and the ids that rows get.

Ids from the sources come back where that is safe: the commit knows one source, and all its ids are
different positive integers. Otherwise rows count from 1 in the order of the export. It is decided
over the whole commit, so no policy and no option changes an id from one kind to the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.commit import Category
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export_images import ShardImages
from manifests.kept import KeptOptions
from manifests.schemas import BOXES, IMAGE_INDEX

# Up to 2**53 - 1, beyond which other readers of JSON lose digits.
_POSITIVE = r"^[1-9][0-9]{0,14}$"
_NATURAL = re.compile(r"0|[1-9][0-9]{0,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export and how.

    Attributes:
        layer: a `masks/<teacher>` to export without verdicts; None: what the verdicts keep.
        polygons: COCO segmentations as polygons (crowds stay RLE, as COCO has it).
        images: COCO with the image files in `images/`; the other formats always have them.
        overwrite: replace an export that is at the target.
        include_quarantined: also images that the ingest policy keeps away from teachers.
        max_tar_bytes, max_tar_images: when a WebDataset tar is full.
    """

    layer: str | None = None
    polygons: bool = False
    images: bool = False
    overwrite: bool = False
    include_quarantined: bool = False
    max_tar_bytes: int = 2**30
    max_tar_images: int = 10_000

    def __post_init__(self) -> None:
        if self.max_tar_bytes < 1 or self.max_tar_images < 1:
            raise InputError(
                f"tar limits: expected at least 1 byte and 1 image, got {self.max_tar_bytes} and "
                f"{self.max_tar_images}"
            )

    def kept(self) -> KeptOptions:
        """Which rows these options ask for."""
        return KeptOptions(layer=self.layer, include_quarantined=self.include_quarantined)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a format wrote: num_annotations + the sum of `num_skipped` is the commit's boxes."""

    num_images: int
    num_annotations: int
    num_skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What became of every image and every box of the commit.

    Attributes:
        num_skipped: boxes that are not in the export, by reason.
        num_files, num_bytes: what is at the target, `maskmill_export.json` included.
    """

    target: str
    format: str
    num_images: int
    num_quarantined_images: int
    num_annotations: int
    num_skipped: Mapping[str, int]
    num_files: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedCategory:
    """A category with its integer id."""

    id: int
    name: str
    supercategory: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportIds:
    """Integer ids for one commit."""

    categories: tuple[ExportedCategory, ...]
    keeps_image_ids: bool
    keeps_annotation_ids: bool
    category_ids: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        ids = {category.name: category.id for category in self.categories}
        object.__setattr__(self, "category_ids", ids)

    def of_images(self, images: pa.Table, *, first: int) -> list[int]:
        """One id a row; `first` is the number of the first row, from 1."""
        return _ids(images["source_image_id"], self.keeps_image_ids, first)

    def of_annotations(self, annotations: pa.Table, *, first: int) -> list[int]:
        """One id a row; `first` is the number of the first row, from 1."""
        return _ids(annotations["source_annotation_id"], self.keeps_annotation_ids, first)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """One export: the commit, what is asked for, and what was planned for it."""

    dataset: Dataset
    options: ExportOptions
    ids: ExportIds
    images: Mapping[str, ShardImages]
    ref: str | None = None


def plan_ids(dataset: Dataset) -> ExportIds:
    """Looks through the ids of the whole commit; memory is 8 bytes an annotation at most.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    sources: set[str] = set()
    names: set[str] = {category.name for category in dataset.commit.categories}
    images, annotations = _OriginalIds(), _OriginalIds()
    for shard in dataset.manifest.shards():
        columns = ["source_image_id", "origins", "not_exhaustive", "negative"]
        index = dataset.table(shard, IMAGE_INDEX, columns=columns)
        images.add(index["source_image_id"])
        origins = pc.struct_field(pc.list_flatten(index["origins"]), "source")
        federated = chain(index["not_exhaustive"], index["negative"])
        names.update(name for cell in federated for name in cell.as_py())
        sources.update(origins.unique().to_pylist())
        if dataset.manifest.get(shard, BOXES) is None:
            continue
        columns = ["source", "source_annotation_id", "category"]
        boxes = dataset.table(shard, BOXES, columns=columns)
        annotations.add(boxes["source_annotation_id"])
        sources.update(boxes["source"].unique().to_pylist())
        names.update(boxes["category"].unique().to_pylist())
    return ExportIds(
        categories=_number(dataset.commit.categories, names, sources),
        keeps_image_ids=len(sources) == 1 and images.can_stay(),
        keeps_annotation_ids=len(sources) == 1 and annotations.can_stay(),
    )


def _number(
    categories: tuple[Category, ...], names: set[str], sources: set[str]
) -> tuple[ExportedCategory, ...]:
    """Sorted by id. Names that only rows know are categories too."""
    known = {category.name: category for category in categories}
    ordered = sorted(names)
    ids = list(range(1, len(ordered) + 1))
    if len(sources) == 1:
        (source,) = sources
        originals = [known[n].source_ids.get(source, "") if n in known else "" for n in ordered]
        whole = all(_NATURAL.fullmatch(original) for original in originals)
        if whole and len(set(originals)) == len(originals):
            ids = [int(original) for original in originals]
    supers = [known[name].supercategory if name in known else None for name in ordered]
    return tuple(
        ExportedCategory(id=number, name=name, supercategory=above)
        for number, name, above in sorted(zip(ids, ordered, supers, strict=True))
    )


class _OriginalIds:
    """Watches a column of source ids: are all of them different positive integers?"""

    def __init__(self) -> None:
        self._seen: list[NDArray[np.int64]] | None = []

    def add(self, column: pa.ChunkedArray) -> None:
        if self._seen is None:
            return
        whole = pc.all(pc.match_substring_regex(column, _POSITIVE), min_count=0).as_py()
        if column.null_count or not whole:
            self._seen = None
        else:
            self._seen.append(column.cast(pa.int64()).to_numpy())

    def can_stay(self) -> bool:
        if self._seen is None:
            return False
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *self._seen])
        ids.sort()
        return not (ids[1:] == ids[:-1]).any()


def _ids(column: pa.ChunkedArray, keeps: bool, first: int) -> list[int]:
    if keeps:
        originals: list[int] = column.cast(pa.int64()).to_pylist()
        return originals
    return list(range(first, first + len(column)))
