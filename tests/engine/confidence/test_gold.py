"""Gold: which human masks count, what every output is worth by them, and who may see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.confidence.choice import NEVER, Choice
from engine.confidence.features import feature_names
from engine.confidence.gold import GOLD_SCHEMA, GoldBoxes, gold_table, read_gold
from engine.confidence.gold_finder import gold_of
from engine.confidence.outputs import Output
from engine.confidence.roles import CALIBRATE, CERTIFY, certifies, role_of
from manifests import rle, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.digest import content_id
from manifests.store import Store
from tests.engine.confidence.planted_masks import (
    SIZE_HW,
    Plan,
    columns,
    memory,
    planted,
    replaced,
    rows_of,
)

A, A1, A2, B = (Output.of(name) for name in ("a", "a.1", "a.2", "b"))
FEATURES = {name: feature_names(name, ["a", "b"]) for name in ("a", "b")}
NUM_BOXES = 24


@pytest.fixture
def dataset() -> Dataset:
    """12 images of 2 boxes in 2 shards; boxes 1 and 5 lack a mask of one or both teachers."""
    missing = frozenset({("a", 1), ("a", 5), ("b", 5)})
    return planted(memory("gold"), Plan(num_images=12, per_image=2, missing=missing))


def gold(dataset: Dataset, *, certify_share: float = 0.5) -> GoldBoxes:
    return read_gold(dataset, FEATURES, certify_share=certify_share)


# -- roles ---------------------------------------------------------------------------------------


def test_the_role_of_an_image_is_its_digests_alone() -> None:
    assert role_of("0" * 24 + "00000000", 0.5) == CERTIFY
    assert role_of("0" * 24 + "7fffffff", 0.5) == CERTIFY
    assert role_of("f" * 24 + "80000000", 0.5) == CALIBRATE
    assert role_of("f" * 32, 0.999) == CALIBRATE
    assert role_of("0" * 32, 0.0) == CALIBRATE


def test_a_larger_share_only_adds_to_what_certifies() -> None:
    ids = [content_id(f"image {number}".encode()) for number in range(4000)]
    half, most = certifies(ids, 0.5), certifies(ids, 0.7)
    assert half.mean() == pytest.approx(0.5, abs=0.03)
    assert most.mean() == pytest.approx(0.7, abs=0.03)
    assert (most | ~half).all()
    np.testing.assert_array_equal(half, [role_of(name, 0.5) == "certify" for name in ids])


# -- reading -------------------------------------------------------------------------------------


def test_every_output_has_its_iou_with_the_human_mask(dataset: Dataset) -> None:
    found = gold(dataset)
    assert found.num_boxes == NUM_BOXES - 1  # nobody drew box 5
    assert dict(found.unused) == {"no_pseudo_mask": 1}
    boxes, masks = rows_of(dataset, schemas.BOXES), rows_of(dataset, "masks/a")
    place = {row["annotation_id"]: number for number, row in enumerate(boxes)}
    seen = [place[name] for name in found.words("annotation_id")]
    assert seen == [number for number in range(NUM_BOXES) if number != 5]
    full = 160
    for at, number in enumerate(seen):
        own, candidates = masks[number], masks[number]["candidates"]
        drawn = [own["area_px"], *(one["area_px"] for one in candidates)]
        areas = drawn if own["area_px"] else [None] * 3
        for output, area in zip((A, A1, A2), areas, strict=True):
            if area is None:
                assert np.isnan(found.iou[output][at])
            else:
                assert found.iou[output][at] == pytest.approx(area / full)
    assert np.isfinite(found.iou[B]).all()


def test_boxes_say_where_they_are_and_what_they_are_for(dataset: Dataset) -> None:
    found = gold(dataset)
    for row in found.table.to_pylist():
        [box] = dataset.table(row["shard"], "boxes").slice(row["row"], 1).to_pylist()
        for name in ("image_id", "annotation_id", "category", "source"):
            assert row[name] == box[name]
        assert row["role"] == role_of(row["image_id"], 0.5)
    assert gold(dataset, certify_share=0).has_role(CALIBRATE).all()
    assert {*found.words("role")} == {CALIBRATE, CERTIFY}
    some = found.where(found.has_role(CERTIFY))
    assert some.num_boxes == found.has_role(CERTIFY).sum() > 0
    assert len(some.iou[A]) == len(some.features[A]) == some.num_boxes


def test_features_are_in_their_order_and_of_the_same_box(dataset: Dataset) -> None:
    found = gold(dataset)
    by_id = {
        box["annotation_id"]: mask
        for box, mask in zip(
            rows_of(dataset, "boxes"), rows_of(dataset, "masks/b"), strict=True
        )
    }  # fmt: skip
    column = FEATURES["b"].index("predicted_iou")
    expected = [by_id[name]["predicted_iou"] for name in found.words("annotation_id")]
    assert found.features[B][:, column].tolist() == pytest.approx(expected)
    assert found.features[B].shape == (found.num_boxes, len(FEATURES["b"]))


def test_a_human_mask_somewhere_else_is_no_gold(dataset: Dataset) -> None:
    number = iter(range(1000))

    def elsewhere(row: dict[str, Any]) -> dict[str, Any]:
        if next(number) >= 3:
            return {}
        counts = rle.encode(columns(6))  # a fourth of the box
        box = rle.box_xyxy(counts, size_hw=SIZE_HW).tolist()
        return {"counts": counts, "mask_box_xyxy": box, "area_px": 48}

    replaced(dataset.store, schemas.MASKS_HUMAN, elsewhere)
    found = gold(Dataset.open(dataset.store))
    assert dict(found.unused) == {"gold_box_disagrees": 3, "no_pseudo_mask": 1}
    assert found.num_boxes == NUM_BOXES - 4


def test_absent_human_masks_and_no_human_layer(dataset: Dataset) -> None:
    absent = dict.fromkeys(("counts", "area_px", "mask_box_xyxy")) | {"status": "absent"}
    replaced(dataset.store, schemas.MASKS_HUMAN, lambda row: absent)
    assert gold(Dataset.open(dataset.store)).num_boxes == 0
    none = planted(memory("none"), Plan(num_images=2, is_gold=lambda number: False))
    found = gold(none)
    assert found.num_boxes == 0
    assert found.table.num_rows == 0
    assert set(found.iou) == set()


def test_a_teacher_that_has_not_seen_a_shard_is_not_there_in_it(dataset: Dataset) -> None:
    first, second = dataset.manifest.shards()
    manifest = dataset.manifest.without(second, "masks/a")
    dataset.manifest = manifest
    found = gold(dataset)
    in_second = np.array(found.words("shard")) == second
    assert 0 < in_second.sum() < found.num_boxes
    assert np.isnan(found.iou[A][in_second]).all()
    assert np.isnan(found.features[A][in_second]).all()
    assert np.isfinite(found.iou[B]).all()
    assert first in found.words("shard")


# -- the table -----------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_output_that_is_there(dataset: Dataset) -> None:
    found = gold(dataset)
    confidence = {output: np.nan_to_num(iou * 0.9) for output, iou in found.iou.items()}
    table = gold_table(Choice(base=B, margin=NEVER), found, confidence)
    assert table.schema == GOLD_SCHEMA
    assert table.num_rows == sum(np.isfinite(iou).sum() for iou in found.iou.values())
    by_box: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_box.setdefault(row["annotation_id"], []).append(row)
        assert row["confidence"] == pytest.approx(row["iou"] * 0.9)
    assert list(by_box) == found.words("annotation_id")
    for rows in by_box.values():
        assert [row["teacher"] for row in rows if row["chosen"]] == ["b"]
        names = [(row["teacher"], row["candidate"]) for row in rows]
        assert names == sorted(names)
    [alone] = [rows for rows in by_box.values() if len(rows) == 1]
    assert alone[0]["teacher"] == "b"


def test_gold_whose_boxes_were_replaced_is_left_out(dataset: Dataset) -> None:
    found = gold(dataset)
    confidence = {output: np.nan_to_num(iou) for output, iou in found.iou.items()}
    table = gold_table(Choice(base=B, margin=NEVER), found, confidence)
    object_id = write_cell(dataset.store, table, shard="", layer="gold").object_id
    assert gold_of(dataset, object_id).equals(table)
    assert gold_of(dataset, None).num_rows == 0
    first, second = dataset.manifest.shards()
    boxes = dataset.table(first, "boxes")
    moved = boxes.slice(1, 3)  # other rows, and fewer
    cell = write_cell(dataset.store, moved, shard=first, layer="boxes")
    dataset.manifest = dataset.manifest.with_cells([cell])
    kept = gold_of(dataset, object_id)
    assert set(kept["shard"].to_pylist()) == {second}
    dataset.manifest = dataset.manifest.without(second, "boxes")
    assert gold_of(dataset, object_id).num_rows == 0


def test_a_store_without_the_gold_says_so() -> None:
    from manifests.errors import ObjectMissingError

    dataset = planted(memory("lost"), Plan(num_images=1))
    assert isinstance(dataset.store, Store)
    with pytest.raises(ObjectMissingError):
        gold_of(dataset, "ab" * 32)
