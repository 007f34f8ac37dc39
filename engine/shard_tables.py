"""The tables of one shard while ingest fills them, and the ledger of what did not get in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.decode import ImageRejectedError, UprightImage
from engine.ingest_config import ImagePolicy
from engine.mask_rows import MaskRow, absent_row, mask_row
from engine.measure import PhotoMeasures
from engine.place_boxes import Placement, Placements, place_boxes, place_mask, refuse_box
from manifests import boxes, rle, schemas
from manifests.cells import write_cell
from manifests.digest import content_id
from manifests.errors import InputError
from manifests.ledger import LedgerCounter
from manifests.manifest import Cell
from manifests.statistics import cell_statistics
from manifests.store import Store

Row = dict[str, Any]  # Any: one value of each column of a table
Twin = tuple[str, bytes]
"""A category and a clipped box; a second one on the same image is the same label twice."""

_NO_BOX = (np.nan,) * 4


class ShardTables:
    """The rows of one shard's tables while they are being filled, with their ledger."""

    def __init__(self, source: str, policy: ImagePolicy) -> None:
        self._source, self._policy = source, policy
        self._index: list[Row] = []
        self._boxes: list[Row] = []
        self._human: list[MaskRow] = []
        self._rejects: list[Row] = []
        self.counter = LedgerCounter()

    @property
    def num_images(self) -> int:
        """Images added so far."""
        return len(self._index)

    def add_image(
        self,
        row: Row,
        upright: UprightImage,
        measures: PhotoMeasures,
        offset: int,
    ) -> None:
        """A row of image_index; `offset` is where its bytes begin in the tar."""
        height, width = upright.rgb.shape[:2]
        quarantine = self._policy.quarantine((height, width), measures)
        self._index.append(
            {
                "image_id": row["image_id"],
                "height": height,
                "width": width,
                "offset": offset,
                "size": len(upright.data),
                "format": upright.format,
                "file_name": row["file_name"],
                "source": self._source,
                "source_image_id": row["source_image_id"],
                "origins": row["origins"],
                "transforms": list(upright.transforms),
                "sharpness": measures.sharpness,
                "brightness": measures.brightness,
                "dark_fraction": measures.dark_fraction,
                "bright_fraction": measures.bright_fraction,
                "quarantine": quarantine,
                "not_exhaustive": row["not_exhaustive"] or [],
                "negative": row["negative"] or [],
            }
        )
        if quarantine:
            self.counter.add_dropped(schemas.IMAGES, reason=f"quarantined_{quarantine}")
        else:
            self.counter.add_kept(schemas.IMAGES)

    def fail_image(self, row: Row, error: ImageRejectedError) -> None:
        """An image that cannot be stored takes its boxes and human masks with it."""
        self.counter.add_failed(schemas.IMAGES, reason=error.reason)
        self._reject(schemas.IMAGES, "failed", error.reason, error.detail, row, None)
        self.fail_boxes(row, error)

    def fail_boxes(self, row: Row, error: ImageRejectedError) -> None:
        """All boxes and human masks of an image, lost with it."""
        for annotation in row["annotations"]:
            self._fail_box(row, annotation, error)

    def add_boxes(
        self,
        row: Row,
        placements: Placements,
        *,
        image_row: int,
        known_ids: frozenset[str] = frozenset(),
        known_twins: frozenset[Twin] = frozenset(),
    ) -> None:
        """The image's boxes and human masks.

        Args:
            row: a row of PLAN.
            placements: where its boxes lie.
            image_row: the image's row in image_index.
            known_ids, known_twins: annotation ids, and (category, box) pairs of this image, that
                the dataset has already.
        """
        seen = set(known_twins)
        for annotation in row["annotations"]:
            placement = placements.of(annotation)
            if isinstance(placement, ImageRejectedError):
                self._fail_box(row, annotation, placement)
                continue
            [box] = place_boxes(np.array(annotation["box_xyxy"] or _NO_BOX), placement)
            clipped = boxes.clip(box, size_hw=placement.size_hw)
            annotation_id = self._annotation_id(row, annotation)
            twin = (annotation["category"], clipped.tobytes())
            reason = refuse_box(
                box, size_hw=placement.size_hw, min_side_px=self._policy.min_box_side_px
            )
            if reason is None and annotation_id in known_ids:
                reason = "already_in_dataset"
            if reason is None and twin in seen:
                reason = "duplicate_box"
            if reason:
                self._drop_box(row, annotation, reason)
                continue
            seen.add(twin)
            is_cut = not np.allclose(clipped, box, atol=1.0)
            content = self._box_content(annotation, clipped, is_cut)
            place_in = {"image_id": row["image_id"], "image_row": image_row}
            self._boxes.append({"annotation_id": annotation_id, **place_in, **content})
            self.counter.add_kept(schemas.BOXES, annotation["category"])
            self._add_human_mask(row, annotation, clipped, placement)

    def box_tables(self) -> tuple[pa.Table, pa.Table]:
        """The rows of `boxes`, and of `masks/human` aligned with them."""
        return (
            pa.Table.from_pylist(self._boxes, schema=schemas.BOXES_SCHEMA),
            pa.Table.from_pylist(self._human, schema=schemas.MASKS_SCHEMA),
        )

    def write(self, store: Store, shard: str) -> Iterator[Cell]:
        """Stores the tables as cells; `masks/human` only if the source has human masks."""
        index = pa.Table.from_pylist(self._index, schema=schemas.IMAGE_INDEX_SCHEMA)
        index_cell = write_cell(
            store, index, shard=shard, layer=schemas.IMAGE_INDEX, inputs=(shard,),
            statistics=cell_statistics(schemas.IMAGE_INDEX, index),
        )  # fmt: skip
        yield index_cell
        boxes_table, human = self.box_tables()
        boxes_cell = write_cell(
            store, boxes_table, shard=shard, layer=schemas.BOXES, inputs=(index_cell.object_id,),
            statistics=cell_statistics(schemas.BOXES, boxes_table),
        )  # fmt: skip
        yield boxes_cell
        if any(row["status"] == schemas.OK for row in self._human):
            yield write_cell(
                store, human, shard=shard, layer=schemas.MASKS_HUMAN,
                inputs=(boxes_cell.object_id,),
                statistics=cell_statistics(schemas.MASKS_HUMAN, human),
            )  # fmt: skip

    def rejects(self) -> pa.Table:
        """Rows of REJECTS_SCHEMA."""
        return pa.Table.from_pylist(self._rejects, schema=schemas.REJECTS_SCHEMA)

    def _add_human_mask(
        self, row: Row, annotation: Row, box_xyxy: NDArray[np.float32], placement: Placement
    ) -> None:
        size_hw, category = placement.size_hw, annotation["category"]
        if annotation["segmentation"] is None:
            self._human.append(absent_row(None, size_hw=size_hw))
            return
        try:
            counts = place_mask(json.loads(annotation["segmentation"]), placement)
            if counts is None or rle.area(counts, size_hw=size_hw) == 0:
                raise InputError("the human mask is empty")
        except (InputError, ValueError) as error:
            self.counter.add_dropped(schemas.MASKS_HUMAN, category, reason="unusable_mask")
            self._reject(
                schemas.MASKS_HUMAN, "dropped", "unusable_mask", str(error), row, annotation
            )
            self._human.append(absent_row("unusable_mask", size_hw=size_hw))
            return
        mask = rle.decode(counts, size_hw=size_hw)
        self._human.append(mask_row(counts, mask, box_xyxy, status=schemas.OK))
        self.counter.add_kept(schemas.MASKS_HUMAN, category)

    def _drop_box(self, row: Row, annotation: Row, reason: str) -> None:
        detail = str(annotation["box_xyxy"])
        self.counter.add_dropped(schemas.BOXES, annotation["category"], reason=reason)
        self._reject(schemas.BOXES, "dropped", reason, detail, row, annotation)
        if annotation["segmentation"] is not None:
            self.counter.add_dropped(schemas.MASKS_HUMAN, annotation["category"], reason=reason)

    def _box_content(self, annotation: Row, box_xyxy: NDArray[np.float32], is_cut: bool) -> Row:
        return {
            "category": annotation["category"],
            "box_xyxy": box_xyxy.tolist(),
            "is_crowd": annotation["is_crowd"],
            "is_group_of": annotation["is_group_of"],
            "flags": [*(annotation["flags"] or []), *(["clipped"] if is_cut else [])],
            "score": _finite_or_none(annotation["score"]),
            "source": self._source,
            "source_annotation_id": annotation["source_annotation_id"],
        }

    def _fail_box(self, row: Row, annotation: Row, error: ImageRejectedError) -> None:
        reason = f"image_{error.reason.removeprefix('image_')}"
        self.counter.add_failed(schemas.BOXES, annotation["category"], reason=reason)
        self._reject(schemas.BOXES, "failed", reason, None, row, annotation)
        if annotation["segmentation"] is not None:
            self.counter.add_failed(schemas.MASKS_HUMAN, annotation["category"], reason=reason)

    def _annotation_id(self, row: Row, annotation: Row) -> str:
        """From image, source, source id and box; without a source id, its image and category.

        The image is part of it, so that two datasets under one name cannot collide.
        """
        own = annotation["source_annotation_id"]
        named = (
            ("id", own)
            if own is not None
            else ("at", annotation["source_image_id"], annotation["category"])
        )
        box = np.array(annotation["box_xyxy"] or [], dtype="<f8").tobytes()
        return content_id(row["image_id"], self._source, *named, box)

    def _reject(
        self,
        layer: str,
        outcome: str,
        reason: str,
        detail: str | None,
        row: Row,
        annotation: Row | None,
    ) -> None:
        self._rejects.append(
            {
                "layer": layer,
                "outcome": outcome,
                "reason": reason,
                "detail": detail,
                "source": self._source,
                "source_image_id": row["source_image_id"],
                "file_name": row["file_name"],
                "source_annotation_id": annotation and annotation["source_annotation_id"],
                "category": annotation and annotation["category"],
            }
        )


def _finite_or_none(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None
