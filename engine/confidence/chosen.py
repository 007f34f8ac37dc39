"""The mask that confidence chooses for every box of a shard, and which rule it breaks.

Legend: N boxes of the shard, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.calibrator import Calibrator
from engine.confidence.outputs import Bools, Floats, Output, as_floats, read_outputs
from engine.policy import CONFIDENCE, IMAGE_FRACTION, RULES, Policy, judge
from engine.verdicts import is_drawn, signal_numbers, why_none_drawn
from manifests import schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """See the module.

    Attributes:
        categories: [N] dictionary-encoded names.
        is_human: [N] the box has a human mask.
        confidence: [N] of the chosen mask, NaN where there is none.
        outputs: what `taken` counts.
        taken: [N] place in `outputs`; -1 where there is none.
        reason: [N] the first rule that the chosen mask breaks, or why there is none; else null.
    """

    categories: pa.DictionaryArray
    is_human: Bools
    confidence: Floats
    outputs: tuple[Output, ...]
    taken: Ints
    reason: pa.StringArray

    @property
    def passes(self) -> Bools:
        """[N] there is a mask, and it breaks no rule."""
        passes: Bools = np.isfinite(self.confidence) & np.asarray(pc.is_null(self.reason))
        return passes


def choose_masks(dataset: Dataset, shard: str, policy: Policy, calibrator: Calibrator) -> Chosen:
    """Reads the confidence layer, and of the masks what the policy's rules need.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or is not aligned.
    """
    names = dataset.table(shard, schemas.BOXES, columns=["category"])["category"]
    categories = names.combine_chunks().dictionary_encode()
    size = len(categories)
    outputs, taken, confidence = _taken(dataset, shard, policy, calibrator, categories)
    reason = judge(
        _signals(dataset, shard, policy, outputs, taken, confidence), categories, policy
    )  # fmt: skip
    has_none = ~np.isfinite(confidence)
    if has_none.any():
        # A prior's base may be a teacher that has not drawn here.
        known = sorted(calibrator.heads, key=lambda name: name != calibrator.choice.base.teacher)
        why = _why_none(dataset, shard, [*policy.teachers, *known][0], size)
        reason = pc.if_else(pa.array(has_none), why, reason)
    return Chosen(
        categories=categories, is_human=_is_human(dataset, shard, size), confidence=confidence,
        outputs=outputs, taken=taken, reason=reason,
    )  # fmt: skip


def _taken(
    dataset: Dataset,
    shard: str,
    policy: Policy,
    calibrator: Calibrator,
    categories: pa.DictionaryArray,
) -> tuple[tuple[Output, ...], Ints, Floats]:
    size = len(categories)
    if not policy.teachers:
        return _taken_of_all(dataset, shard, size)
    table = aligned_table(dataset, shard, schemas.CONFIDENCE, size, columns=None)
    found = [Output.of(name) for name in table.column_names[len(schemas.CONFIDENCE_SCHEMA) :]]
    outputs = tuple(output for output in found if output.teacher in policy.teachers)
    if not outputs:
        return (), np.full(size, -1, np.int64), np.full(size, np.nan, np.float32)
    values = np.stack([as_floats(table[output.name]) for output in outputs], axis=1)
    taken = calibrator.choice(outputs, values, categories)
    confidence = values[np.arange(size), taken]
    return outputs, np.where(np.isfinite(confidence), taken, -1), confidence


def _taken_of_all(
    dataset: Dataset, shard: str, size: int
) -> tuple[tuple[Output, ...], Ints, Floats]:
    """The choice that the layer itself has."""
    columns = ["confidence", "teacher", "candidate"]
    table = aligned_table(dataset, shard, schemas.CONFIDENCE, size, columns=columns)
    teachers = table["teacher"].combine_chunks().dictionary_encode()
    words = teachers.dictionary.to_pylist()
    code = teachers.indices.fill_null(-1).to_numpy().astype(np.int64)
    candidate = table["candidate"].to_numpy().astype(np.int64)
    span = int(candidate.max(initial=0)) + 1
    places, taken = np.unique(np.where(code < 0, -1, code * span + candidate), return_inverse=True)
    prefix = schemas.masks_layer("")
    outputs = tuple(
        Output(teacher=words[place // span].removeprefix(prefix), candidate=int(place % span))
        for place in places.tolist()
        if place >= 0
    )
    if len(places) and places[0] < 0:
        taken = taken - 1
    return outputs, taken.astype(np.int64), as_floats(table["confidence"])


def _signals(
    dataset: Dataset,
    shard: str,
    policy: Policy,
    outputs: Sequence[Output],
    taken: Ints,
    confidence: Floats,
) -> Mapping[str, Floats | NDArray[np.float64]]:
    """Column of a rule that the policy has -> [N] values of the chosen masks."""
    tables = (policy.rules, *policy.categories.values())
    wanted = {RULES[name].column for table in tables for name in table}
    columns = sorted(wanted - {IMAGE_FRACTION, CONFIDENCE} | ({"area_px"} & _area(wanted)))
    signals: dict[str, Floats | NDArray[np.float64]] = {
        name: np.full(len(taken), np.nan, np.float64) for name in columns
    }
    if columns:
        teachers = sorted({output.teacher for output in outputs})
        tables_of = read_outputs(dataset, shard, teachers, columns, num_rows=len(taken))
        for place, output in enumerate(outputs):
            mine = taken == place
            for name in columns:
                values = signal_numbers(pa.chunked_array([tables_of[output].columns[name]]))
                signals[name][mine] = values[mine]
    if IMAGE_FRACTION in wanted:
        signals[IMAGE_FRACTION] = signals["area_px"] / _num_pixels(dataset, shard)
    signals[CONFIDENCE] = confidence
    return signals


def _area(wanted: set[str]) -> set[str]:
    return {"area_px"} if IMAGE_FRACTION in wanted else set()


def _num_pixels(dataset: Dataset, shard: str) -> Floats:
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=["height", "width"])
    rows = dataset.table(shard, schemas.BOXES, columns=["image_row"])["image_row"].to_numpy()
    pixels: Floats = (as_floats(index["height"]) * as_floats(index["width"]))[rows]
    return pixels


def _is_human(dataset: Dataset, shard: str, size: int) -> Bools:
    if dataset.manifest.get(shard, schemas.MASKS_HUMAN) is None:
        return np.zeros(size, dtype=bool)
    layer = schemas.MASKS_HUMAN
    return is_drawn(aligned_table(dataset, shard, layer, size, columns=["status"]))


def _why_none(dataset: Dataset, shard: str, teacher: str, size: int) -> pa.StringArray:
    layer = schemas.masks_layer(teacher)
    if dataset.manifest.get(shard, layer) is None:
        return pa.array(["not_labelled"] * size, pa.string())
    return why_none_drawn(aligned_table(dataset, shard, layer, size, columns=["status", "reason"]))
