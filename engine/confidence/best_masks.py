"""The best mask that is known for each box: what is shown to people, who then correct it.

Legend: N boxes of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.outputs import Bools, Floats, as_floats, teachers_of
from engine.policy import Policy
from manifests import schemas
from manifests.dataset import Dataset
from manifests.history import newest
from manifests.kept_masks import aligned_table

_EXPECTED = ("predicted_iou", "stability")


@dataclass(frozen=True, slots=True, kw_only=True)
class BestMasks:
    """One output for each box, where there is one.

    Attributes:
        layers: [N] `masks/<teacher>`, or None.
        candidates: [N] 0: the teacher's own choice, n: its `candidates[n - 1]`.
        expected: [N] expected IoU in [0, 1]: calibrated where there is a confidence layer, else
            predicted IoU times stability, as far as the teacher says them; NaN where nobody does.
    """

    layers: NDArray[np.object_]
    candidates: NDArray[np.int64]
    expected: Floats


def preferred_teachers(dataset: Dataset) -> tuple[str, ...]:
    """The teachers that have drawn something, those that a policy names first.

    The newest filter's policy, then the built-in one, then all others by name.
    """
    drawn = teachers_of(dataset.manifest)
    last = newest(dataset.store, dataset.commit_id, lambda made: made.operation.name == "filter")
    named = last.commit.operation.config.get("teachers", ()) if last else ()
    order = dict.fromkeys((*named, *Policy.load("default").teachers, *drawn))
    return tuple(name for name in order if name in drawn)


def best_masks(
    dataset: Dataset, shard: str, teachers: Sequence[str], *, num_rows: int
) -> BestMasks:
    """By the confidence layer, else by the verdicts, else the first teacher that drew one.

    Args:
        teachers: in order of preference.
        num_rows: the boxes' number.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or has other rows.
    """
    best = BestMasks(
        layers=np.full(num_rows, None, dtype=object),
        candidates=np.zeros(num_rows, dtype=np.int64),
        expected=np.full(num_rows, np.nan, dtype=np.float32),
    )
    if dataset.manifest.get(shard, schemas.CONFIDENCE):
        columns = ["confidence", "teacher", "candidate"]
        table = aligned_table(dataset, shard, schemas.CONFIDENCE, num_rows, columns=columns)
        best.expected[:] = as_floats(table["confidence"])
        _fill(best, dataset, shard, table)
    if dataset.manifest.get(shard, schemas.VERDICTS):
        columns = ["teacher", "candidate"]
        table = aligned_table(dataset, shard, schemas.VERDICTS, num_rows, columns=columns)
        _fill(best, dataset, shard, table)
    for teacher in teachers:
        layer = schemas.masks_layer(teacher)
        if dataset.manifest.get(shard, layer):
            columns = ["status", *_EXPECTED]
            _fill_own(best, aligned_table(dataset, shard, layer, num_rows, columns=columns), layer)
    return best


def _is_open(best: BestMasks) -> Bools:
    """[N] whether a box has no mask yet."""
    return np.array([layer is None for layer in best.layers.tolist()], dtype=bool)


def _fill(best: BestMasks, dataset: Dataset, shard: str, table: pa.Table) -> None:
    """Rows without a mask get the one that a computed layer names, if the shard has its layer."""
    named = np.array(table["teacher"].to_pylist(), dtype=object)
    has_layer = {
        layer: layer != schemas.MASKS_HUMAN and dataset.manifest.get(shard, layer) is not None
        for layer in {*named.tolist()} - {None}
    }
    usable = np.array([has_layer.get(layer, False) for layer in named.tolist()], dtype=bool)
    chosen = usable & _is_open(best)
    best.layers[chosen] = named[chosen]
    best.candidates[chosen] = table["candidate"].to_numpy()[chosen]


def _fill_own(best: BestMasks, masks: pa.Table, layer: str) -> None:
    """Rows without a mask get the teacher's own choice; its opinion counts where none is known."""
    is_ok = np.asarray(pc.equal(masks["status"], schemas.OK))
    best.layers[is_ok & _is_open(best)] = layer
    opinion = np.ones(len(is_ok), dtype=np.float32)
    is_known = np.zeros(len(is_ok), dtype=bool)
    for name in _EXPECTED:
        values = as_floats(masks[name])
        opinion *= np.where(np.isfinite(values), np.clip(values, 0, 1), 1)
        is_known |= np.isfinite(values)
    fits = is_known & np.isnan(best.expected) & np.equal(best.layers, layer)
    best.expected[fits] = opinion[fits]
