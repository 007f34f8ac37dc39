"""What a report says of gold: how confidence and truth go together where the truth is known.

Legend: M gold boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.confidence.calibrator import Calibrator
from engine.confidence.chosen import choose_masks
from engine.confidence.gold_finder import GoldFinder, gold_of
from engine.confidence.outputs import Floats, Output, read_outputs
from engine.confidence.roles import CERTIFY
from engine.confidence.tally import NUM_BINS, Tally
from engine.policy import Policy
from engine.report_confidence_survey import MAX_PER_IMAGE, TILES_PER_SHEET, BoxRef
from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import ObjectMissingError

_COLUMNS = ["shard", "row", "image_id", "category", "role", "teacher", "candidate", "iou",
            "confidence", "chosen"]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryGold:
    """Gold of one category: all of it, and that whose mask the policy would keep."""

    num_boxes: int = 0
    num_kept: int = 0
    mean_iou: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Gold boxes whose confidence comes from a calibrator that did not see them.

    Attributes:
        is_certify: it is the gold that certifies; else that which calibrates, out of fold.
        confidence, iou: [M] of the mask that confidence takes.
        predicted_iou: [M] the teacher's own estimate; None where not every mask has one.
    """

    is_certify: bool
    confidence: Floats
    iou: Floats
    predicted_iou: Floats | None


def read_gold_table(dataset: Dataset, calibrator: Calibrator) -> pa.Table | None:
    """GOLD_SCHEMA rows behind a calibrator, as far as their boxes are still what they were.

    None for a prior, and where the rows are not in the store.

    Raises:
        ObjectDamagedError: they cannot be read.
    """
    if calibrator.gold is None:
        return None
    try:
        return gold_of(dataset, calibrator.gold)
    except ObjectMissingError:
        return None  # the calibrator came from elsewhere


def held_out(dataset: Dataset, gold: pa.Table) -> HeldOut | None:
    """The gold that certifies, or else all there is; None for none."""
    taken = gold.filter(gold["chosen"])
    certify = taken.filter(pc.equal(taken["role"], CERTIFY))
    found = certify if certify.num_rows else taken
    if not found.num_rows:
        return None
    return HeldOut(
        is_certify=bool(certify.num_rows),
        confidence=found["confidence"].to_numpy().astype(np.float32),
        iou=found["iou"].to_numpy().astype(np.float32),
        predicted_iou=_predicted(dataset, found),
    )


def _predicted(dataset: Dataset, gold: pa.Table) -> Floats | None:
    """[M] of the masks that gold speaks of, as the commit has them now."""
    found = np.full(gold.num_rows, np.nan, np.float32)
    place = pa.array(np.arange(gold.num_rows))
    for shard, rows in _by_shard(gold.append_column("place", place)):
        boxes = dataset.cell(shard, schemas.BOXES)
        teachers = sorted(set(rows["teacher"].to_pylist()))
        outputs = read_outputs(dataset, shard, teachers, ["predicted_iou"], num_rows=boxes.num_rows)
        for output, table in outputs.items():
            mine = rows.filter(
                pc.and_(
                    pc.equal(rows["teacher"], output.teacher),
                    pc.equal(rows["candidate"], output.candidate),
                )
            )
            values = table.numbers("predicted_iou")
            found[mine["place"].to_numpy()] = values[mine["row"].to_numpy()]
    return None if np.isnan(found).any() else found


def _by_shard(gold: pa.Table) -> Sequence[tuple[str, pa.Table]]:
    shards = gold["shard"].combine_chunks().dictionary_encode()
    codes = np.asarray(shards.indices)
    return [
        (shard, gold.filter(pa.array(codes == code)))
        for code, shard in enumerate(shards.dictionary.to_pylist())
    ]


def gold_by_category(
    dataset: Dataset,
    gold: pa.Table,
    calibrator: Calibrator,
    policy: Policy | None,
    quality: Mapping[str, Any],  # Any: JSON
) -> dict[str, CategoryGold]:
    """Category -> its gold.

    Args:
        policy: by which masks are kept; None: there was no filter, all are.
        quality: of the commit that filtered by it, see `engine.confidence.quality`.
    """
    taken = gold.filter(gold["chosen"])
    if policy is None:
        found = taken.group_by("category").aggregate([([], "count_all"), ("iou", "mean")])
        return {
            row["category"]: CategoryGold(
                num_boxes=row["count_all"], num_kept=row["count_all"], mean_iou=row["iou_mean"]
            )
            for row in found.to_pylist()
        }
    counts = Counter(taken["category"].to_pylist())
    tally, finder = Tally(), GoldFinder(gold)
    for shard in taken["shard"].unique().to_pylist():
        if dataset.manifest.get(shard, schemas.CONFIDENCE) is None:
            continue
        chosen = choose_masks(dataset, shard, policy, calibrator)
        tally.add(chosen)
        finder.add(shard, chosen)
    return _kept_by_category(finder, tally, counts, policy, quality)


def _kept_by_category(
    finder: GoldFinder,
    tally: Tally,
    counts: Mapping[str, int],
    policy: Policy,
    quality: Mapping[str, Any],  # Any: JSON
) -> dict[str, CategoryGold]:
    found = finder.choice(tally)
    overall = round(1000 * (quality.get("threshold") or 0.0))
    gold = {}
    for name, num_boxes in counts.items():
        of_category = quality.get("categories", {}).get(name, {})
        cut = round(1000 * of_category["threshold"]) if of_category else overall
        cut = min(cut, NUM_BINS - 1)
        mine = (found.categories == tally.categories.get(name, -1)) & (found.bins >= cut)
        mean = float(found.iou[mine].mean()) if mine.any() else None
        gold[name] = CategoryGold(num_boxes=num_boxes, num_kept=int(mine.sum()), mean_iou=mean)
    return gold


def overconfident(dataset: Dataset, gold: pa.Table) -> list[BoxRef]:
    """The gold boxes whose mask promises most beyond what it is, few of each image."""
    taken = gold.filter(gold["chosen"])
    excess = taken["confidence"].to_numpy() - taken["iou"].to_numpy()
    numbers = {shard: number for number, shard in enumerate(dataset.manifest.shards())}
    of_image: dict[str, int] = {}
    found: list[BoxRef] = []
    for place in np.argsort(-excess, kind="stable").tolist():
        row = {name: taken[name][place].as_py() for name in _COLUMNS}
        of_image[row["image_id"]] = of_image.get(row["image_id"], 0) + 1
        if of_image[row["image_id"]] > MAX_PER_IMAGE:
            continue
        output = Output(teacher=row["teacher"], candidate=row["candidate"])
        ref = BoxRef(
            shard_number=numbers[row["shard"]], shard=row["shard"], row=row["row"],
            category=row["category"], outputs=(output,), confidence=(row["confidence"],),
        )  # fmt: skip
        found.append(ref)
        if len(found) == TILES_PER_SHEET:
            break
    return found
