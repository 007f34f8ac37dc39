"""What confidence chooses for a box, whose signals its rules read, and why a box has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.confidence.chosen import Chosen, choose_masks
from engine.confidence.outputs import Output
from engine.policy import Policy, Target
from manifests import schemas
from manifests.dataset import Dataset
from tests.engine.confidence.known_confidence import calibrator_in, knowing, true_ious
from tests.engine.confidence.planted_masks import Plan, memory, planted

NONE = frozenset({("a", 3), ("b", 3), ("a", 7)})
A, B = Output.of("a"), Output.of("b")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """40 boxes in one shard, a third of the images gold; nobody drew box 3, `b` alone box 7."""
    plan = Plan(
        num_images=10, per_image=4, num_shards=1, missing=NONE,
        is_gold=lambda number: number % 3 == 0,
    )  # fmt: skip
    return knowing(planted(memory("chosen"), plan))


def policy(**fields: Any) -> Policy:
    fields.setdefault("target", Target(mean_iou=0.5))
    return Policy(name="test", **fields)


def choose(dataset: Dataset, chosen: Policy) -> Chosen:
    [shard] = dataset.manifest.shards()
    return choose_masks(dataset, shard, chosen, calibrator_in(dataset))


def names(found: Chosen) -> list[str | None]:
    return [None if place < 0 else found.outputs[place].name for place in found.taken.tolist()]


def layer(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    [shard] = dataset.manifest.shards()
    rows: list[dict[str, Any]] = dataset.table(shard, name).to_pylist()
    return rows


def mask_of(dataset: Dataset, row: int, name: str) -> dict[str, Any]:
    teacher, candidate = schemas.output_of(name)
    own = layer(dataset, schemas.masks_layer(teacher))[row]
    found: dict[str, Any] = own["candidates"][candidate - 1] if candidate else own
    return found


def test_without_teachers_it_is_the_layers_own_choice(dataset: Dataset) -> None:
    found = choose(dataset, policy())
    rows = layer(dataset, schemas.CONFIDENCE)
    expected = [
        row["teacher"]
        and schemas.output_name(row["teacher"].removeprefix("masks/"), row["candidate"])
        for row in rows
    ]
    assert names(found) == expected
    assert len({*names(found)} - {None}) == 4  # every output somewhere, or the test is too easy
    confidence = [np.nan if row["confidence"] is None else row["confidence"] for row in rows]
    np.testing.assert_array_equal(found.confidence, np.array(confidence, np.float32))


def test_with_all_teachers_named_the_choice_is_the_same(dataset: Dataset) -> None:
    assert names(choose(dataset, policy(teachers=("a", "b")))) == names(choose(dataset, policy()))
    assert names(choose(dataset, policy(teachers=("b", "a")))) == names(choose(dataset, policy()))


def test_of_some_teachers_the_rest_is_never_taken(dataset: Dataset) -> None:
    [shard] = dataset.manifest.shards()
    outputs, values = true_ious(dataset, shard)
    found = choose(dataset, policy(teachers=("b",)))
    assert names(found) == [None if row == 3 else "b" for row in range(40)]
    np.testing.assert_array_equal(found.confidence, values[:, outputs.index(B)])
    of_a = choose(dataset, policy(teachers=("a",)))
    assert {name for name in names(of_a) if name} == {"a", "a.1", "a.2"}
    assert [row for row, name in enumerate(names(of_a)) if name is None] == [3, 7]
    # The base stays, unless another is better by the margin.
    for row, name in enumerate(names(of_a)):
        if name and name != "a":
            own = values[row, outputs.index(A)]
            assert values[row, outputs.index(Output.of(name))] > own + np.float32(0.1)


def test_humans_are_marked_and_do_not_change_what_is_chosen(dataset: Dataset) -> None:
    found = choose(dataset, policy())
    expected = [row["status"] == "ok" for row in layer(dataset, schemas.MASKS_HUMAN)]
    assert found.is_human.tolist() == expected
    assert 0 < sum(expected) < 40


def test_a_box_without_a_mask_says_why(dataset: Dataset) -> None:
    for teachers in ((), ("a",), ("a", "b")):
        found = choose(dataset, policy(teachers=teachers))
        reasons = found.reason.to_pylist()
        assert reasons[3] == "crowd"
        assert reasons[7] == ("crowd" if teachers == ("a",) else None)
        assert not found.passes[3]
    passes = choose(dataset, policy()).passes
    assert passes.sum() == 39


def test_rules_read_the_signals_of_the_mask_that_is_taken(dataset: Dataset) -> None:
    rules = {"min_stability": 0.5, "min_box_iou": 0.6}
    found = choose(dataset, policy(rules=rules))
    for row, name in enumerate(names(found)):
        if name is None:
            continue
        mask = mask_of(dataset, row, name)
        expected = None
        if mask["stability"] < np.float32(0.5):
            expected = "low_stability"
        elif mask["box_iou"] < np.float32(0.6):
            expected = "low_box_iou"
        assert found.reason[row].as_py() == expected, (row, name)
    assert {"low_stability", "low_box_iou"} <= {*found.reason.to_pylist()}
    np.testing.assert_array_equal(found.passes, found.reason.is_null())


def test_a_rule_of_one_category_reads_its_signal_too(dataset: Dataset) -> None:
    found = choose(dataset, policy(categories={"bag": {"min_stability": 0.5}}))
    low = [
        row
        for row, name in enumerate(names(found))
        if name and row % 2 and mask_of(dataset, row, name)["stability"] < 0.5
    ]
    reasons = found.reason.to_pylist()
    assert [row for row, reason in enumerate(reasons) if reason == "low_stability"] == low != []


def test_rules_on_the_share_of_the_image_and_on_confidence(dataset: Dataset) -> None:
    rules = {"max_image_fraction": 0.45, "min_confidence": 0.5}
    found = choose(dataset, policy(rules=rules, categories={"bag": {"min_confidence": 0.7}}))
    seen = set()
    for row, name in enumerate(names(found)):
        if name is None:
            continue
        bound = 0.7 if row % 2 else 0.5  # shoes and bags take turns
        expected = None
        if mask_of(dataset, row, name)["area_px"] / (12 * 24) > 0.45:
            expected = "covers_image"
        elif found.confidence[row] < np.float32(bound):
            expected = "low_confidence"
        seen.add(expected)
        assert found.reason[row].as_py() == expected
    assert seen == {None, "covers_image", "low_confidence"}


def test_a_prior_whose_base_has_not_drawn_here_says_why_others_did_not(dataset: Dataset) -> None:
    calibrator = calibrator_in(dataset)
    elsewhere = replace(calibrator, choice=replace(calibrator.choice, base=Output.of("sam")))
    [shard] = dataset.manifest.shards()
    found = choose_masks(dataset, shard, policy(), elsewhere)
    assert found.reason[3].as_py() == "crowd"


def test_categories_come_with_their_names(dataset: Dataset) -> None:
    found = choose(dataset, policy())
    assert isinstance(found.categories, pa.DictionaryArray)
    assert found.categories.to_pylist() == [row["category"] for row in layer(dataset, "boxes")]
