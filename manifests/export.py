"""Any commit as files that other tools read: `export` and the formats it knows.

maskmill_export.json   in every format: which commit this is, and whether it is complete
coco                   instances.json (+ images/)
yolo                   images/train/, labels/train/, data.yaml
webdataset             000000.tar, 000001.tar ..., categories.json
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from manifests import export_coco, export_webdataset, export_yolo
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export_images import plan_images
from manifests.export_marker import Marker
from manifests.export_plan import ExportJob, ExportOptions, ExportSummary, Written, plan_ids
from manifests.export_target import Target, open_target
from manifests.kept import check_layer
from manifests.schemas import IMAGE_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format: its writer, the names it puts into the target, and how it names images.

    Attributes:
        entries: `fnmatch` patterns; what `overwrite` may remove of an older export.
        with_images: image files are always part of it.
        flat_names: image files lie in one folder, and label files of the same stem beside it.
    """

    write: Callable[[ExportJob, Target], Written]
    entries: tuple[str, ...]
    with_images: bool = True
    flat_names: bool = False


FORMATS: dict[str, Format] = {
    "coco": Format(write=export_coco.write_coco, entries=export_coco.ENTRIES, with_images=False),
    "yolo": Format(write=export_yolo.write_yolo, entries=export_yolo.ENTRIES, flat_names=True),
    "webdataset": Format(
        write=export_webdataset.write_webdataset, entries=export_webdataset.ENTRIES
    ),
}


def export(
    dataset: Dataset,
    target: str,
    *,
    format: str,
    options: ExportOptions | None = None,
    ref: str | None = None,
) -> ExportSummary:
    """Writes a commit to a folder of its own.

    Args:
        target: a local folder or any fsspec URL; must be empty, or an export to overwrite.
        format: a name in FORMATS.
        ref: the name under which the commit was opened, for the record.

    Raises:
        InputError: no such format, or a target that must not be replaced.
        RefError: the commit lacks verdicts, or the layer asked for, in some shard.
        ObjectMissingError, ObjectDamagedError: the store is not whole.
        StoreError: the target cannot be reached or written.
    """
    options = options or ExportOptions()
    chosen = FORMATS.get(format)
    if chosen is None:
        raise InputError(f"export format: expected one of {', '.join(FORMATS)}, got {format!r}")
    check_layer(dataset, options.layer)
    marker = Marker(
        format=format,
        commit=dataset.commit_id,
        ref=ref,
        maskmill=metadata.version("maskmill"),
        entries=chosen.entries,
    )
    with open_target(target, marker, overwrite=options.overwrite) as folder:
        written = chosen.write(_plan(dataset, options, chosen, ref), folder)
    num_images = sum(cell.num_rows for cell in dataset.manifest.of_layer(IMAGE_INDEX))
    return ExportSummary(
        target=target,
        format=format,
        num_images=written.num_images,
        num_quarantined_images=num_images - written.num_images,
        num_annotations=written.num_annotations,
        num_skipped=dict(sorted(written.num_skipped.items())),
        num_files=folder.num_files,
        num_bytes=folder.num_bytes,
    )


def _plan(dataset: Dataset, options: ExportOptions, format: Format, ref: str | None) -> ExportJob:
    images = plan_images(
        dataset,
        include_quarantined=options.include_quarantined,
        as_stored=format.with_images or options.images,
        flat=format.flat_names,
    )
    return ExportJob(
        dataset=dataset, options=options, ids=plan_ids(dataset), images=images, ref=ref
    )
