"""A diff counts what changed, row by row: masks, verdicts, boxes and images."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, replace

import pytest

from manifests import schemas
from manifests.cells import write_cell
from manifests.commit import CellChanges
from manifests.dataset import Dataset, init
from manifests.diff import DiffOptions, diff
from manifests.diff_result import BoxChanges, ImageChanges, MaskChanges, VerdictChanges
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.edits import (
    HUMAN,
    SAM,
    SIZE,
    Rows,
    dataset_of,
    edited,
    mask_of,
    setter,
    shop_of,
)


@pytest.fixture
def shop(builder: DatasetBuilder) -> Dataset:
    return shop_of(builder)


@pytest.fixture
def first(shop: Dataset) -> str:
    return shop.manifest.shards()[0]


# -- masks ---------------------------------------------------------------------------------------


def test_changed_mask(shop: Dataset, first: str) -> None:
    """A quarter of the hat's 64 pixels goes, and one shoe keeps its mask in other candidates."""
    after = edited(shop, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    after = edited(after, first, SAM, setter(0, candidates=[{"counts": b"1", "area_px": 1}]))
    found = diff(shop, after)
    hats = MaskChanges(
        teacher="mobile_sam", category="hat", changed=1, mean_iou=0.75, moved_share=0.25
    )
    assert found.masks_by_category == (hats,)
    assert found.masks == (replace(hats, category=None),)
    assert found.cells == {SAM: CellChanges(replaced=1)}
    assert found.verdicts == VerdictChanges()


def test_shares_are_of_all_pixels_and_the_mean_is_of_masks(shop: Dataset, first: str) -> None:
    after = edited(shop, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))  # 48 of 64
    after = edited(after, first, SAM, setter(0, **mask_of(2, 2, 8, 5)))  # 18 of 36
    [found] = diff(shop, after).masks
    assert (found.changed, found.mean_iou) == (2, (0.75 + 0.5) / 2)
    assert found.moved_share == (16 + 18) / (64 + 36)


def test_masks_that_come_and_go(shop: Dataset, first: str) -> None:
    gone = mask_row(None, SIZE, status=schemas.FAILED, reason="empty_mask")
    after = edited(shop, first, SAM, setter(0, **gone))
    after = edited(after, first, HUMAN, setter(3, **mask_of(10, 2, 18, 10)))
    found = diff(shop, after)
    assert found.masks_by_category == (
        MaskChanges(teacher="human", category="hat", added=1),
        MaskChanges(teacher="mobile_sam", category="shoe", removed=1),
    )
    back = diff(after, shop)
    assert [(one.added, one.removed) for one in back.masks] == [(0, 1), (1, 0)]


def test_a_new_teacher_and_one_that_left(shop: Dataset) -> None:
    manifest, extra = shop.manifest, []
    for cell in manifest.of_layer(SAM):
        table = shop.table(cell.shard, SAM)
        extra.append(write_cell(shop.store, table, shard=cell.shard, layer="masks/sam_vit_t"))
        manifest = manifest.without(cell.shard, SAM)
    found = diff(shop, dataset_of(shop.store, manifest.with_cells(extra)))
    assert found.masks == (
        MaskChanges(teacher="mobile_sam", removed=5),
        MaskChanges(teacher="sam_vit_t", added=5),
    )
    assert found.cells == {SAM: CellChanges(removed=2), "masks/sam_vit_t": CellChanges(added=2)}


# -- verdicts ------------------------------------------------------------------------------------


def test_flipped_verdicts_say_why(shop: Dataset, first: str) -> None:
    changes = [
        {"keep": False, "reason": "too_small"},
        {"teacher": HUMAN},
        {"reason": "low_predicted_iou"},
        {"candidate": 1},
    ]

    def edit(rows: Rows) -> None:
        for row, change in zip(rows, changes, strict=True):
            row.update(change)

    found = diff(shop, edited(shop, first, schemas.VERDICTS, edit))
    assert found.verdicts == VerdictChanges(dropped=1, other_mask=2, other_reason=1)
    assert found.verdicts_by_category == (
        VerdictChanges(category="hat", other_mask=1),
        VerdictChanges(category="shoe", dropped=1, other_mask=1, other_reason=1),
    )
    sam = ("mobile_sam", "mobile_sam")
    assert {
        (one.kind, one.before, one.after, one.teacher_before, one.teacher_after)
        for one in found.flips
    } == {
        ("dropped", "kept", "too_small", *sam),
        ("other_reason", "low_box_iou", "low_predicted_iou", *sam),
        ("other_mask", "kept", "kept", *sam),
        ("other_mask", "kept", "kept", "mobile_sam", "human"),
    }
    assert all(one.category is None and one.count == 1 for one in found.flips)
    assert {one.category for one in found.flips_by_category} == {"hat", "shoe"}
    assert diff(edited(shop, first, schemas.VERDICTS, edit), shop).verdicts.kept == 1


def test_a_verdict_may_name_its_teacher_without_the_layer(shop: Dataset, first: str) -> None:
    after = edited(shop, first, schemas.VERDICTS, setter(0, teacher="mobile_sam"))
    found = diff(shop, after)
    assert (found.verdicts, found.flips) == (VerdictChanges(), ())
    assert not found.is_empty


def test_first_verdicts(shop: Dataset) -> None:
    bare = shop.manifest
    for shard in bare.shards():
        bare = bare.without(shard, schemas.VERDICTS)
    before = dataset_of(shop.store, bare)
    found = diff(before, shop)
    assert found.verdicts == VerdictChanges(judged=5)
    assert [(one.before, one.after, one.count) for one in found.flips] == [
        (None, "kept", 4), (None, "low_box_iou", 1),
    ]  # fmt: skip
    assert diff(shop, before).verdicts == VerdictChanges(unjudged=5)


# -- boxes and images ----------------------------------------------------------------------------


def test_more_boxes_realign_the_shard(shop: Dataset, first: str) -> None:
    """As a second source does: a row in between, and its mask pending."""
    new = shop.table(first, schemas.BOXES).to_pylist()[1] | {"annotation_id": "n" * 32}
    after = edited(shop, first, schemas.BOXES, lambda rows: [*rows[:2], new, *rows[2:]])
    pending = mask_row(None, SIZE, status=schemas.PENDING)
    for layer in (SAM, HUMAN):
        after = edited(after, first, layer, lambda rows: [*rows[:2], pending, *rows[2:]])
    after = dataset_of(after.store, after.manifest.without(first, schemas.VERDICTS))
    found = diff(shop, after)
    assert found.boxes_by_category == (BoxChanges(category="shoe", added=1),)
    assert found.masks == ()
    assert found.verdicts == VerdictChanges(unjudged=4)
    assert diff(after, shop).boxes == BoxChanges(removed=1)


def test_another_category(shop: Dataset, first: str) -> None:
    after = edited(shop, first, schemas.BOXES, setter(0, category="boot"))
    found = diff(shop, after)
    assert found.boxes == BoxChanges(recategorised=1)
    assert found.boxes_by_category == (BoxChanges(category="boot", recategorised=1),)
    [change] = found.recategorised
    assert (change.before, change.after, change.count) == ("shoe", "boot", 1)
    assert diff(shop, after, options=DiffOptions(by_category=False)).boxes == found.boxes


def test_a_box_that_moved_keeps_its_mask(shop: Dataset, first: str) -> None:
    """Another box means another annotation id; the source's own id tells that it is the same."""
    moved = {"annotation_id": "m" * 32, "box_xyxy": [10.0, 2.0, 16.0, 10.0]}
    after = edited(shop, first, schemas.BOXES, setter(3, **moved))
    after = edited(after, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    found = diff(shop, after)
    assert found.boxes == BoxChanges(moved=1)
    assert found.masks[0].changed == 1
    assert found.masks[0].mean_iou == 0.75
    nameless = setter(3, source_annotation_id=None)
    shop, after = (edited(one, first, schemas.BOXES, nameless) for one in (shop, after))
    assert diff(shop, after).boxes == BoxChanges(added=1, removed=1)


def test_quarantined_images(shop: Dataset, first: str) -> None:
    after = edited(shop, first, schemas.IMAGE_INDEX, setter(1, quarantine="blurry"))
    assert diff(shop, after).images == ImageChanges(quarantined=1)
    assert diff(after, shop).images == ImageChanges(released=1)


def test_moved_boxes_of_one_name_are_not_guessed(shop: Dataset, first: str) -> None:
    def edit(rows: Rows) -> None:
        for row, letter in zip(rows[:2], "mn", strict=True):
            row |= {"annotation_id": letter * 32, "source_annotation_id": "1"}

    before = edited(shop, first, schemas.BOXES, setter(1, source_annotation_id="1"))
    found = diff(before, edited(shop, first, schemas.BOXES, edit))
    assert found.boxes == BoxChanges(added=2, removed=2)


# -- the whole -----------------------------------------------------------------------------------


def test_is_json(shop: Dataset, first: str) -> None:
    after = edited(shop, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    found = diff(shop, after, options=DiffOptions(max_examples=3))
    assert json.loads(json.dumps(asdict(found)))["masks"][0]["mean_iou"] == 0.75
    assert {one.name for one in dataclasses.fields(found)} == set(asdict(found))


def test_progress(shop: Dataset, first: str) -> None:
    after = edited(shop, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    seen: list[tuple[int, int]] = []
    diff(shop, after, progress=lambda done, all_: seen.append((done, all_)))
    assert seen == [(1, 1)]


def test_on_every_store(store_url: str) -> None:
    store = Store(store_url)
    init(store)
    builder = DatasetBuilder(store)
    builder.image("a.jpg")
    builder.box("shoe", (2, 2, 8, 8))
    shard = builder.shard()
    before = builder.commit()
    after = edited(before, shard, SAM, setter(0, **mask_of(2, 2, 8, 5)))
    assert diff(before, after).masks[0].mean_iou == 0.5
