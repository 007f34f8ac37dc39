"""A diff compares the right shards, reads nothing that did not change, and names what is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.commit import CellChanges
from manifests.dataset import Dataset
from manifests.diff import DiffOptions, diff
from manifests.diff_result import BoxChanges, ImageChanges, MaskChanges, VerdictChanges
from manifests.errors import InputError, ObjectDamagedError, ObjectMissingError
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.edits import (
    HUMAN,
    SAM,
    SIZE,
    dataset_of,
    edited,
    mask_of,
    setter,
    shop_of,
    taken_down,
    without_object,
)


@pytest.fixture
def shop(builder: DatasetBuilder) -> Dataset:
    return shop_of(builder)


@pytest.fixture
def first(shop: Dataset) -> str:
    return shop.manifest.shards()[0]


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
    path = Path(shop.store.path(layout.object_path(after.cell(first, "verdicts").object_id)))
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
