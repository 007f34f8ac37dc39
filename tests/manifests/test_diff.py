"""A diff counts what a person would count row by row, and reads nothing that did not change."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests import diff as diff_module
from manifests import layout, paired_rle, rle, schemas
from manifests.cells import write_cell
from manifests.commit import CellChanges, Commit
from manifests.dataset import Dataset, init, operation
from manifests.diff import DiffOptions, diff
from manifests.diff_result import BoxChanges, ImageChanges, MaskChanges, VerdictChanges
from manifests.errors import InputError, ObjectDamagedError, ObjectMissingError
from manifests.manifest import Cell, Manifest
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder, filled_box, mask_row

SAM, HUMAN = "masks/mobile_sam", "masks/human"
SIZE = (12, 20)
Rows = list[dict[str, Any]]


def dataset_of(store: Store, cells: Manifest | list[Cell]) -> Dataset:
    """A commit without parents of these cells."""
    manifest = cells if isinstance(cells, Manifest) else Manifest(cells)
    commit = Commit(
        parents=(), manifest=manifest.save(store), author="test", message="by hand",
        time="2026-11-23T20:00:00Z", operation=operation("test", version=1, config={}),
    )  # fmt: skip
    return Dataset(store, commit.save(store))


def edited(
    dataset: Dataset, shard: str, layer: str, edit: Callable[[Rows], Rows | None]
) -> Dataset:
    """The dataset with one cell whose rows were edited, in place or as a new list."""
    table = dataset.table(shard, layer)
    rows = table.to_pylist()
    rows = edit(rows) or rows
    changed = pa.Table.from_pylist(rows, schema=table.schema)
    cell = write_cell(dataset.store, changed, shard=shard, layer=layer)
    return dataset_of(dataset.store, dataset.manifest.with_cells([cell]))


def mask_of(*box_xyxy: int) -> dict[str, Any]:
    return mask_row(filled_box(box_xyxy, SIZE), SIZE)  # type: ignore[arg-type]  # four numbers


def setter(row: int, **values: Any) -> Callable[[Rows], None]:
    def edit(rows: Rows) -> None:
        rows[row].update(values)

    return edit


def without_object(dataset: Dataset, object_id: str) -> None:
    dataset.store.fs.rm_file(dataset.store._path(layout.object_path(object_id)))


@pytest.fixture
def shop(builder: DatasetBuilder) -> Dataset:
    """Two shards; the first has three shoes and a hat, the second a hat; all kept but one shoe."""
    builder.image("a.jpg")
    builder.box("shoe", (2, 2, 8, 8), layers={HUMAN: mask_of(2, 2, 8, 8)})
    builder.box("shoe", (0, 0, 4, 4))
    builder.image("b.jpg")
    builder.box("shoe", (5, 5, 9, 9), keep=False, reason="low_box_iou")
    builder.box("hat", (10, 2, 18, 10))
    builder.shard()
    builder.image("c.jpg")
    builder.box("hat", (1, 1, 6, 6))
    builder.shard()
    # As ingest does it; the second shard's boxes are counted by nobody.
    place = next(n for n, cell in enumerate(builder.cells) if cell.layer == schemas.BOXES)
    counts = {"category:hat": 1, "category:shoe": 3}
    builder.cells[place] = replace(builder.cells[place], statistics=counts)
    return builder.commit()


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


# -- shards --------------------------------------------------------------------------------------


def test_a_new_shard(shop: Dataset) -> None:
    new = shop.manifest.shards()[1]
    before = dataset_of(shop.store, [cell for cell in shop.manifest if cell.shard != new])
    found = diff(before, shop)
    assert found.images == ImageChanges(added=1)
    assert found.boxes_by_category == (BoxChanges(category="hat", added=1),)
    assert found.masks_by_category == (MaskChanges(teacher="mobile_sam", category="hat", added=1),)
    assert found.verdicts_by_category == (VerdictChanges(category="hat", judged=1),)
    back = diff(shop, before)
    assert (back.images.removed, back.boxes.removed, back.masks[0].removed) == (1, 1, 1)
    assert back.verdicts.unjudged == 1


def test_a_new_shard_without_masks_is_told_from_the_manifest_alone(shop: Dataset) -> None:
    boxes = [
        replace(cell, statistics={"category:hat": 5, "category:shoe": 2}, num_rows=7)
        for cell in shop.manifest.of_layer(schemas.BOXES)
    ][:1]
    index = shop.manifest.get(boxes[0].shard, schemas.IMAGE_INDEX)
    assert index
    nothing = dataset_of(shop.store, [])
    after = dataset_of(shop.store, [*boxes, index])
    for cell in (*boxes, index):
        without_object(shop, cell.object_id)
    found = diff(nothing, after)
    assert found.images.added == 2
    assert {one.category: one.added for one in found.boxes_by_category} == {"hat": 5, "shoe": 2}


def taken_down(dataset: Dataset, shard: str, image_row: int, *, new_id: str) -> Dataset:
    """The dataset with a shard that lacks one image, as a takedown writes it."""
    boxes = dataset.table(shard, schemas.BOXES).to_pylist()
    keep = [row for row, box in enumerate(boxes) if box["image_row"] != image_row]
    cells = [cell for cell in dataset.manifest if cell.shard != shard]
    images = dataset.cell(shard, schemas.IMAGES)
    cells.append(replace(images, shard=new_id, num_rows=images.num_rows - 1))
    for layer in dataset.manifest.layers():
        if layer == schemas.IMAGES or dataset.manifest.get(shard, layer) is None:
            continue
        table = dataset.table(shard, layer)
        rows = table.to_pylist()
        if layer == schemas.IMAGE_INDEX:
            rows = [row for number, row in enumerate(rows) if number != image_row]
        else:
            rows = [rows[number] for number in keep]
        if layer == schemas.BOXES:
            rows = [row | {"image_row": row["image_row"] - (row["image_row"] > image_row)}
                    for row in rows]  # fmt: skip
        new = pa.Table.from_pylist(rows, schema=table.schema)
        cells.append(write_cell(dataset.store, new, shard=new_id, layer=layer))
    return dataset_of(dataset.store, cells)


def test_a_takedown_is_one_image_less(shop: Dataset, first: str) -> None:
    after = taken_down(shop, first, 0, new_id="f" * 64)
    found = diff(shop, after)
    assert found.images == ImageChanges(removed=1)
    assert found.boxes_by_category == (BoxChanges(category="shoe", removed=2),)
    assert found.masks == (
        MaskChanges(teacher="human", removed=1), MaskChanges(teacher="mobile_sam", removed=2),
    )  # fmt: skip
    assert found.verdicts == VerdictChanges(unjudged=2)
    back = diff(after, shop)
    assert (back.images, back.boxes) == (ImageChanges(added=1), BoxChanges(added=2))


def test_a_change_beside_a_takedown(shop: Dataset, first: str) -> None:
    after = taken_down(shop, first, 0, new_id="f" * 64)
    after = edited(after, "f" * 64, SAM, setter(1, **mask_of(10, 2, 16, 10)))
    after = edited(after, "f" * 64, schemas.VERDICTS, setter(0, keep=True, reason=None))
    found = diff(shop, after, options=DiffOptions(max_examples=5))
    [human, sam] = found.masks
    assert (human.removed, sam.removed, sam.changed, sam.mean_iou) == (1, 2, 1, 0.75)
    assert found.verdicts == VerdictChanges(kept=1, unjudged=2)
    mask, flip = found.examples
    assert (mask.shard_before, mask.row_before) == (first, 3)
    assert (mask.shard_after, mask.row_after) == ("f" * 64, 1)
    assert (flip.row_before, flip.row_after, flip.before) == (2, 0, "low_box_iou")


def test_shards_cut_otherwise(shop: Dataset) -> None:
    """The same three images in one shard, in another order, are no difference but of cells."""
    one, two = shop.manifest.shards()
    joined = []
    for layer in shop.manifest.layers():
        shards = [two, one] if shop.manifest.get(two, layer) else [one]
        if layer == schemas.IMAGES:
            cell = replace(shop.cell(one, layer), shard="e" * 64, num_rows=3)
            joined.append(cell)
            continue
        rows = [row for shard in shards for row in shop.table(shard, layer).to_pylist()]
        if layer == HUMAN:  # the second shard has none
            rows = [mask_row(None, SIZE), *rows]
        if layer == schemas.BOXES:
            rows = [row | {"image_row": row["image_row"] + (number > 0)}
                    for number, row in enumerate(rows)]  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=shop.table(one, layer).schema)
        joined.append(write_cell(shop.store, table, shard="e" * 64, layer=layer))
    found = diff(shop, dataset_of(shop.store, joined))
    assert (found.images, found.boxes) == (ImageChanges(), BoxChanges())
    assert (found.masks, found.verdicts) == ((), VerdictChanges())
    assert found.cells[schemas.BOXES] == CellChanges(added=1, removed=2)


def test_unrelated_commits(builder: DatasetBuilder, shop: Dataset) -> None:
    builder.cells.clear()
    builder.image("z.png", image_format="png", size_hw=(5, 6))
    builder.box("cup", (0, 0, 3, 3))
    builder.shard()
    found = diff(shop, builder.commit())
    assert found.images == ImageChanges(added=1, removed=3)
    assert found.boxes == BoxChanges(added=1, removed=5)


def test_a_picture_that_is_in_two_shards_of_one_side(shop: Dataset, first: str) -> None:
    """A merge can bring one in twice: one of the two is new."""
    cells = [cell for cell in shop.manifest if cell.shard == first]
    before = dataset_of(shop.store, cells)
    twice = [replace(cell, shard=shard) for shard in ("c" * 64, "d" * 64) for cell in cells]
    found = diff(before, dataset_of(shop.store, twice))
    assert found.images == ImageChanges(added=2)
    assert found.boxes == BoxChanges(added=4)
    assert found.masks == (
        MaskChanges(teacher="human", added=1), MaskChanges(teacher="mobile_sam", added=4),
    )  # fmt: skip


# -- what is read --------------------------------------------------------------------------------


def _remove_all_but(dataset: Dataset, *kept: tuple[str, str]) -> None:
    for cell in dataset.manifest:
        if (cell.shard, cell.layer) not in kept:
            without_object(dataset, cell.object_id)


def test_equal_cells_are_not_read(shop: Dataset, first: str) -> None:
    """But the categories of the changed rows' boxes; without these nothing at all."""
    after = edited(shop, first, schemas.VERDICTS, setter(0, keep=False, reason="too_small"))
    after = edited(after, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    changed = ((first, schemas.VERDICTS), (first, SAM))
    expected = diff(shop, after)
    _remove_all_but(shop, *changed, (first, schemas.BOXES))
    assert diff(shop, after) == expected
    without_object(shop, shop.cell(first, schemas.BOXES).object_id)
    found = diff(shop, after, options=DiffOptions(by_category=False))
    assert (found.masks, found.verdicts) == (expected.masks, expected.verdicts)
    assert found.boxes_by_category == found.masks_by_category == found.flips_by_category == ()
    with pytest.raises(ObjectMissingError, match=f"shard {first[:12]} of boxes is missing"):
        diff(shop, after)


def test_categories_are_not_read_where_no_row_changed(shop: Dataset, first: str) -> None:
    after = edited(shop, first, SAM, setter(0, predicted_iou=0.5))
    _remove_all_but(shop, (first, SAM))
    assert diff(shop, after).masks == ()


def test_the_same_commit_twice(shop: Dataset) -> None:
    _remove_all_but(shop)
    found = diff(shop, shop)
    assert found.is_empty
    assert found.cells == {}


def test_layers_that_are_not_asked_for_are_not_read(shop: Dataset, first: str) -> None:
    after = edited(shop, first, schemas.VERDICTS, setter(0, keep=False, reason="too_small"))
    after = edited(after, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    without_object(shop, shop.cell(first, SAM).object_id)
    found = diff(shop, after, options=DiffOptions(layers=("verdicts",)))
    assert found.cells == {"verdicts": CellChanges(replaced=1)}
    assert (found.masks, found.verdicts.dropped) == ((), 1)


# -- bad input -----------------------------------------------------------------------------------


def test_an_unknown_layer(shop: Dataset) -> None:
    with pytest.raises(InputError, match="has a layer 'mask/mobile'; the nearest is 'masks/mobile"):
        diff(shop, shop, options=DiffOptions(layers=("mask/mobile",)))


def test_a_missing_cell(shop: Dataset, first: str) -> None:
    after = edited(shop, first, SAM, setter(3, **mask_of(10, 2, 16, 10)))
    without_object(shop, shop.cell(first, SAM).object_id)
    expected = f"shard {first[:12]} of {SAM} is missing .*: commit {shop.commit_id[:12]} cannot "
    with pytest.raises(ObjectMissingError, match=expected):
        diff(shop, after)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_cell(shop: Dataset, first: str, how: str) -> None:
    after = edited(shop, first, schemas.VERDICTS, setter(0, keep=False, reason="too_small"))
    path = Path(shop.store._path(layout.object_path(after.cell(first, "verdicts").object_id)))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x55
    path.chmod(0o644)
    path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-20]), "empty": b""}[how])
    with pytest.raises(ObjectDamagedError, match=f"shard {first[:12]} of verdicts is damaged"):
        diff(shop, after)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"counts": b"\xff\xfe"}, "row 3: mask RLE has a character outside COCO's alphabet"),
        ({"counts": b"5"}, "row 3: mask RLE covers 5 pixels, expected 12 x 20 = 240"),
        ({"counts": None}, "a row is 'ok' but has no mask)"),
        ({"counts": b"1", "height": 13}, "its images have other sizes in the other commit)"),
    ],
)
def test_a_damaged_mask(shop: Dataset, first: str, values: dict[str, Any], message: str) -> None:
    after = edited(shop, first, SAM, setter(0, **mask_of(2, 2, 8, 5)))
    after = edited(after, first, SAM, setter(3, **values))
    with pytest.raises(ObjectDamagedError) as caught:
        diff(shop, after)
    assert f"shard {first[:12]} of {SAM} is damaged ({message}" in str(caught.value)
    assert "cannot be compared; run 'maskmill label mobile_sam' to draw it again" in str(
        caught.value
    )


def test_a_layer_with_other_rows_than_the_boxes(shop: Dataset, first: str) -> None:
    after = edited(shop, first, schemas.VERDICTS, lambda rows: rows[:-1])
    with pytest.raises(ObjectDamagedError, match="expected the 4 rows of boxes, found 3"):
        diff(shop, after)


def test_a_cell_with_foreign_columns(shop: Dataset, first: str) -> None:
    table = pa.table({"keep": ["yes"] * 4, "reason": [1, 2, 3, 4], "teacher": [None] * 4,
                      "candidate": [0.5] * 4})  # fmt: skip
    cell = write_cell(shop.store, table, shard=first, layer=schemas.VERDICTS)
    after = dataset_of(shop.store, shop.manifest.with_cells([cell]))
    with pytest.raises(ObjectDamagedError, match="its columns are not those of the layer"):
        diff(shop, after)


def test_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="expected max_examples of at least 0, got -1"):
        DiffOptions(max_examples=-1)


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


small = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=20, **small)  # type: ignore[arg-type]  # two settings of two types
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_counts_what_counting_by_annotation_counts(
    seed: int, by_category: bool, tiny_batches: bool
) -> None:
    """Random edits of everything, against sums over rows joined by annotation id in Python."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if tiny_batches:
            patch.setattr(paired_rle, "_BATCH_CHARS", 8)
            patch.setattr(diff_module, "_NUM_THREADS", 1)
        store = Store(folder)
        init(store)
        before, after = _random_pair(rng, store)
        found = diff(before, after, options=DiffOptions(by_category=by_category))
        expected = _counted(before, after)
    assert found.images.added == expected["images", "added"]
    assert found.images.removed == expected["images", "removed"]
    for kind in ("added", "removed", "recategorised"):
        assert getattr(found.boxes, kind) == expected["boxes", kind], kind
    masks = {one.teacher: one for one in found.masks}
    for teacher in ("mobile_sam", "human"):
        changes = masks.get(teacher, MaskChanges(teacher=teacher))
        for kind in ("added", "removed", "changed"):
            assert getattr(changes, kind) == expected[teacher, kind], (teacher, kind)
        mean = expected[teacher, "iou"] / max(expected[teacher, "changed"], 1)
        assert (changes.mean_iou or 0) == pytest.approx(mean)
    for kind in asdict(VerdictChanges()):
        if kind != "category":
            assert getattr(found.verdicts, kind) == expected["verdicts", kind], kind
    if by_category:
        assert sum(one.added for one in found.boxes_by_category) == found.boxes.added
        assert sum(one.count for one in found.flips_by_category) == sum(
            one.count for one in found.flips
        )


def _random_pair(rng: np.random.Generator, store: Store) -> tuple[Dataset, Dataset]:
    """Two shards of three images; then some images taken down, boxes, masks, verdicts edited."""
    builder = DatasetBuilder(store)
    for _ in range(2):
        for _ in range(3):
            builder.image("x.png", image_format="png")
            for _ in range(rng.integers(0, 4)):
                x, y = rng.integers(0, 8, 2).tolist()
                human = {HUMAN: mask_of(x, y, x + 3, y + 3)} if rng.random() < 0.3 else None
                builder.box(
                    str(rng.choice(["shoe", "hat"])), (x, y, x + 5, y + 4), layers=human,
                    keep=bool(rng.random() < 0.6), reason="some_reason",
                )  # fmt: skip
        builder.shard(verdicts=bool(rng.random() < 0.8))
    before = after = builder.commit()
    for number, shard in enumerate(before.manifest.shards()):
        name = shard
        if rng.random() < 0.4:
            name = str(number) * 64
            after = taken_down(after, shard, int(rng.integers(0, 3)), new_id=name)
        for layer in after.manifest.layers():
            if after.manifest.get(name, layer) and layer not in ("images", "image_index"):
                after = edited(after, name, layer, lambda rows, kind=layer: _jolt(rows, kind, rng))  # type: ignore[misc]  # a default is not in the type
    return before, after


def _jolt(rows: Rows, layer: str, rng: np.random.Generator) -> None:
    for row in rows:
        if rng.random() < 0.6:
            continue
        if layer == schemas.BOXES:
            row["category"] = str(rng.choice(["shoe", "hat", "cup"]))
        elif layer == schemas.VERDICTS:
            row["keep"] = bool(rng.random() < 0.5)
            row["reason"] = None if row["keep"] else str(rng.choice(["some_reason", "other"]))
            row["candidate"] = int(rng.integers(0, 2))
        else:
            x, y, z = rng.integers(1, 8, 3).tolist()
            row.update(mask_row(None, SIZE) if z < 3 else mask_of(x, y, x + z, y + z))


def _by_annotation(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Annotation id -> its row of every layer."""
    found: dict[str, dict[str, Any]] = {}
    for shard in dataset.manifest.shards():
        layers = {
            layer: dataset.table(shard, layer).to_pylist()
            for layer in (schemas.BOXES, SAM, HUMAN, schemas.VERDICTS)
            if dataset.manifest.get(shard, layer)
        }
        for number, box in enumerate(layers.get(schemas.BOXES, [])):
            found[box["annotation_id"]] = {name: rows[number] for name, rows in layers.items()}
    return found


def _counted(before: Dataset, after: Dataset) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    images = [
        {
            image
            for shard in dataset.manifest.shards()
            for image in dataset.table(shard, "image_index")["image_id"].to_pylist()
        }
        for dataset in (before, after)
    ]
    counts["images", "removed"] = len(images[0] - images[1])
    counts["images", "added"] = len(images[1] - images[0])
    old, new = _by_annotation(before), _by_annotation(after)
    for annotation in {*old, *new}:
        was, now = old.get(annotation, {}), new.get(annotation, {})
        if not was or not now:
            counts["boxes", "added" if now else "removed"] += 1
        elif was["boxes"]["category"] != now["boxes"]["category"]:
            counts["boxes", "recategorised"] += 1
        for layer in (SAM, HUMAN):
            _count_mask(counts, layer.removeprefix("masks/"), was.get(layer), now.get(layer))
        _count_verdict(counts, was.get("verdicts"), now.get("verdicts"))
    return counts


def _count_mask(counts: Counter[tuple[str, str]], teacher: str, was: Any, now: Any) -> None:
    had, has = ((row or {}).get("status") == schemas.OK for row in (was, now))
    if had and has and was["counts"] != now["counts"]:
        counts[teacher, "changed"] += 1
        iou = rle.paired_iou(was["counts"], now["counts"], size_hw=SIZE)
        counts[teacher, "iou"] += iou  # type: ignore[assignment]  # a Counter counts in floats, too
    elif had != has:
        counts[teacher, "added" if has else "removed"] += 1


def _count_verdict(counts: Counter[tuple[str, str]], was: Any, now: Any) -> None:
    if was and now:
        state = [row["keep"] or row["reason"] for row in (was, now)]
        if state[0] is True and state[1] is True:
            kind = "other_mask" if was["candidate"] != now["candidate"] else None
        elif state[0] == state[1]:
            kind = None
        else:
            kind = "dropped" if was["keep"] else "kept" if now["keep"] else "other_reason"
    else:
        kind = "judged" if now else "unjudged" if was else None
    if kind:
        counts["verdicts", kind] += 1
