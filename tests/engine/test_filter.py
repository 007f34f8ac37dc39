"""Filter: exactly one verdict a row, its reason, and nothing else of the dataset touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.filter import FilterConfig, check_layers, filter_masks
from engine.label import LabelConfig, label
from engine.policy import RULES, Policy
from engine.pool import PoolConfig
from engine.verdicts import judge_shard
from manifests import schemas
from manifests.dataset import Dataset, init
from manifests.errors import InputError, NothingToCommitError, RefError
from manifests.store import Store

INLINE = PoolConfig(executor="inline")
Ingest = Callable[..., Dataset]
REASONS = {"signal_not_finite", *(rule.reason for rule in RULES.values())}


def mask_table(*rows: dict[str, Any]) -> pa.Table:
    """Rows of MASKS_SCHEMA: a good mask of 100 px, but for what each says."""
    good = {
        **dict.fromkeys(schemas.MASKS_SCHEMA.names), "status": "ok", "height": 60, "width": 80,
        "candidates": [], "area_px": 100, "box_iou": 0.9, "num_components": 1,
    }  # fmt: skip
    return pa.Table.from_pylist([{**good, **row} for row in rows], schema=schemas.MASKS_SCHEMA)


def verdicts(
    masks: dict[str, pa.Table | None], policy: Policy, categories: list[str] | None = None
) -> list[tuple[bool, str | None, str | None]]:
    """(keep, reason, teacher) of each row; the layers are named without `masks/`."""
    size = next(table.num_rows for table in masks.values() if table)
    names = pa.chunked_array([pa.array(categories or ["shoe"] * size, pa.string())])
    layers = {schemas.masks_layer(name): table for name, table in masks.items()}
    table = judge_shard(names, layers, policy)
    assert table.schema == schemas.VERDICTS_SCHEMA
    assert table.num_rows == size
    return [(row["keep"], row["reason"], row["teacher"]) for row in table.to_pylist()]


def policy(*teachers: str, **fields: Any) -> Policy:
    fields.setdefault("rules", {"min_box_iou": 0.5, "min_area_px": 64})
    return Policy(name="test", teachers=teachers, **fields)


GOOD: dict[str, Any] = {}
LOOSE = {"box_iou": 0.1}
SMALL = {"area_px": 1}
PENDING = {"status": "pending", "area_px": None, "box_iou": None, "num_components": None}
FAILED = {**PENDING, "status": "failed", "reason": "worker_died"}
CROWD = {**PENDING, "status": "skipped", "reason": "crowd"}
ABSENT = {**PENDING, "status": "absent"}


def test_each_row_has_the_first_rule_it_broke_and_whose_mask_it_was() -> None:
    rows = mask_table(GOOD, LOOSE, SMALL, {**LOOSE, **SMALL})
    assert verdicts({"a": rows}, policy("a")) == [
        (True, None, "masks/a"),
        (False, "low_box_iou", "masks/a"),
        (False, "too_small", "masks/a"),
        (False, "low_box_iou", "masks/a"),
    ]


def test_rows_without_a_mask_carry_their_reason_and_name_no_teacher() -> None:
    rows = mask_table(PENDING, FAILED, CROWD, ABSENT)
    assert verdicts({"a": rows}, policy("a")) == [
        (False, "not_labelled", None),
        (False, "worker_died", None),
        (False, "crowd", None),
        (False, "no_mask", None),
    ]


def test_teachers_are_taken_in_the_order_of_preference() -> None:
    first = mask_table(GOOD, LOOSE, LOOSE, CROWD, CROWD, FAILED)
    second = mask_table(GOOD, GOOD, SMALL, GOOD, SMALL, PENDING)
    assert verdicts({"a": first, "b": second}, policy("a", "b")) == [
        (True, None, "masks/a"),
        (True, None, "masks/b"),
        (False, "low_box_iou", "masks/a"),  # nobody passes: the most preferred mask is judged
        (True, None, "masks/b"),
        (False, "too_small", "masks/b"),  # the only mask there is
        (False, "worker_died", None),  # no mask at all: the most preferred teacher's reason
    ]
    swapped = verdicts({"a": first, "b": second}, policy("b", "a"))
    assert [teacher for _, _, teacher in swapped][:3] == ["masks/b"] * 3


def test_a_human_mask_is_kept_whatever_the_teachers_say() -> None:
    human = mask_table({**LOOSE, **SMALL}, ABSENT, ABSENT)
    teacher = mask_table(GOOD, GOOD, LOOSE)
    layers = {"human": human, "a": teacher}
    assert verdicts(layers, policy("a")) == [
        (True, None, "masks/human"),
        (True, None, "masks/a"),
        (False, "low_box_iou", "masks/a"),
    ]
    without = verdicts(layers, policy("a", use_human=False))
    assert [teacher for _, _, teacher in without] == ["masks/a"] * 3
    alone = verdicts({"human": human}, policy())
    assert [(keep, reason) for keep, reason, _ in alone] == [
        (True, None),
        *[(False, "no_mask")] * 2,
    ]


def test_a_shard_that_a_teacher_has_not_seen_is_not_labelled() -> None:
    rows = mask_table(LOOSE, CROWD)
    assert verdicts({"a": None, "b": rows}, policy("a", "b")) == [
        (False, "low_box_iou", "masks/b"),
        (False, "not_labelled", None),
    ]


def test_a_missing_signal_does_not_apply_and_a_nan_always_drops() -> None:
    rules = {"min_predicted_iou": 0.9}
    rows = mask_table(GOOD, {"predicted_iou": np.nan}, {"stability": np.nan}, {"box_iou": -np.inf})
    found = verdicts({"a": rows}, policy("a", rules=rules))
    assert [reason for _, reason, _ in found] == [None, *["signal_not_finite"] * 3]


def test_a_bound_is_met_by_the_same_number_stored_as_float32() -> None:
    rows = mask_table({"box_iou": 0.7}, {"box_iou": float(np.nextafter(np.float32(0.7), 0))})
    found = verdicts({"a": rows}, policy("a", rules={"min_box_iou": 0.7}))
    assert [keep for keep, _, _ in found] == [True, False]


def test_the_share_of_the_image_is_a_signal_too() -> None:
    rows = mask_table({"area_px": 4800}, {"area_px": 2400})
    found = verdicts({"a": rows}, policy("a", rules={"max_image_fraction": 0.5}))
    assert [reason for _, reason, _ in found] == ["covers_image", None]


def test_categories_have_rules_of_their_own() -> None:
    chosen = policy("a", categories={"thin": {"min_box_iou": 0.05}})
    rows = mask_table(LOOSE, LOOSE, {**LOOSE, **SMALL})
    found = verdicts({"a": rows}, chosen, ["shoe", "thin", "thin"])
    assert [reason for _, reason, _ in found] == ["low_box_iou", None, "too_small"]


ANY_ROW = st.sampled_from([GOOD, LOOSE, SMALL, PENDING, FAILED, CROWD, ABSENT]) | st.builds(
    dict, box_iou=st.floats(0, 1, width=32) | st.just(np.nan) | st.none()
)


@settings(deadline=None)
@given(st.lists(st.tuples(ANY_ROW, ANY_ROW, ANY_ROW), min_size=1, max_size=12), st.floats(0, 1))
def test_every_row_has_one_verdict_and_a_tighter_bound_never_keeps_more(
    rows: list[tuple[dict[str, Any], ...]], bound: float
) -> None:
    tables = [mask_table(*column) for column in zip(*rows, strict=True)]
    layers = dict(zip(("human", "a", "b"), tables, strict=True))
    loose = verdicts(layers, policy("a", "b", rules={"min_box_iou": bound / 2}))
    tight = verdicts(layers, policy("a", "b", rules={"min_box_iou": bound}))
    for keep, reason, teacher in (*loose, *tight):
        assert keep == (reason is None)
        assert teacher is not None or not keep
        assert (teacher is None) == (reason is not None and reason not in REASONS)
    assert all(old[0] for old, new in zip(loose, tight, strict=True) if new[0])
    human = layers["human"]["status"].to_pylist()
    assert all(row[0] for row, status in zip(tight, human, strict=True) if status == "ok")


def test_kept_masks_count_1_and_are_the_teachers_own_choice() -> None:
    names = pa.chunked_array([pa.array(["shoe"] * 3, pa.string())])
    layers = {"masks/a": mask_table(GOOD, LOOSE, CROWD)}
    found = judge_shard(names, layers, policy("a")).to_pylist()
    assert [row["weight"] for row in found] == [1, 0, 0]
    assert {row["candidate"] for row in found} == {0}


# -- on a dataset --------------------------------------------------------------------------------


@pytest.fixture
def labelled(photos: Any, ingested: Ingest) -> Dataset:
    """Three shards: boxes of 200, 12 and 900 px, one of two categories, one crowd."""
    photos.document["categories"].append({"id": 8, "name": "bag"})
    first = photos.add("a.jpg", [10, 5, 20, 10], [1, 2, 3, 4])
    photos.annotate(first, [1, 1, 50, 50], iscrowd=1)
    second = photos.add("b.jpg")
    photos.annotate(second, [5, 5, 30, 30], category_id=8)
    photos.add("c.jpg")
    dataset = ingested(photos, shard_images=1)
    assert len(dataset.manifest.shards()) == 3
    return Dataset(dataset.store, label(dataset.store, LabelConfig(teacher="box", pool=INLINE)))


def run(dataset: Dataset, chosen: Policy, **fields: Any) -> Dataset:
    config = FilterConfig(policy=chosen, **fields)
    return Dataset(dataset.store, filter_masks(dataset.store, config))


def found_reasons(dataset: Dataset) -> list[str | None]:
    tables = [dataset.table(shard, "verdicts") for shard in dataset.manifest.shards()]
    return [reason for table in tables for reason in table["reason"].to_pylist()]


def test_refiltering_writes_verdicts_and_nothing_else(labelled: Dataset) -> None:
    first = run(labelled, policy("box"))
    before = set(labelled.store.fs.find(f"{labelled.store.root}/objects"))
    second = run(labelled, policy("box", rules={"min_area_px": 500}), message="stricter")
    assert sorted(filter(None, found_reasons(first))) == ["crowd", "too_small"]
    assert sorted(filter(None, found_reasons(second))) == ["crowd", "too_small", "too_small"]
    others = [cell for cell in labelled.manifest if cell.layer != "verdicts"]
    for dataset in (first, second):
        assert [cell for cell in dataset.manifest if cell.layer != "verdicts"] == others
    assert second.commit.parents == (first.commit_id,)
    assert second.commit.message == "stricter"
    new = set(labelled.store.fs.find(f"{labelled.store.root}/objects")) - before
    # One new cell (the other shards' verdicts did not change), a manifest and a commit.
    assert len(new) == 3
    cells = second.manifest.of_layer("verdicts")
    assert [cell.statistics["kept"] for cell in cells] == [0, 1, 0]


def test_filter_needs_neither_images_nor_teachers(labelled: Dataset) -> None:
    for cell in labelled.manifest.of_layer("images"):
        labelled.store.fs.rm_file(
            f"{labelled.store.root}/objects/{cell.object_id[:2]}/{cell.object_id}"
        )
    assert len(found_reasons(run(labelled, policy("box")))) == 4


def test_the_same_policy_again_has_nothing_to_commit(labelled: Dataset) -> None:
    first = run(labelled, policy("box"))
    with pytest.raises(NothingToCommitError) as caught:
        run(labelled, policy("box"))
    assert caught.value.commit_id == first.commit_id
    with pytest.raises(NothingToCommitError):  # other words for the same verdicts
        run(labelled, replace(policy("box"), name="other"))


def test_the_ledger_balances_by_category(labelled: Dataset) -> None:
    ledger = run(labelled, policy("box")).commit.ledger
    ledger.check()
    rows = {row.category: (row.inputs, row.kept, dict(row.dropped)) for row in ledger.rows}
    assert rows == {"bag": (1, 1, {}), "shoe": (3, 1, {"crowd": 1, "too_small": 1})}
    assert {row.layer for row in ledger.rows} == {"verdicts"}


def test_the_commit_holds_the_whole_policy(labelled: Dataset) -> None:
    chosen = policy("box", categories={"bag": {"min_area_px": 1}})
    config = run(labelled, chosen).commit.operation.config
    assert config["rules"] == {"min_box_iou": 0.5, "min_area_px": 64}
    assert config["categories"] == {"bag": {"min_area_px": 1}}
    assert config["teachers"] == ["box"]


def test_a_filter_without_confidence_promises_nothing(labelled: Dataset) -> None:
    assert run(labelled, policy("box")).commit.quality is None


def test_a_policy_by_confidence_needs_confidence(labelled: Dataset) -> None:
    chosen = policy("box", rules={"min_confidence": 0.5})
    with pytest.raises(InputError, match=r"expects the layer 'confidence'.*'maskmill calibrate'"):
        run(labelled, chosen)
    with pytest.raises(InputError, match=r"'sam_vit_t'.*only box"):  # looked for first
        run(labelled, policy("sam_vit_t", rules={"min_confidence": 0.5}))


def test_photos_that_came_after_the_teacher_are_not_labelled(
    labelled: Dataset, more_photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    more_photos.add("new.jpg", [1, 1, 9, 9], content=make_jpeg(make_image(99)))
    reasons = found_reasons(run(ingested(more_photos, "more"), policy("box")))
    assert reasons.count("not_labelled") == 1
    assert len(reasons) == 5


def test_what_is_missing_is_said(labelled: Dataset, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"'sam_vit_t'.*only box.*maskmill label sam_vit_t"):
        run(labelled, policy("mobile_sam"))
    check_layers(labelled, policy("sam_vit_t"), coming=["sam_vit_t"])
    empty = Store(str(tmp_path / "empty"))
    init(empty)
    with pytest.raises(InputError, match="maskmill ingest"):
        filter_masks(empty, FilterConfig(policy=policy("box")))
    with pytest.raises(RefError, match="main"):
        run(labelled, policy("box"), branch="mian")


def test_a_branch_has_its_own_verdicts(labelled: Dataset) -> None:
    from manifests.refs import Refs

    main = run(labelled, policy("box"))
    Refs(labelled.store).create_branch("strict", main.commit_id)
    strict = run(labelled, policy("box", rules={"min_area_px": 500}), branch="strict")
    assert Dataset.open(labelled.store).commit_id == main.commit_id
    assert Dataset.open(labelled.store, "strict").commit_id == strict.commit_id
