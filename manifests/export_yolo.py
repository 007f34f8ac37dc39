"""YOLO segmentation folders: images/train, labels/train, data.yaml.

One line an annotation: class, then one ring in relative coordinates. Parts and holes are tied into
that ring, so nothing is lost where it is filled by the even-odd rule. YOLO has no word for crowds:
they are left out, and counted. Classes are 0..N-1 in the order of the COCO export's category ids.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib import metadata
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from manifests.errors import InputError
from manifests.export_images import image_bytes
from manifests.export_plan import ExportJob, Written
from manifests.export_target import Target
from manifests.kept import KeptShard, kept_shards
from manifests.polygons import join_rings, polygons_from_rle
from manifests.schemas import BOXES

ENTRIES = ("images", "labels", "data.yaml")
# Trainers look for `/images/` in a path and put `/labels/` there.
_IMAGES, _LABELS = "images/train", "labels/train"


def write_yolo(job: ExportJob, target: Target) -> Written:
    """Writes the export; memory holds one shard's rows and the images' names.

    Raises:
        InputError: boxes alone are asked for, for which this format has no rows.
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        StoreError: the target cannot be written.
    """
    if job.options.layer == BOXES:
        raise InputError(
            "yolo: expected masks, got the layer 'boxes'; export coco, or choose a layer of masks"
        )
    labels = _Labels(job)
    target.write("data.yaml", _data_yaml(job).encode())
    for kept in kept_shards(job.dataset, job.options.kept()):
        lines = labels.of_shard(kept)
        names = job.images[kept.shard].names
        stored = image_bytes(job.dataset, kept.shard, kept.images)
        rows = kept.images["image_row"].to_pylist()
        for name, row, data in zip(names, rows, stored, strict=True):
            text = "".join(f"{line}\n" for line in lines.get(row, []))
            target.write(f"{_IMAGES}/{name}", data)
            target.write(f"{_LABELS}/{PurePosixPath(name).with_suffix('.txt')}", text.encode())
    return Written(
        num_images=sum(len(shard.names) for shard in job.images.values()),
        num_annotations=labels.num_rows,
        num_skipped=labels.skipped,
    )


def _data_yaml(job: ExportJob) -> str:
    """JSON strings are YAML strings, whatever a category is called."""
    ref = f", ref {json.dumps(job.ref)}" if job.ref else ""
    names = [
        f"  {number}: {json.dumps(category.name)}\n"
        for number, category in enumerate(job.ids.categories)
    ]
    return (
        f"# exported by maskmill {metadata.version('maskmill')}, "
        f"commit {job.dataset.commit_id}{ref}\n"
        f"train: {_IMAGES}\n"
        f"val: {_IMAGES}  # everything is in train; trainers insist on this key\n"
        f"nc: {len(names)}\n"
        f"names:{'' if names else ' {}'}\n{''.join(names)}"
    )


class _Labels:
    """Makes label lines and counts them: those that come and those that do not."""

    def __init__(self, job: ExportJob) -> None:
        self._classes = {c.name: number for number, c in enumerate(job.ids.categories)}
        self.num_rows = 0
        self.skipped: Counter[str] = Counter()

    def of_shard(self, kept: KeptShard) -> dict[int, list[str]]:
        """`image_row` -> lines."""
        self.skipped.update(kept.skipped)
        lines: dict[int, list[str]] = {}
        columns = ["image_row", "category", "is_crowd", "is_group_of", "counts", "height", "width"]
        for batch in kept.annotations.select(columns).to_batches(max_chunksize=4096):
            for row in pa.Table.from_batches([batch]).to_pylist():
                if row["is_crowd"] or row["is_group_of"]:
                    self.skipped["crowd" if row["is_crowd"] else "group_of"] += 1
                elif line := _line(row["counts"], size_hw=(row["height"], row["width"])):
                    number = self._classes[row["category"]]
                    lines.setdefault(row["image_row"], []).append(f"{number} {line}")
                    self.num_rows += 1
                else:
                    self.skipped["empty_mask"] += 1
        return lines


def _line(counts: bytes, *, size_hw: tuple[int, int]) -> str:
    """Relative coordinates of one ring, 6 decimals; "" for an empty mask."""
    rings = polygons_from_rle(counts, size_hw=size_hw)
    if not rings:
        return ""
    relative = join_rings(rings) / np.array([size_hw[1], size_hw[0]])
    return " ".join(f"{value:.6f}" for value in relative.ravel().tolist())
