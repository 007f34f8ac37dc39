"""A proposal as a folder that annotation tools import: photos, boxes, and masks to correct.

    images/<image_id>.jpg                 the photo; its name is what brings the answer back
    annotations/instances_default.json    COCO, as CVAT's "COCO 1.0" reads it
    tasks.json, label_config.xml          instead of it for Label Studio
    proposal.csv, proposal.json           why each image was chosen, and its role

Tools give new numbers to everything, so an answer finds its way home by the file's stem alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.confidence.best_masks import best_masks, preferred_teachers
from engine.confidence.propose import choose
from engine.confidence.proposed import Choice as Proposal
from engine.confidence.proposed import ProposeConfig, ProposedImage
from engine.confidence.task_files import BoxTask, PhotoTask, coco_files, label_studio_files
from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export_marker import Marker
from manifests.export_names import extension
from manifests.export_target import Target, open_target
from manifests.image_tar import STREAM_COLUMNS
from manifests.kept_masks import Choice, gather_masks

Format = Literal["coco", "label-studio"]
FORMATS: tuple[Format, ...] = ("coco", "label-studio")
IMAGES_FOLDER = "images"
_ENTRIES = (IMAGES_FOLDER, "annotations", "tasks.json", "label_config.xml", "proposal.*")
_INDEX_COLUMNS = [*STREAM_COLUMNS, "height", "width", "format", "file_name", "source"]
_BOX_COLUMNS = ["annotation_id", "image_row", "category", "box_xyxy", "is_crowd", "is_group_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalOptions:
    """How a proposal is written.

    Attributes:
        format: "coco" or "label-studio".
        masks: with the best pseudo-masks; False: boxes alone, for people who shall not be led.
        overwrite: replace a proposal that is at the target.
        image_url: what Label Studio puts before a photo's name to find it.
    """

    format: Format = "coco"
    masks: bool = True
    overwrite: bool = False
    image_url: str = "/data/local-files/?d=images/"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format '{self.format}': expected one of {', '.join(FORMATS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalSummary:
    """What was written.

    Attributes:
        num_by_role: images of each role.
        num_open: images that could have been chosen, by role.
        num_boxes, num_masks: boxes to draw, and those of them that come with a mask.
        has_confidence: see `proposed.Choice`.
        images: the rows of proposal.json.
    """

    target: str
    format: str
    num_images: int
    num_by_role: Mapping[str, int]
    num_open: Mapping[str, int]
    num_boxes: int
    num_masks: int
    has_confidence: bool
    certify_share: float
    images: Sequence[Mapping[str, Any]]  # Any: JSON


def propose(
    dataset: Dataset,
    target: str,
    *,
    config: ProposeConfig | None = None,
    options: ProposalOptions | None = None,
    ref: str | None = None,
) -> ProposalSummary:
    """Chooses images for people to draw, and writes them to a folder or fsspec URL.

    The same commit and settings give the same files.

    Raises:
        InputError: nothing to propose, or the target has something that must not be replaced.
        ObjectMissingError, ObjectDamagedError: a cell or a photo cannot be read.
        StoreError: the target cannot be reached or written.
    """
    config, options = config or ProposeConfig(), options or ProposalOptions()
    proposal = choose(dataset, config)
    marker = Marker(
        format=f"gold-proposal-{options.format}", commit=dataset.commit_id, ref=ref,
        maskmill=metadata.version("maskmill"), entries=_ENTRIES,
    )  # fmt: skip
    with open_target(target, marker, overwrite=options.overwrite) as out:
        photos = list(_photos(dataset, proposal.images, out, masks=options.masks))
        if options.format == "coco":
            files = coco_files(photos, commit=dataset.commit)
        else:
            files = label_studio_files(photos, image_url=options.image_url)
        of_image = {photo.image_id: photo for photo in photos}
        rows = [_row(item, of_image[item.image.image_id]) for item in proposal.images]
        for name, data in {**files, **_tables(rows)}.items():
            out.write(name, data)
    return _summary(target, options, proposal, photos, rows)


def _photos(
    dataset: Dataset, proposed: Sequence[ProposedImage], out: Target, *, masks: bool
) -> Iterator[PhotoTask]:
    """Writes the photos, and gives what is to be drawn in each; shard by shard."""
    teachers = preferred_teachers(dataset) if masks else ()
    wanted: dict[str, set[str]] = {}
    for item in proposed:
        wanted.setdefault(item.image.shard, set()).add(item.image.image_id)
    for shard, image_ids in wanted.items():
        index = dataset.table(shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS)
        is_wanted = pc.is_in(index["image_id"], pa.array(sorted(image_ids)))
        rows = np.flatnonzero(np.asarray(is_wanted))
        index = index.take(pa.array(rows))
        tasks = _boxes_of(dataset, shard, rows.tolist(), teachers)
        stored = dataset.images(shard, index)
        for row, data, boxes in zip(index.to_pylist(), stored, tasks, strict=True):
            name = f"{row['image_id']}.{extension(row['format'])}"
            out.write(f"{IMAGES_FOLDER}/{name}", data)
            yield PhotoTask(
                image_id=row["image_id"], name=name, size_hw=(row["height"], row["width"]),
                original_file_name=row["file_name"], source=row["source"], boxes=tuple(boxes),
            )  # fmt: skip


def _boxes_of(
    dataset: Dataset, shard: str, image_rows: list[int], teachers: Sequence[str]
) -> list[list[BoxTask]]:
    """What is to be drawn in each of some images, with the best mask that is known."""
    table = dataset.table(shard, schemas.BOXES, columns=_BOX_COLUMNS)
    is_prompt = pc.invert(pc.or_(table["is_crowd"], table["is_group_of"]))
    is_here = pc.is_in(table["image_row"], pa.array(image_rows, pa.int32()))
    rows = np.flatnonzero(np.asarray(pc.and_(is_prompt, is_here)))
    best = best_masks(dataset, shard, teachers, num_rows=table.num_rows) if teachers else None
    size = table.num_rows
    nothing = np.full(size, None, dtype=object)
    choice = Choice(
        wanted=np.ones(size, dtype=bool),
        layers=best.layers if best else nothing,
        candidates=best.candidates if best else np.zeros(size, dtype=np.int64),
        reasons=nothing,
    )
    counts = gather_masks(dataset, shard, choice, rows, num_rows=size)["counts"].to_pylist()
    found: dict[int, list[BoxTask]] = {row: [] for row in image_rows}
    chosen = table.take(pa.array(rows)).to_pylist()
    for row, box, mask in zip(rows.tolist(), chosen, counts, strict=True):
        task = BoxTask(
            annotation_id=box["annotation_id"], category=box["category"],
            box_xyxy=tuple(box["box_xyxy"]), counts=mask, layer=choice.layers[row],
        )  # fmt: skip
        found[box["image_row"]].append(task)
    return [found[row] for row in image_rows]


def _row(proposed: ProposedImage, photo: PhotoTask) -> dict[str, Any]:  # Any: JSON
    known = proposed.image.expected[np.isfinite(proposed.image.expected)]
    return {
        "image_id": photo.image_id,
        "file": f"{IMAGES_FOLDER}/{photo.name}",
        "role": proposed.role,
        "why": proposed.why,
        "score": None if proposed.score is None else round(proposed.score, 6),
        "expected_iou": round(float(np.mean(known)), 4) if len(known) else None,
        "num_boxes": len(photo.boxes),
        "num_masks": sum(box.counts is not None for box in photo.boxes),
        "categories": sorted({box.category for box in photo.boxes}),
        "source": photo.source,
        "original_file_name": photo.original_file_name,
    }


def _tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:  # Any: JSON
    """The same rows for machines and for spreadsheets."""
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{**row, "categories": "; ".join(row["categories"])} for row in rows])
    return {
        "proposal.json": json.dumps(rows, ensure_ascii=False, indent=1).encode() + b"\n",
        "proposal.csv": sheet.getvalue().encode(),
    }


def _summary(
    target: str,
    options: ProposalOptions,
    proposal: Proposal,
    photos: Sequence[PhotoTask],
    rows: Sequence[Mapping[str, Any]],  # Any: JSON
) -> ProposalSummary:
    return ProposalSummary(
        target=target,
        format=options.format,
        num_images=len(photos),
        num_by_role=dict(Counter(str(image.role) for image in proposal.images)),
        num_open={str(role): count for role, count in proposal.num_open.items()},
        num_boxes=sum(len(photo.boxes) for photo in photos),
        num_masks=sum(box.counts is not None for photo in photos for box in photo.boxes),
        has_confidence=proposal.has_confidence,
        certify_share=proposal.certify_share,
        images=rows,
    )
