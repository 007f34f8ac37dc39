"""`annotations.json` of a checkout: the COCO export's rows, and what decides that they change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from manifests.byte_progress import ByteListener
from manifests.dataset import Dataset
from manifests.digest import digest_of
from manifests.export_coco import write_instances
from manifests.export_plan import ExportJob, Written
from manifests.schemas import BOXES, CONFIDENCE, IMAGE_INDEX, MASKS_HUMAN, VERDICTS, masks_layer

ANNOTATIONS = "annotations.json"
_VERSION = 2
"""Raised when the JSON of the same cells would come out different."""
_TELL_EVERY = 1000


def annotations_key(dataset: Dataset, masks: str, *, include_quarantined: bool) -> str:
    """Digest of all that shapes the annotations: equal means that they need not be made again.

    Args:
        dataset: the commit.
        masks: `verdicts`, a layer `masks/<teacher>`, or `boxes`.
        include_quarantined: whether quarantined images are in them.
    """
    layers = {IMAGE_INDEX, BOXES, masks, MASKS_HUMAN} | ({CONFIDENCE} if masks != BOXES else set())
    cells = [
        [cell.shard, cell.layer, cell.object_id, *(cell.inputs if cell.layer == CONFIDENCE else ())]
        for cell in dataset.manifest
        if cell.layer in layers or (masks == VERDICTS and cell.layer.startswith(masks_layer("")))
    ]
    return digest_of(
        {
            "version": _VERSION,
            "masks": masks,
            "include_quarantined": include_quarantined,
            "categories": [asdict(category) for category in dataset.commit.categories],
            "cells": cells,
        }
    )


def write_annotations(job: ExportJob, path: Path, *, masks: str, listener: ByteListener) -> Written:
    """Writes the JSON. It names no commit and no time: it is a function of what is in it.

    Raises:
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        OSError: the file cannot be written.
    """
    num_boxes = sum(cell.num_rows for cell in job.dataset.manifest.of_layer(BOXES))
    num_images = sum(len(shard.names) for shard in job.images.values())
    listener.begin("writing annotations", total=num_boxes + num_images)
    info = {"description": "checked out by maskmill", "maskmill_masks": masks}
    with path.open("wb") as file:
        counted = cast(BinaryIO, _CountedRows(file, listener))
        return write_instances(job, counted, info=info)


class _CountedRows:
    """A file that tells a listener how many rows were written, a write a row."""

    def __init__(self, file: BinaryIO, listener: ByteListener) -> None:
        self._file, self._listener, self._count = file, listener, 0

    def write(self, data: bytes) -> int:
        self._count += 1
        if self._count % _TELL_EVERY == 0:
            self._listener.advance(_TELL_EVERY)
        return self._file.write(data)
