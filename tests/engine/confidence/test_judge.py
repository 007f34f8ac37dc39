"""Filtering by confidence on a dataset whose confidence is the truth: what is kept, and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.confidence.agree import AgreeConfig, agree
from engine.confidence.judge import LOW_CONFIDENCE, calibrator_of, open_judge
from engine.filter import FilterConfig, filter_masks
from engine.policy import Floor, Policy, Target, Weights
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, operation
from manifests.errors import InputError, NothingToCommitError
from manifests.ledger import Ledger
from manifests.refs import Refs
from manifests.results import ResultRecord
from manifests.writer import Writer
from tests.engine.confidence.known_confidence import FULL_AREA, knowing
from tests.engine.confidence.planted_masks import Plan, memory, planted, replaced, rows_of

Row = dict[str, Any]
PLAN = Plan(
    num_images=120, per_image=3, num_shards=3, is_gold=lambda number: number % 3 != 0,
    missing=frozenset({("a", 0), ("b", 0), ("b", 1)}), categories=("shoe", "shoe", "bag"),
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """360 boxes, 240 of them gold, half of these certify; confidence is IoU."""
    return knowing(planted(memory("judge"), PLAN))


def policy(**fields: Any) -> Policy:
    return Policy(name="test", **fields)


def run(dataset: Dataset, chosen: Policy) -> Dataset:
    """Filtered on a branch of its own."""
    refs = Refs(dataset.store)
    branch = f"work-{len(refs.branches())}"
    refs.create_branch(branch, dataset.commit_id)
    return Dataset(
        dataset.store, filter_masks(dataset.store, FilterConfig(policy=chosen, branch=branch))
    )


def joined(dataset: Dataset) -> list[Row]:
    """Verdicts beside what they are made of, with the true IoU of the mask that was judged."""
    names = (schemas.BOXES, schemas.CONFIDENCE, "masks/a", "masks/b", schemas.MASKS_HUMAN)
    tables = [rows_of(dataset, name) for name in (*names, schemas.VERDICTS)]
    found = []
    for box, scored, a, b, human, verdict in zip(*tables, strict=True):
        iou = None
        if verdict["teacher"] in ("masks/a", "masks/b"):
            own = {"masks/a": a, "masks/b": b}[verdict["teacher"]]
            mask = own["candidates"][verdict["candidate"] - 1] if verdict["candidate"] else own
            iou = mask["area_px"] / FULL_AREA
        found.append(
            {
                **verdict, "category": box["category"], "confidence": scored["confidence"],
                "is_human": human["status"] == "ok", "iou": iou,
            }
        )  # fmt: skip
    return found


def others(rows: list[Row]) -> list[Row]:
    """Rows without a human mask."""
    return [row for row in rows if not row["is_human"]]


# -- what is kept --------------------------------------------------------------------------------


def test_a_mean_target_keeps_the_most_confident_and_says_what_they_are_worth(
    dataset: Dataset,
) -> None:
    made = run(dataset, policy(target=Target(mean_iou=0.9)))
    rows = others(joined(made))
    kept = [row for row in rows if row["keep"]]
    quality = made.commit.quality
    assert quality is not None
    assert quality["num_rows"] == sum(row["confidence"] is not None for row in rows) == 119
    assert quality["num_kept"] == len(kept)
    assert 0 < len(kept) < 119
    threshold = quality["threshold"]
    for row in rows:
        if row["confidence"] is None:
            assert (row["keep"], row["reason"], row["teacher"]) == (False, "crowd", None)
            continue
        assert row["keep"] == (row["confidence"] >= np.float32(threshold))
        assert row["reason"] == (None if row["keep"] else LOW_CONFIDENCE)
        assert row["iou"] == pytest.approx(row["confidence"])
        assert row["weight"] == float(row["keep"])
    mean = np.mean([row["iou"] for row in kept])
    assert mean >= 0.9
    assert quality["expected_mean_iou"] == pytest.approx(mean, abs=1e-4)
    next_ones = [row["iou"] for row in rows if row["iou"] is not None and not row["keep"]]
    assert np.mean([*(row["iou"] for row in kept), max(next_ones)]) < mean


def test_human_masks_are_kept_as_they_are_and_count_1(dataset: Dataset) -> None:
    chosen = policy(target=Target(mean_iou=0.95), weights=Weights(by="confidence"))
    rows = joined(run(dataset, chosen))
    human = [row for row in rows if row["is_human"]]
    assert len(human) == 240
    for row in human:
        assert (row["keep"], row["teacher"], row["candidate"]) == (True, "masks/human", 0)
        assert row["weight"] == 1


def test_without_human_masks_teachers_are_judged_there_too(dataset: Dataset) -> None:
    made = run(dataset, policy(target=Target(mean_iou=0.9), use_human=False))
    rows, quality = joined(made), made.commit.quality
    assert quality is not None
    assert {row["teacher"] for row in rows} <= {"masks/a", "masks/b", None}
    for row in rows:
        if row["confidence"] is not None:
            assert row["keep"] == (row["confidence"] >= np.float32(quality["threshold"]))
    # The line is still drawn by the boxes that people did not draw.
    assert quality["num_rows"] == 119


def test_a_certificate_is_true_of_what_is_kept(dataset: Dataset) -> None:
    made = run(dataset, policy(target=Target(max_risk=0.1)))
    rows, quality = others(joined(made)), made.commit.quality
    assert quality is not None
    kept = [row for row in rows if row["keep"]]
    certificate = quality["certificate"]
    assert certificate["population"] == len(kept) == quality["num_kept"]
    assert np.mean([row["iou"] < 0.7 for row in kept]) <= 0.1
    assert certificate["threshold"] == quality["threshold"]
    assert certificate["upper_bound"] <= 0.1
    assert certificate["num_gold"] >= 29
    assert certificate["num_images"] <= certificate["num_gold"]
    assert certificate["design_effect"] >= 1
    # Everything that is good is kept: gold knows it, and nothing is bad above 0.7.
    assert all(row["keep"] for row in rows if (row["iou"] or 0) >= 0.7)


@pytest.mark.parametrize("floor", [Floor(min_share=0.3), Floor(min_masks=30)])
def test_a_floor_keeps_its_part_of_each_category(dataset: Dataset, floor: Floor) -> None:
    made = run(dataset, policy(target=Target(mean_iou=0.96), floor=floor))
    quality = made.commit.quality
    assert quality is not None
    rows = [row for row in others(joined(made)) if row["confidence"] is not None]
    for name in ("shoe", "bag"):
        mine = [row for row in rows if row["category"] == name]
        kept = [row["confidence"] for row in mine if row["keep"]]
        assert len(kept) >= max(len(mine) * floor.min_share, floor.min_masks)
        assert min(kept) >= max(row["confidence"] for row in mine if not row["keep"])
        said = quality["categories"][name]
        assert (said["num_rows"], said["num_kept"]) == (len(mine), len(kept))
        assert said["expected_mean_iou"] == pytest.approx(np.mean(kept), abs=1e-4)
        assert min(kept) >= np.float32(said["threshold"])
    if floor.min_masks:  # 30 of 40 bags are more than the target would keep, 30 of 79 shoes not
        cuts = [quality["categories"][name]["threshold"] for name in ("bag", "shoe")]
        assert cuts[0] < cuts[1] <= quality["threshold"]


def test_weights_are_powers_of_confidence_and_take_the_place_of_drops(dataset: Dataset) -> None:
    weights = Weights(by="confidence", power=2.0)
    made = run(dataset, policy(weights=weights, rules={"min_stability": 0.2}))
    rows = others(joined(made))
    for row in rows:
        if row["confidence"] is None or row["reason"] == "low_stability":
            assert (row["keep"], row["weight"]) == (False, 0)
        else:
            assert row["keep"]
            assert row["weight"] == pytest.approx(row["confidence"] ** 2)
    assert {row["reason"] for row in rows} == {None, "low_stability", "crowd"}
    quality = made.commit.quality
    assert quality is not None
    assert quality["num_kept"] == sum(row["keep"] for row in rows)


def test_the_line_is_the_same_for_all_shards_and_verdicts_balance(dataset: Dataset) -> None:
    made = run(dataset, policy(target=Target(mean_iou=0.9)))
    made.commit.ledger.check()
    cells = made.manifest.of_layer(schemas.VERDICTS)
    assert len(cells) == 3
    assert sum(cell.statistics["kept"] for cell in cells) == sum(
        row["keep"] for row in joined(made)
    )
    for shard in made.manifest.shards():
        assert made.table(shard, schemas.VERDICTS).schema.equals(schemas.VERDICTS_SCHEMA)


# -- again ---------------------------------------------------------------------------------------


def test_the_same_policy_again_has_nothing_to_commit_unless_it_promises_something_else(
    dataset: Dataset,
) -> None:
    made = run(dataset, policy(target=Target(max_risk=0.1)))
    with pytest.raises(NothingToCommitError):
        run(made, policy(target=Target(max_risk=0.1)))
    again = run(made, policy(target=Target(max_risk=0.1, delta=0.04)))
    assert again.manifest.of_layer("verdicts") == made.manifest.of_layer("verdicts")
    assert again.commit.quality != made.commit.quality


def test_rules_on_signals_are_judged_again_when_masks_change(dataset: Dataset) -> None:
    """Confidence may be the same bytes: verdicts must still be made of the new masks."""
    own = knowing(planted(memory("signals"), PLAN))
    chosen = policy(target=Target(mean_iou=0.5), rules={"min_fill_ratio": 0.1})
    first = run(own, chosen)
    replaced(own.store, "masks/b", lambda row: {"fill_ratio": 0.0})
    changed = knowing(Dataset.open(own.store))
    again = run(changed, chosen)
    cells = [made.manifest.of_layer(schemas.CONFIDENCE) for made in (own, changed)]
    assert [cell.object_id for cell in cells[0]] == [cell.object_id for cell in cells[1]]
    mine = [row["reason"] for row in joined(again) if row["teacher"] == "masks/b"]
    assert set(mine) == {"low_fill_ratio"}
    assert joined(first) != joined(again)


def test_finished_shards_are_found(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import filter as module

    chosen = policy(target=Target(mean_iou=0.8))
    first = run(dataset, chosen)

    def never(*args: Any) -> ResultRecord:  # Any: whatever it is called with
        raise AssertionError("verdicts were written again")

    monkeypatch.setattr(module, "write_cell", never)
    assert run(dataset, chosen).manifest.of_layer("verdicts") == first.manifest.of_layer("verdicts")


# -- refusals ------------------------------------------------------------------------------------


def test_no_confidence_at_all_and_not_of_every_shard(dataset: Dataset) -> None:
    bare = planted(memory("bare"), Plan(num_images=2))
    with pytest.raises(InputError, match=r"expects the layer 'confidence' .* there is none; run"):
        run(bare, policy(target=Target(mean_iou=0.5)))
    shard = dataset.manifest.shards()[1]
    lacking = Dataset(dataset.store, dataset.commit_id)
    lacking.manifest = dataset.manifest.without(shard, schemas.CONFIDENCE)
    with pytest.raises(InputError, match=r"1 of 3 shards lack it; run 'maskmill calibrate' first"):
        open_judge(lacking, policy(target=Target(mean_iou=0.5)))


def test_confidence_of_different_calibrators_is_refused(dataset: Dataset) -> None:
    first, second, _ = dataset.manifest.shards()
    cells = []
    for shard, calibrator in ((first, "ab" * 32), (second, "cd" * 32)):
        cell = dataset.cell(shard, schemas.CONFIDENCE)
        cells.append(replace(cell, inputs=(*cell.inputs[:-1], calibrator)))
    mixed = Dataset(dataset.store, dataset.commit_id)
    mixed.manifest = dataset.manifest.with_cells(cells)
    with pytest.raises(InputError, match=r"comes from 3 calibrators \(.*abababababab.*\); run"):
        calibrator_of(mixed)


def test_a_teacher_that_is_not_calibrated_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"'z', but confidence is calibrated for a, b; run"):
        open_judge(dataset, policy(teachers=("a", "z"), target=Target(mean_iou=0.5)))


@pytest.mark.parametrize("layer", ["masks/b", "agreement"])
def test_confidence_of_masks_that_were_replaced_is_refused(layer: str) -> None:
    """A certificate would speak of masks that nobody has judged."""
    dataset = knowing(planted(memory("old"), Plan(num_images=30, is_gold=lambda n: n % 2 == 0)))
    if layer == "agreement":
        agree(dataset.store, AgreeConfig())
    else:
        replaced(dataset.store, layer, lambda row: {"stability": 0.25})
    old = Dataset.open(dataset.store)
    message = r"confidence of 2 of 2 shards was computed from other boxes, masks or agreement"
    with pytest.raises(InputError, match=message):
        run(old, policy(target=Target(mean_iou=0.5)))
    assert run(knowing(old), policy(target=Target(mean_iou=0.5)))


def test_a_policy_without_confidence_asks_for_none() -> None:
    bare = planted(memory("without"), Plan(num_images=2))
    made = run(bare, policy(teachers=("a",), rules={"min_box_iou": 0.5}))
    assert not made.commit.quality


def test_empty_shards_are_no_trouble() -> None:
    plan = Plan(num_images=4, per_image=1, is_gold=lambda number: False)
    dataset = planted(memory("empty"), plan)
    shard, store = dataset.manifest.shards()[0], dataset.store
    cells = [
        write_cell(store, dataset.table(shard, layer).slice(0, 0), shard=shard, layer=layer)
        for layer in ("boxes", "masks/a", "masks/b")
    ]
    Writer(store, "main").commit(
        dataset.manifest.with_cells(cells), operation=operation("test", version=1, config={}),
        ledger=Ledger(), message="emptied",
    )  # fmt: skip
    made = run(knowing(Dataset.open(store), is_prior=True), policy(target=Target(mean_iou=0.1)))
    assert sorted(cell.num_rows for cell in made.manifest.of_layer("verdicts")) == [0, 2]
