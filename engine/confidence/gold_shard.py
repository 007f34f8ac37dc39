"""One shard's human masks, with what people drew for some of its images.

Legend: N boxes of the shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.confidence.drawn import DrawnImage
from engine.confidence.gold_outcomes import ImageBoxes, Outcome, outcomes_of_image
from engine.confidence.untouched import teachers_masks, without_untouched
from engine.mask_rows import MaskRow, absent_row, mask_row
from manifests import rle, schemas
from manifests.boxes import FloatArray
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.kept_masks import aligned_table

NOT_DRAWN = "not_drawn"
NOT_ASKED = "not_asked"

_BOX_COLUMNS = ["image_row", "category", "box_xyxy", "is_crowd", "is_group_of"]
_INDEX_COLUMNS = ["image_id", "height", "width", "file_name", "source", "source_image_id"]
_Row = Mapping[str, Any]  # Any: one value of each column of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldRules:
    """What answers must be to be used.

    Attributes:
        min_box_iou: of a mask's own box with the label's box.
        accept_unchanged: also answers for images in which every mask is as a teacher drew it.
    """

    min_box_iou: float = 0.5
    accept_unchanged: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.min_box_iou <= 1:
            raise InputError(
                f"min_box_iou: expected above 0 and at most 1, got {self.min_box_iou!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnShard:
    """What an answer file makes of one shard.

    Attributes:
        human: [N] its human masks, MASKS_SCHEMA.
        outcomes: image id -> what became of the answers for it.
        images: image id -> its row of the index.
        boxes: (category, reason) -> boxes of answered images; reason "" for those with a mask.
        num_new, num_replaced, num_kept: boxes of answered images that got their first human mask,
            got another one, or have theirs as before.
    """

    human: pa.Table
    outcomes: Mapping[str, Sequence[Outcome]]
    images: Mapping[str, _Row]
    boxes: Mapping[tuple[str, str], int]
    num_new: int
    num_replaced: int
    num_kept: int


def draw_in_shard(
    dataset: Dataset, shard: str, drawn: Mapping[str, Sequence[DrawnImage]], rules: GoldRules
) -> DrawnShard:
    """Puts the answers for a shard's images into its human masks.

    A box of an answered image that got no usable answer has no human mask, and its row says why;
    one that had a mask before keeps it. Rows of other images, and of crowds, stay as they are.

    Args:
        drawn: image id -> what was drawn in it.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or has other rows.
    """
    opened = _Shard(dataset, shard)
    known = frozenset(category.name for category in dataset.commit.categories)
    outcomes = {
        image_id: outcomes_of_image(
            answered, opened.prompts(image_id), size_hw=opened.size_hw(image_id),
            known_categories=known, min_box_iou=rules.min_box_iou,
        )
        for image_id, answered in drawn.items()
    }  # fmt: skip
    if not rules.accept_unchanged:
        outcomes = opened.refuse_untouched(outcomes)
    filled = _Filled()
    for image_id, found in outcomes.items():
        opened.fill(image_id, found, filled)
    return DrawnShard(
        human=opened.human_with(filled.rows),
        outcomes=outcomes,
        images={image_id: opened.image(image_id) for image_id in drawn},
        boxes=filled.boxes,
        num_new=filled.num_new,
        num_replaced=filled.num_replaced,
        num_kept=filled.num_kept,
    )


class _Filled:
    """Rows that are written anew, and what became of the boxes of answered images."""

    def __init__(self) -> None:
        self.rows: dict[int, MaskRow] = {}
        self.boxes: Counter[tuple[str, str]] = Counter()
        self.num_new = self.num_replaced = self.num_kept = 0


class _Shard:
    """A shard opened for its human masks to be changed."""

    def __init__(self, dataset: Dataset, shard: str) -> None:
        self._dataset, self._shard = dataset, shard
        self._index: list[_Row] = dataset.table(
            shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS
        ).to_pylist()
        self._at = {row["image_id"]: at for at, row in enumerate(self._index)}
        self._boxes = dataset.table(shard, schemas.BOXES, columns=_BOX_COLUMNS)
        self._image_rows = self._boxes["image_row"].to_numpy()
        self._is_prompt = ~np.asarray(pc.or_(self._boxes["is_crowd"], self._boxes["is_group_of"]))
        flat = self._boxes["box_xyxy"].combine_chunks().flatten()
        self._boxes_xyxy: FloatArray = np.asarray(flat, dtype=np.float32).reshape(-1, 4)
        self._human = self._human_before()
        self._has_mask = np.asarray(pc.equal(self._human["status"], schemas.OK))

    def image(self, image_id: str) -> _Row:
        """Its row of the index."""
        return self._index[self._at[image_id]]

    def size_hw(self, image_id: str) -> tuple[int, int]:
        """Of the stored image."""
        row = self.image(image_id)
        return row["height"], row["width"]

    def prompts(self, image_id: str) -> ImageBoxes:
        """The boxes of an image that people are asked to draw."""
        rows = self._rows(image_id)
        rows = rows[self._is_prompt[rows]]
        return ImageBoxes(
            rows=rows.tolist(),
            boxes_xyxy=self._boxes_xyxy[rows],
            categories=self._boxes["category"].take(pa.array(rows)).to_pylist(),
        )

    def refuse_untouched(
        self, outcomes: Mapping[str, Sequence[Outcome]]
    ) -> dict[str, list[Outcome]]:
        """See `without_untouched`, for every image."""
        found = {one.row for seen in outcomes.values() for one in seen if one.row is not None}
        num_rows = self._boxes.num_rows
        masks = teachers_masks(self._dataset, self._shard, sorted(found), num_rows=num_rows)
        return {
            image_id: without_untouched(seen, masks, size_hw=self.size_hw(image_id))
            for image_id, seen in outcomes.items()
        }

    def fill(self, image_id: str, outcomes: Sequence[Outcome], filled: _Filled) -> None:
        """Adds what becomes of the boxes of one image."""
        size_hw = self.size_hw(image_id)
        used = {one.row: one for one in outcomes if not one.reason and one.row is not None}
        reasons = {one.row: one.reason for one in outcomes if one.reason and one.row is not None}
        for row in self._rows(image_id).tolist():
            category = self._boxes["category"][row].as_py()
            if row in used:
                mask = rle.decode(used[row].counts, size_hw=size_hw)
                filled.rows[row] = mask_row(
                    used[row].counts, mask, self._boxes_xyxy[row], status=schemas.OK
                )
                filled.num_replaced += int(self._has_mask[row])
                filled.num_new += int(not self._has_mask[row])
                reason = ""
            elif self._has_mask[row]:
                filled.num_kept += 1
                reason = ""
            elif self._is_prompt[row]:
                reason = reasons.get(row, NOT_DRAWN)
                filled.rows[row] = absent_row(reason, size_hw=size_hw)
            else:
                reason = NOT_ASKED
            filled.boxes[category, reason] += 1

    def human_with(self, rows: Mapping[int, MaskRow]) -> pa.Table:
        """[N] the human masks with some rows written anew."""
        fresh = pa.Table.from_pylist(list(rows.values()), schema=schemas.MASKS_SCHEMA)
        places = np.arange(self._human.num_rows)
        places[list(rows)] = self._human.num_rows + np.arange(len(rows))
        both = pa.concat_tables([self._human, fresh])
        return both.take(pa.array(places)).combine_chunks()

    def _rows(self, image_id: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.flatnonzero(self._image_rows == self._at[image_id])

    def _human_before(self) -> pa.Table:
        """[N] as they are; all absent in a shard without any."""
        if self._dataset.manifest.get(self._shard, schemas.MASKS_HUMAN):
            columns = schemas.MASKS_SCHEMA.names
            table = aligned_table(
                self._dataset, self._shard, schemas.MASKS_HUMAN, self._boxes.num_rows,
                columns=columns,
            )  # fmt: skip
            return table.select(columns).cast(schemas.MASKS_SCHEMA)
        sizes = [(row["height"], row["width"]) for row in self._index]
        rows = [absent_row(None, size_hw=sizes[at]) for at in self._image_rows.tolist()]
        return pa.Table.from_pylist(rows, schema=schemas.MASKS_SCHEMA)
