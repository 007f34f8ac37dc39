"""WebDataset tars: for each image `<image_id>.jpg` (or what it is) and `<image_id>.json`.

The JSON is the image's COCO record with its annotations inside. Images are copied byte for byte
from the store, and the tars' bytes depend on the commit and the options alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from manifests.export_images import image_bytes
from manifests.export_names import extension
from manifests.export_plan import ExportJob, Written
from manifests.export_rows import AnnotationRow, annotation_rows, image_rows
from manifests.export_target import Target
from manifests.image_tar import ImageTarWriter
from manifests.kept import KeptShard, kept_shards

CATEGORIES = "categories.json"
ENTRIES = ("[0-9][0-9][0-9][0-9][0-9][0-9]*.tar", CATEGORIES)

_encode = msgspec.json.Encoder().encode


def write_webdataset(job: ExportJob, target: Target) -> Written:
    """Writes the export; memory holds one shard's rows, one image, and the images' names.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        StoreError: the target cannot be written.
    """
    samples = _Samples(job)
    target.write(CATEGORIES, _encode(job.ids.categories))
    upcoming = samples.read()
    sample, number = next(upcoming, None), 0
    while sample is not None:
        with target.stage(f"{number:06d}.tar") as path, ImageTarWriter(path) as tar:
            sample = _fill(tar, sample, upcoming, job)
        number += 1
    return Written(
        num_images=sum(len(shard.names) for shard in job.images.values()),
        num_annotations=samples.num_annotations,
        num_skipped=samples.skipped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One image with its record, both encoded."""

    key: str
    extension: str
    image: bytes
    record: bytes


def _fill(
    tar: ImageTarWriter, sample: _Sample, upcoming: Iterator[_Sample], job: ExportJob
) -> _Sample | None:
    """Adds samples until the tar is full; returns the first that had no room, or None."""
    num_images = num_bytes = 0
    following: _Sample | None = sample
    while following is not None:
        num_images += 1
        num_bytes += len(following.image) + len(following.record)
        is_full = num_images > job.options.max_tar_images or num_bytes > job.options.max_tar_bytes
        if is_full and num_images > 1:
            return following
        tar.add(image_id=following.key, extension=following.extension, data=following.image)
        tar.add(image_id=following.key, extension="json", data=following.record)
        following = next(upcoming, None)
    return None


class _Samples:
    """Reads samples shard by shard and counts annotations as they pass."""

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self.num_annotations = 0
        self.skipped: Counter[str] = Counter()

    def read(self) -> Iterator[_Sample]:
        job = self._job
        for kept in kept_shards(job.dataset, job.options.kept()):
            planned = job.images[kept.shard]
            annotations = self._by_image(kept, first_image=planned.first)
            records = image_rows(kept.images, ids=job.ids, planned=planned)
            stored = image_bytes(job.dataset, kept.shard, kept.images)
            formats = kept.images["format"].to_pylist()
            for record, image_format, image in zip(records, formats, stored, strict=True):
                mine = annotations.get(record.id, [])
                whole = msgspec.structs.replace(record, annotations=mine)
                yield _Sample(
                    key=record.maskmill_image_id,
                    extension=extension(image_format),
                    image=image,
                    record=_encode(whole),
                )
            self.skipped.update(kept.skipped)

    def _by_image(self, kept: KeptShard, *, first_image: int) -> dict[int, list[AnnotationRow]]:
        numbers = self._job.ids.of_images(kept.images, first=first_image)
        rows = annotation_rows(
            kept.annotations,
            ids=self._job.ids,
            first=self.num_annotations + 1,
            image_ids=dict(zip(kept.images["image_row"].to_pylist(), numbers, strict=True)),
            category_names=True,
        )
        found: dict[int, list[AnnotationRow]] = {}
        for row in rows:
            found.setdefault(row.image_id, []).append(row)
        self.num_annotations += kept.annotations.num_rows
        return found
