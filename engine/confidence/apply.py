"""A calibrator applied: the expected IoU of every output of a shard, and the best of each box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.confidence.calibrator import Calibrator, Head
from engine.confidence.features import ShardOutputs, features_of
from engine.confidence.outputs import Floats, Output
from manifests import schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Expected IoU of a shard's outputs.

    Attributes:
        outputs: the O outputs, in the order of the columns.
        values: [N, O], NaN where an output is not there; that of the output that is taken is
            already mapped by `Calibrator.chosen`, and the others of its box are moved by as much.
        taken: [N] its column; 0 for a box without any output.
    """

    outputs: tuple[Output, ...]
    values: Floats
    taken: NDArray[np.int64]


def score(calibrator: Calibrator, shard: ShardOutputs) -> Scores:
    """Expected IoU of every output whose teacher the calibrator knows."""
    outputs = tuple(sorted(out for out in shard.outputs if out.teacher in calibrator.heads))
    columns = []
    shifts: dict[str, Floats] = {}
    for output in outputs:
        head = calibrator.heads[output.teacher]
        if output.teacher not in shifts:
            shifts[output.teacher] = category_shifts(head, shard.categories)
        expected = head.expected_iou(
            features_of(shard, output, head.features), shifts[output.teacher]
        )
        columns.append(np.where(shard.outputs[output].has_mask, expected, np.nan))
    values = np.stack(columns, 1) if columns else np.zeros((shard.num_rows, 0))
    categories = shard.categories.combine_chunks().dictionary_encode()
    return scores_of(calibrator, outputs, values.astype(np.float32), categories)


def scores_of(
    calibrator: Calibrator,
    outputs: tuple[Output, ...],
    values: Floats,
    categories: pa.DictionaryArray,
) -> Scores:
    """From the heads' [N, O] expected IoUs and the [N] boxes' categories."""
    taken = calibrator.choice(outputs, values, categories)
    if not outputs:
        return Scores(outputs=outputs, values=values, taken=taken)
    best = values[np.arange(len(values)), taken]
    shift = np.nan_to_num(calibrator.chosen(best) - best)
    moved: Floats = np.clip(values + shift[:, None], 0, 1).astype(np.float32)
    return Scores(outputs=outputs, values=moved, taken=taken)


def category_shifts(head: Head, categories: pa.ChunkedArray) -> Floats:
    """[N] what is added for each row's category; 0 for one that the head does not know."""
    encoded = categories.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    shifts = np.array([head.categories.get(word, 0.0) for word in words] or [0.0], np.float32)
    of_rows: Floats = shifts[np.asarray(encoded.indices)]
    return of_rows


def confidence_table(scores: Scores) -> pa.Table:
    """The rows of a `confidence` cell: CONFIDENCE_SCHEMA, and a column for each output."""
    size = len(scores.values)
    taken, nothing = scores.taken, np.full(size, np.nan, np.float32)
    confidence = scores.values[np.arange(size), taken] if scores.outputs else nothing
    has_mask = np.isfinite(confidence)
    layers = [schemas.masks_layer(output.teacher) for output in scores.outputs]
    candidates = np.array([output.candidate for output in scores.outputs] or [0], np.int16)
    columns: dict[str, pa.Array] = {
        "confidence": pa.array(confidence, pa.float32(), mask=~has_mask),
        "teacher": _words(layers, taken, has_mask),
        "candidate": pa.array(np.where(has_mask, candidates[taken], 0).astype(np.int16)),
    }
    for number, output in enumerate(scores.outputs):
        column = scores.values[:, number]
        columns[output.name] = pa.array(column, pa.float32(), mask=np.isnan(column))
    return pa.table(columns)


def _words(words: list[str], codes: NDArray[np.int64], known: NDArray[np.bool_]) -> pa.StringArray:
    places = pa.array(codes if words else np.zeros(len(codes), np.int64), mask=~known)
    return pa.array(words or [""], pa.string()).take(places)
