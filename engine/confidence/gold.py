"""Gold: boxes with a human mask, and how well every output of every teacher meets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.choice import Choice
from engine.confidence.features import features_of, read_shard
from engine.confidence.outputs import Bools, Floats, Output, as_floats, read_outputs
from engine.confidence.roles import CALIBRATE, CERTIFY, certifies
from manifests import schemas
from manifests.boxes import paired_iou
from manifests.dataset import Dataset
from manifests.in_parallel import in_parallel, threads_for
from manifests.kept_masks import aligned_table
from manifests.paired_rle import paired_areas

MIN_BOX_IOU = 0.5
"""A human mask whose own box meets its label less than this is somebody else's."""

BOX_DISAGREES = "gold_box_disagrees"
NO_PSEUDO_MASK = "no_pseudo_mask"

GOLD_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("annotation_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        # "calibrate" or "certify", see engine.confidence.roles.
        pa.field("role", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("candidate", pa.int16(), nullable=False),
        # With the human mask.
        pa.field("iou", pa.float32(), nullable=False),
        # Expected IoU: of gold that calibrates from a calibrator that did not see its image (or
        # anything of its source), of gold that certifies from the final one.
        pa.field("confidence", pa.float32(), nullable=False),
        # Whether it is the output that is taken for its box.
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)
"""One row for each gold box and output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldBoxes:
    """Gold boxes of one shard, or of many; M boxes.

    Attributes:
        table: [M] shard, row, image_id, annotation_id, source, category, role.
        iou: output -> [M] IoU with the human mask; NaN where the output is not there.
        features: output -> [M, F] in the order of `feature_names` of its teacher.
        unused: why other human masks are not used -> how many.
    """

    table: pa.Table
    iou: Mapping[Output, Floats]
    features: Mapping[Output, Floats]
    unused: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_boxes(self) -> int:
        return int(self.table.num_rows)

    def codes(self, name: str) -> NDArray[np.int64]:
        """[M] a column of words as numbers."""
        encoded = self.table[name].combine_chunks().dictionary_encode()
        return np.asarray(encoded.indices).astype(np.int64)

    def words(self, name: str) -> list[str]:
        """[M] a column of words."""
        words: list[str] = self.table[name].to_pylist()
        return words

    @property
    def categories(self) -> pa.DictionaryArray:
        """[M] names."""
        return self.table["category"].combine_chunks().dictionary_encode()

    def has_role(self, role: str) -> Bools:
        """[M] whether a box is for that."""
        return np.asarray(pc.equal(self.table["role"], role))

    def where(self, wanted: Bools) -> GoldBoxes:
        """Some of the boxes."""
        return GoldBoxes(
            table=self.table.filter(pa.array(wanted)),
            iou={output: values[wanted] for output, values in self.iou.items()},
            features={output: values[wanted] for output, values in self.features.items()},
            unused=self.unused,
        )


def read_gold(
    dataset: Dataset, features: Mapping[str, Sequence[str]], *, certify_share: float
) -> GoldBoxes:
    """All gold of a commit.

    Args:
        features: teacher -> names of its features; teachers that are not among them are left out.
        certify_share: see `engine.confidence.roles`.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    shards = [cell.shard for cell in dataset.manifest.of_layer(schemas.MASKS_HUMAN)]
    work = partial(_gold_of_shard, dataset, features, certify_share)
    num_threads = threads_for(dataset.store)
    parts = list(in_parallel(work, shards, num_threads=num_threads))
    return _concat([part for part in parts if part is not None])


def _gold_of_shard(
    dataset: Dataset, features: Mapping[str, Sequence[str]], certify_share: float, shard: str
) -> GoldBoxes | None:
    human_cell = dataset.cell(shard, schemas.MASKS_HUMAN)
    if human_cell.statistics and not human_cell.statistics.get(schemas.OK):
        return None
    found = read_shard(dataset, shard, list(features))
    columns = ["status", "counts", "height", "width", "mask_box_xyxy"]
    human = aligned_table(dataset, shard, schemas.MASKS_HUMAN, found.num_rows, columns=columns)
    is_gold = np.asarray(pc.equal(human["status"], schemas.OK))
    agrees = _agrees(human, found.boxes_xyxy, is_gold)
    has_any = np.any([out.has_mask for out in found.outputs.values()] or [False & is_gold], axis=0)
    rows = np.flatnonzero(is_gold & agrees & has_any)
    unused = {
        BOX_DISAGREES: int((is_gold & ~agrees).sum()),
        NO_PSEUDO_MASK: int((is_gold & agrees & ~has_any).sum()),
    }
    return GoldBoxes(
        table=_described(dataset, shard, rows, certify_share),
        iou=_ious(dataset, shard, list(features), human, rows),
        features={
            output: features_of(found, output, features[output.teacher])[rows]
            for output in found.outputs
        },
        unused=unused,
    )


def _agrees(human: pa.Table, boxes_xyxy: Floats, is_gold: Bools) -> Bools:
    """[N] whether a human mask's own box is the label's, more or less."""
    agrees = np.zeros(len(is_gold), dtype=bool)
    tight = human["mask_box_xyxy"].combine_chunks().filter(pa.array(is_gold)).flatten()
    tight_xyxy = np.asarray(tight.to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)
    agrees[is_gold] = paired_iou(tight_xyxy, boxes_xyxy[is_gold]) >= MIN_BOX_IOU
    return agrees


def _described(
    dataset: Dataset, shard: str, rows: NDArray[np.int64], certify_share: float
) -> pa.Table:
    columns = ["image_id", "annotation_id", "source", "category"]
    boxes = dataset.table(shard, schemas.BOXES, columns=columns).take(pa.array(rows))
    is_certify = certifies(boxes["image_id"].to_pylist(), certify_share)
    return pa.table(
        {
            "shard": pa.array([shard] * len(rows), pa.string()),
            "row": pa.array(rows, pa.int32()),
            **{name: boxes[name] for name in columns},
            "role": pa.array(np.where(is_certify, CERTIFY, CALIBRATE).tolist(), pa.string()),
        }
    )


def _ious(
    dataset: Dataset, shard: str, teachers: Sequence[str], human: pa.Table, rows: NDArray[np.int64]
) -> dict[Output, Floats]:
    outputs = read_outputs(dataset, shard, teachers, ["counts"], num_rows=human.num_rows)
    found = {}
    for output, table in outputs.items():
        mine = table.has_mask[rows]
        chosen = pa.array(rows[mine])
        sizes = [as_floats(human[name].take(chosen)).astype(np.int64) for name in _SIZE]
        areas = paired_areas(
            human["counts"].take(chosen),
            pa.chunked_array([table.columns["counts"].take(chosen)], pa.binary()),
            sizes_hw=np.stack(sizes, axis=1),
        )
        iou = np.full(len(rows), np.nan, np.float32)
        iou[mine] = areas.iou
        found[output] = iou
    return found


_SIZE = ("height", "width")


def _concat(parts: Sequence[GoldBoxes]) -> GoldBoxes:
    """One after the other; an output that a part lacks is not there in its rows."""
    names = [name for name in GOLD_SCHEMA.names if name not in _OF_OUTPUTS]
    empty = pa.schema([GOLD_SCHEMA.field(name) for name in names]).empty_table()
    outputs = sorted({output for part in parts for output in part.iou})
    width = {output: part.features[output].shape[1] for part in parts for output in part.features}
    iou, features = {}, {}
    for output in outputs:
        iou[output] = np.concatenate(
            [part.iou.get(output, np.full(part.num_boxes, np.nan, np.float32)) for part in parts]
        )
        features[output] = np.concatenate(
            [
                part.features.get(
                    output, np.full((part.num_boxes, width[output]), np.nan, np.float32)
                )
                for part in parts
            ]
        )
    unused: Counter[str] = Counter()
    for part in parts:
        unused.update(part.unused)
    tables = [part.table.cast(empty.schema) for part in parts]
    return GoldBoxes(
        table=pa.concat_tables([empty, *tables]).combine_chunks(),
        iou=iou,
        features=features,
        unused={reason: count for reason, count in sorted(unused.items()) if count},
    )


_OF_OUTPUTS = ("teacher", "candidate", "iou", "confidence", "chosen")


def gold_table(
    choice: Choice,
    boxes: GoldBoxes,
    confidence: Mapping[Output, Floats],
    taken: NDArray[np.int64] | None = None,
) -> pa.Table:
    """GOLD_SCHEMA rows, by box and then by output.

    Args:
        choice: which output of a box is taken.
        confidence: output -> [M] expected IoU; NaN where it is not known or not there.
        taken: [M] its place among the sorted outputs, if not as `choice` has it.
    """
    outputs = sorted(confidence)
    scores = np.stack([confidence[output] for output in outputs], axis=1)  # [M, O]
    scores = np.where(np.stack([np.isfinite(boxes.iou[o]) for o in outputs], 1), scores, np.nan)
    box, column = np.nonzero(np.isfinite(scores))
    best = choice(outputs, scores, boxes.categories) if taken is None else taken
    ious = np.stack([boxes.iou[output] for output in outputs], axis=1)
    of_box = boxes.table.take(pa.array(box))
    columns = {name: of_box[name] for name in of_box.column_names}
    columns |= {
        "teacher": pa.array([outputs[number].teacher for number in column], pa.string()),
        "candidate": pa.array([outputs[number].candidate for number in column], pa.int16()),
        "iou": pa.array(ious[box, column], pa.float32()),
        "confidence": pa.array(scores[box, column], pa.float32()),
        "chosen": pa.array(best[box] == column),
    }
    return pa.table({name: columns[name] for name in GOLD_SCHEMA.names}).cast(GOLD_SCHEMA)
