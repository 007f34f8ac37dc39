"""The human masks of a commit, image by image: what a student is judged by."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import rle
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.kept import kept_images
from manifests.kept_masks import aligned_table
from manifests.schemas import BOXES, IMAGE_INDEX, MASKS_HUMAN, OK
from student.evaluation.instances import TrueInstances
from student.evaluation.judging import Judging

_BOX_COLUMNS = ["image_row", "category", "box_xyxy", "is_crowd", "is_group_of"]
Row = dict[str, Any]  # Any: one value of each column


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueImage:
    """One image to be judged.

    Attributes:
        image_id, file_name: of the image.
        place: how many images of the commit come before it, quarantined ones left out.
        truth: what people marked in it.
        data: the stored bytes.
    """

    image_id: str
    file_name: str
    place: int
    truth: TrueInstances
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What was not judged, and why.

    Attributes:
        quarantined: images that the ingest policy puts aside.
        without_masks: images in which no human drew a mask.
        boxes_without_mask: of judged images; only box AP knows them, to all else they are no error.
        crowds: regions of several objects; what is found in them is no error.
    """

    quarantined: int
    without_masks: int
    boxes_without_mask: int
    crowds: int


class HumanTruth:
    """Reads a commit's images that have human masks, in its order."""

    def __init__(
        self, dataset: Dataset, categories: tuple[str, ...], places: Container[int]
    ) -> None:
        """Images are counted as they are for training: all that are not quarantined.

        Args:
            dataset: the commit.
            categories: names; their places are the categories' numbers.
            places: which images, by how many come before each in the commit.

        Raises:
            InputError: nobody drew masks in this commit.
        """
        self._dataset, self._categories, self._places = dataset, categories, places
        self._place_of = {name: place for place, name in enumerate(categories)}
        self._counts = dict.fromkeys(LeftOut.__slots__, 0)
        if not any(cell.num_rows for cell in dataset.manifest.of_layer(MASKS_HUMAN)):
            raise InputError(
                f"commit {dataset.commit_id[:12]} has no human masks to judge by; ingest a source "
                "with segmentations, or name another ref with --on"
            )
        self._judging = Judging(dataset, categories)

    def left_out(self) -> LeftOut:
        """Of what has been read so far."""
        return LeftOut(**self._counts)

    def __iter__(self) -> Iterator[TrueImage]:
        """The images, each once.

        Raises:
            InputError: a mask is damaged.
            ObjectMissingError, ObjectDamagedError: the store has lost something.
        """
        self._counts = dict.fromkeys(self._counts, 0)
        place = 0
        for shard in self._dataset.manifest.shards():
            index = self._dataset.table(shard, IMAGE_INDEX, columns=["quarantine"])
            num = index["quarantine"].null_count
            if any(one in self._places for one in range(place, place + num)):
                self._counts["quarantined"] += index.num_rows - num
                yield from self._of_shard(shard, place)
            place += num

    def _of_shard(self, shard: str, first: int) -> Iterator[TrueImage]:
        images = kept_images(self._dataset, shard)
        rows_of = self._annotations(shard)
        entries = images.select(["image_id", "file_name", "height", "width", "image_row"])
        entries = entries.to_pylist()
        truths = {
            row: self._truth(rows_of.get(entry["image_row"], []), entry, shard)
            for row, entry in enumerate(entries)
            if first + row in self._places
        }
        there = [row for row, truth in truths.items() if any(truth.counts)]
        self._counts["without_masks"] += len(truths) - len(there)
        stored = self._dataset.images(shard, images.take(pa.array(there, pa.int64())))
        for row, data in zip(there, stored, strict=True):
            truth = truths[row]
            self._counts["crowds"] += int(truth.is_crowd.sum())
            self._counts["boxes_without_mask"] += _num_without_mask(truth)
            yield TrueImage(
                image_id=entries[row]["image_id"], file_name=entries[row]["file_name"],
                place=first + row, truth=truth, data=data,
            )  # fmt: skip

    def _annotations(self, shard: str) -> dict[int, list[Row]]:
        """Row of the image index -> its boxes with `counts`, None where there is no human mask."""
        dataset = self._dataset
        has_boxes = dataset.manifest.get(shard, BOXES) is not None
        if not has_boxes or dataset.manifest.get(shard, MASKS_HUMAN) is None:
            return {}
        boxes = dataset.table(shard, BOXES, columns=_BOX_COLUMNS)
        masks = aligned_table(
            dataset, shard, MASKS_HUMAN, boxes.num_rows, columns=["status", "counts"]
        )
        counts = pc.if_else(pc.equal(masks["status"], OK), masks["counts"], None)
        found: dict[int, list[Row]] = {}
        for row in boxes.append_column("counts", counts).to_pylist():
            found.setdefault(row["image_row"], []).append(row)
        return found

    def _truth(self, rows: list[Row], entry: Row, shard: str) -> TrueInstances:
        size_hw = (entry["height"], entry["width"])
        for row in rows:
            if row["counts"] is not None:
                rle.check(row["counts"], size_hw=size_hw)
        categories = np.array([self._place_of[row["category"]] for row in rows], dtype=np.int64)
        return TrueInstances(
            size_hw=size_hw,
            categories=categories,
            boxes_xyxy=np.array([row["box_xyxy"] for row in rows], np.float32).reshape(-1, 4),
            counts=tuple(row["counts"] for row in rows),
            is_crowd=np.array([row["is_crowd"] or row["is_group_of"] for row in rows], dtype=bool),
            unjudged=self._judging.unjudged(shard, entry["image_row"], categories),
        )


def _num_without_mask(truth: TrueInstances) -> int:
    return sum(
        counts is None and not is_crowd
        for counts, is_crowd in zip(truth.counts, truth.is_crowd, strict=True)
    )
