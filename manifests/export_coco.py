"""COCO instances: `instances.json`, written as a stream, and on request the images beside it.

The same commit and options give the same bytes: ids and order come from the commit, and `info`
holds its id and its time instead of the clock's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import BinaryIO

import msgspec

from manifests.export_images import image_bytes
from manifests.export_plan import ExportJob, Written
from manifests.export_rows import AnnotationRow, ImageRow, annotation_rows, image_rows
from manifests.export_target import Target
from manifests.kept import kept_images, kept_shards

INSTANCES = "instances.json"
IMAGES_FOLDER = "images"
ENTRIES = (INSTANCES, IMAGES_FOLDER)

_encode = msgspec.json.Encoder().encode


def write_coco(job: ExportJob, target: Target) -> Written:
    """Writes the export; memory holds one shard's rows and the images' names.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        StoreError: the target cannot be written.
    """
    with target.stage(INSTANCES) as path, path.open("wb") as file:
        written = write_instances(job, file, info=_info(job))
    if job.options.images:
        _copy_images(job, target)
    return written


def write_instances(job: ExportJob, file: BinaryIO, *, info: Mapping[str, str | None]) -> Written:
    """Writes the JSON alone, which is a function of the job and of `info`.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        OSError: the file cannot be written.
    """
    annotations = _Annotations(job)
    file.write(b'{"info":' + _encode(info) + b',\n"licenses":[]')
    _write_list(file, "categories", job.ids.categories)
    _write_list(file, "images", _images(job))
    _write_list(file, "annotations", annotations.rows())
    file.write(b"}\n")
    return Written(
        num_images=sum(len(shard.names) for shard in job.images.values()),
        num_annotations=annotations.num_rows,
        num_skipped=annotations.skipped,
    )


def _info(job: ExportJob) -> dict[str, str | None]:
    return {
        "description": "exported by maskmill",
        "version": metadata.version("maskmill"),
        "date_created": job.dataset.commit.time,
        "maskmill_commit": job.dataset.commit_id,
        "maskmill_ref": job.ref,
        "maskmill_layer": job.options.layer,
    }


def _write_list(file: BinaryIO, key: str, rows: Iterable[object]) -> None:
    file.write(b',\n"%s":[' % key.encode())
    separator = b"\n"
    for row in rows:
        file.write(separator + _encode(row))
        separator = b",\n"
    file.write(b"]")


def _images(job: ExportJob) -> Iterator[ImageRow]:
    for planned in job.images.values():
        images = kept_images(
            job.dataset, planned.shard, include_quarantined=job.options.include_quarantined
        )
        yield from image_rows(images, ids=job.ids, planned=planned)


class _Annotations:
    """Streams annotations and counts them: those that come and those that do not."""

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self.num_rows = 0
        self.skipped: Counter[str] = Counter()

    def rows(self) -> Iterator[AnnotationRow]:
        ids = self._job.ids
        for kept in kept_shards(self._job.dataset, self._job.options.kept()):
            numbers = ids.of_images(kept.images, first=self._job.images[kept.shard].first)
            yield from annotation_rows(
                kept.annotations,
                ids=ids,
                first=self.num_rows + 1,
                image_ids=dict(zip(kept.images["image_row"].to_pylist(), numbers, strict=True)),
                polygons=self._job.options.polygons,
            )
            self.num_rows += kept.annotations.num_rows
            self.skipped.update(kept.skipped)


def _copy_images(job: ExportJob, target: Target) -> None:
    for planned in job.images.values():
        images = kept_images(
            job.dataset, planned.shard, include_quarantined=job.options.include_quarantined
        )
        stored = image_bytes(job.dataset, planned.shard, images)
        for name, data in zip(planned.names, stored, strict=True):
            target.write(f"{IMAGES_FOLDER}/{name}", data)
