"""Filter by confidence: the masks that are chosen, the line, and the verdicts of every shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from engine.confidence.calibrator import Calibrator
from engine.confidence.chosen import Chosen, choose_masks
from engine.confidence.gold import GOLD_SCHEMA
from engine.confidence.gold_finder import GoldFinder, gold_of
from engine.confidence.outputs import Bools, Floats, teachers_of
from engine.confidence.plan import Plan, keeps, make_plan
from engine.confidence.quality import quality_of
from engine.confidence.tally import Tally
from engine.policy import RULES, Policy
from engine.verdicts import NULL, Words
from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.in_parallel import in_parallel, threads_for
from manifests.manifest import Cell

LOW_CONFIDENCE = RULES["min_confidence"].reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Everything that decides the verdicts of a commit by a policy with confidence.

    Attributes:
        tally: what the policy chooses, over all shards.
        calibrator_id: object id of `calibrator`.
        quality: see `quality_of`.
    """

    policy: Policy
    calibrator: Calibrator
    calibrator_id: str
    tally: Tally
    plan: Plan
    quality: Mapping[str, Any]  # Any: JSON

    @property
    def line(self) -> dict[str, Any]:  # Any: JSON
        """What of it belongs into a shard's work key: where each category is cut."""
        floors = {name: int(self.plan.floors[n]) for name, n in self.tally.categories.items()}
        return {"threshold": self.plan.threshold, "floors": floors}

    def verdicts(self, dataset: Dataset, shard: str) -> pa.Table:
        """VERDICTS_SCHEMA rows of a shard."""
        chosen = choose_masks(dataset, shard, self.policy, self.calibrator)
        names = chosen.categories.dictionary.to_pylist()
        numbers = np.array([self.tally.categories[name] for name in names] or [0], np.int64)
        codes = numbers[np.asarray(chosen.categories.indices)]
        is_enough = keeps(self.plan, chosen.confidence, codes)
        return _verdicts(chosen, is_enough, self.policy)


def open_judge(dataset: Dataset, policy: Policy) -> Judge:
    """Looks all shards over once, and draws the line.

    Raises:
        InputError: there is no confidence, it is of other masks, or no threshold meets the target.
        ObjectMissingError, ObjectDamagedError: a cell, the calibrator or the gold cannot be read.
    """
    calibrator_id = calibrator_of(dataset)
    calibrator = Calibrator.load(dataset.store, calibrator_id)
    _check_current(dataset, calibrator)
    if unknown := sorted(set(policy.teachers) - set(calibrator.heads)):
        raise InputError(
            f"policy '{policy.name}' wants masks of teacher '{unknown[0]}', but confidence is "
            f"calibrated for {', '.join(sorted(calibrator.heads))}; run 'maskmill calibrate'"
        )
    needs_gold = policy.target is not None and policy.target.max_risk is not None
    table = gold_of(dataset, calibrator.gold) if needs_gold else GOLD_SCHEMA.empty_table()
    tally, gold = Tally(), GoldFinder(table)
    choose = partial(_chosen, dataset, policy, calibrator)
    shards = _shards_with_boxes(dataset)
    for shard, chosen in in_parallel(choose, shards, num_threads=threads_for(dataset.store)):
        tally.add(chosen)
        gold.add(shard, chosen)
    plan = make_plan(policy, tally, gold.choice(tally))
    return Judge(
        policy=policy, calibrator=calibrator, calibrator_id=calibrator_id, tally=tally, plan=plan,
        quality=quality_of(policy, plan, tally, calibrator, calibrator_id),
    )  # fmt: skip


def calibrator_of(dataset: Dataset) -> str:
    """The object id of the calibrator that made the confidence of every shard.

    Raises:
        InputError: shards lack it, or have it from different ones.
    """
    shards = _shards_with_boxes(dataset)
    cells = [dataset.manifest.get(shard, schemas.CONFIDENCE) for shard in shards]
    lacking = [shard for shard, cell in zip(shards, cells, strict=True) if cell is None]
    made_by = sorted({cell.inputs[-1] for cell in cells if cell})
    if not made_by or lacking:
        some = f"{len(lacking):,} of {len(shards):,} shards lack it" if made_by else "there is none"
        raise InputError(
            f"a policy by confidence expects the layer 'confidence' for every shard, but {some}; "
            "run 'maskmill calibrate' first"
        )
    if len(made_by) > 1:
        raise InputError(
            f"the confidence of different shards comes from {len(made_by)} calibrators "
            f"({', '.join(name[:12] for name in made_by[:3])}); run 'maskmill calibrate' so that "
            "it means the same everywhere"
        )
    return made_by[0]


def _check_current(dataset: Dataset, calibrator: Calibrator) -> None:
    """Refuses confidence of masks that have been replaced since."""
    shards, teachers = _shards_with_boxes(dataset), sorted(calibrator.heads)
    layers = (schemas.BOXES, *map(schemas.masks_layer, teachers), schemas.AGREEMENT)
    old = 0
    for shard in shards:
        there = [dataset.manifest.get(shard, layer) for layer in layers]
        made_of = dataset.cell(shard, schemas.CONFIDENCE).inputs[:-1]
        old += set(made_of) != {cell.object_id for cell in there if cell}
    if old:
        raise InputError(
            f"the confidence of {old:,} of {len(shards):,} shards was computed from other boxes, "
            "masks or agreement than are there now; run 'maskmill calibrate' again"
        )


def input_cells(dataset: Dataset, shard: str, policy: Policy) -> Iterator[tuple[str, Cell | None]]:
    """Layer -> cell, of what verdicts by confidence are made of."""
    yield schemas.BOXES, dataset.cell(shard, schemas.BOXES)
    yield schemas.CONFIDENCE, dataset.manifest.get(shard, schemas.CONFIDENCE)
    # Rules read their signals, and why a box has none may change where confidence does not.
    for name in teachers_of(dataset.manifest, policy.teachers):
        yield schemas.masks_layer(name), dataset.manifest.get(shard, schemas.masks_layer(name))
    if policy.use_human:
        yield schemas.MASKS_HUMAN, dataset.manifest.get(shard, schemas.MASKS_HUMAN)


def _chosen(
    dataset: Dataset, policy: Policy, calibrator: Calibrator, shard: str
) -> tuple[str, Chosen]:
    return shard, choose_masks(dataset, shard, policy, calibrator)


def _shards_with_boxes(dataset: Dataset) -> Sequence[str]:
    return [cell.shard for cell in dataset.manifest.of_layer(schemas.BOXES) if cell.num_rows]


def _verdicts(chosen: Chosen, is_enough: Bools, policy: Policy) -> pa.Table:
    words = Words()
    is_human = chosen.is_human & policy.use_human
    keep = is_human | (chosen.passes & is_enough)
    reason = words.codes(chosen.reason)
    low = np.int32(words.code(LOW_CONFIDENCE))
    reason = np.where(chosen.passes & ~is_enough, low, reason)
    layers = [words.code(schemas.masks_layer(output.teacher)) for output in chosen.outputs]
    teacher = np.where(chosen.taken < 0, NULL, np.array([*layers, NULL], np.int32)[chosen.taken])
    teacher = np.where(is_human, words.code(schemas.MASKS_HUMAN), teacher)
    candidates = np.array([*(output.candidate for output in chosen.outputs), 0], np.int16)
    candidate = np.where(is_human, 0, candidates[chosen.taken])
    weight = np.where(is_human, 1.0, _weights(chosen.confidence, policy))
    columns = [
        pa.array(keep),
        words.strings(np.where(keep, NULL, reason).astype(np.int32)),
        words.strings(teacher.astype(np.int32)),
        pa.array(candidate.astype(np.int16)),
        pa.array(np.where(keep, weight, 0.0).astype(np.float32)),
    ]
    return pa.table(columns, schema=schemas.VERDICTS_SCHEMA)


def _weights(confidence: Floats, policy: Policy) -> Floats:
    if policy.weights is None or policy.weights.by == "none":
        return np.ones_like(confidence)
    weights: Floats = np.nan_to_num(confidence) ** np.float32(policy.weights.power)
    return weights
