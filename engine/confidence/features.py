"""What a calibrator is told about an output: its raw signals, its box, its siblings, its rivals.

Legend: N boxes of a shard, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.confidence.outputs import (
    SIGNALS,
    Floats,
    Output,
    OutputTable,
    as_floats,
    read_outputs,
)
from manifests import schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table

_RAW = (
    "predicted_iou", "stability", "mean_foreground", "box_iou", "outside_fraction", "fill_ratio",
    "border_contact", "edge_alignment", "jitter_iou", "output_iou",
)  # fmt: skip
_SHAPE = (
    "log_components", "log_holes", "log_area", "log_box_area", "box_image_fraction", "log_aspect",
    "area_ratio",
)  # fmt: skip
_AMONG_SIBLINGS = ("is_candidate_1", "is_candidate_2", "lead")
_AMONG_RIVALS = ("agreement_mean", "agreement_max")
_OWN, _BEST = "agreement:", "best_agreement:"


def feature_names(teacher: str, teachers: Sequence[str]) -> tuple[str, ...]:
    """The features of a teacher's outputs where these teachers have drawn.

    `agreement:U` is the IoU with U's own choice, `best_agreement:U` with the most like of U's
    outputs; `lead` is by how much the predicted IoU is above that of the best other output.
    """
    rivals = [name for name in teachers if name != teacher]
    with_rivals = [*_AMONG_RIVALS, *(_OWN + name for name in rivals)] if rivals else []
    return (
        *_RAW, *_SHAPE, *_AMONG_SIBLINGS, *with_rivals, *(_BEST + name for name in rivals)
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOutputs:
    """Everything about a shard that features are made of.

    Attributes:
        categories: [N] names.
        image_rows: [N] rows of the shard's image_index.
        boxes_xyxy: [N, 4]
        sizes_hw: [N, 2] of the images.
        outputs: with the columns SIGNALS.
        agreement: pair of outputs' names -> [N] IoU, NaN where one is not there.
    """

    categories: pa.ChunkedArray
    image_rows: NDArray[np.int64]
    boxes_xyxy: Floats
    sizes_hw: Floats
    outputs: Mapping[Output, OutputTable]
    agreement: Mapping[str, Floats]

    @property
    def num_rows(self) -> int:
        return len(self.categories)


def read_shard(dataset: Dataset, shard: str, teachers: Sequence[str]) -> ShardOutputs:
    """Reads what is there; no mask, no image.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or is not aligned.
    """
    boxes = dataset.table(shard, schemas.BOXES, columns=["category", "box_xyxy", "image_row"])
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=["height", "width"])
    image_rows = boxes["image_row"].to_numpy().astype(np.int64)
    sizes = np.stack([as_floats(index[name]) for name in ("height", "width")], axis=1)
    agreement: dict[str, Floats] = {}
    if dataset.manifest.get(shard, schemas.AGREEMENT):
        table = aligned_table(dataset, shard, schemas.AGREEMENT, boxes.num_rows, columns=None)
        agreement = {name: as_floats(table[name]) for name in table.column_names}
    return ShardOutputs(
        categories=boxes["category"],
        image_rows=image_rows,
        boxes_xyxy=as_floats(boxes["box_xyxy"].combine_chunks().flatten()).reshape(-1, 4),
        sizes_hw=sizes[image_rows],
        outputs=read_outputs(dataset, shard, teachers, SIGNALS, num_rows=boxes.num_rows),
        agreement=agreement,
    )


def features_of(shard: ShardOutputs, output: Output, names: Sequence[str]) -> Floats:
    """[N, F] of one output, in the order of `names`; NaN where there is no such value."""
    table = shard.outputs[output]
    values = {
        **{name: table.numbers(name) for name in _RAW},
        **_shape(shard, table),
        **_siblings(shard, output),
        **_rivals(shard, output),
    }
    found = np.full((shard.num_rows, len(names)), np.nan, np.float32)
    for place, name in enumerate(names):
        if name in values:
            found[:, place] = values[name]
    return found


def _shape(shard: ShardOutputs, table: OutputTable) -> dict[str, Floats]:
    sides = np.maximum(shard.boxes_xyxy[:, 2:] - shard.boxes_xyxy[:, :2], 1e-3)  # [N, 2] w, h
    box_area, area = sides.prod(axis=1), table.numbers("area_px")
    return {
        "log_components": np.log1p(table.numbers("num_components")),
        "log_holes": np.log1p(table.numbers("num_holes")),
        "log_area": np.log1p(area),
        "log_box_area": np.log1p(box_area),
        "box_image_fraction": box_area / shard.sizes_hw.prod(axis=1),
        "log_aspect": np.log(sides[:, 0] / sides[:, 1]),
        "area_ratio": area / box_area,
    }


def _siblings(shard: ShardOutputs, output: Output) -> dict[str, Floats]:
    """Against the same teacher's other outputs."""
    own = shard.outputs[output].numbers("predicted_iou")
    others = [
        table.numbers("predicted_iou")
        for other, table in shard.outputs.items()
        if other.teacher == output.teacher and other != output
    ]
    best = np.fmax.reduce(others) if others else np.full_like(own, np.nan)
    flags = {
        f"is_candidate_{number}": np.full(len(own), output.candidate == number, np.float32)
        for number in (1, 2)
    }
    return {**flags, "lead": own - best}


def _rivals(shard: ShardOutputs, output: Output) -> dict[str, Floats]:
    """Against other teachers' outputs."""
    own: dict[str, Floats] = {}
    best: dict[str, Floats] = {}
    for pair, iou in shard.agreement.items():
        names = schemas.pair_of(pair)
        if output.name not in names:
            continue
        other = Output.of(names[1] if names[0] == output.name else names[0])
        if other.candidate == 0:
            own[_OWN + other.teacher] = iou
        key = _BEST + other.teacher
        best[key] = np.fmax(best[key], iou) if key in best else iou
    if not own:
        return {}
    stacked = np.stack(list(own.values()))  # [rivals, N]
    num_known = np.maximum(np.isfinite(stacked).sum(axis=0), 1)
    mean = np.nansum(stacked, axis=0) / num_known
    any_known = np.isfinite(stacked).any(axis=0)
    return {
        **own, **best,
        "agreement_mean": np.where(any_known, mean, np.nan).astype(np.float32),
        "agreement_max": np.fmax.reduce(stacked),
    }  # fmt: skip
