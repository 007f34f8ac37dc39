"""The page of a diff shows what changed, whatever there is, and fetches nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from engine.diff_page import DiffPageOptions, DiffPageSummary, write_diff_page
from engine.diff_pictures import Drawn, draw_change
from manifests import layout, rle, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.diff import DiffOptions, diff
from manifests.errors import InputError
from manifests.takedown import take_down
from tests.engine.conftest import PhotoSet
from tests.manifests.edits import dataset_of, edited, setter

EVIL = "<script>alert('x')</script>&\"'"
SAM = "masks/sam"
SIZE = (60, 80)
RED, GREEN, BLUE = range(3)
Rows = list[dict[str, Any]]


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def mask_values(mask: np.ndarray) -> dict[str, Any]:
    return {"status": schemas.OK, "counts": rle.encode(mask), "area_px": int(mask.sum())}


@pytest.fixture
def before(photos: PhotoSet, ingested: Callable[..., Dataset]) -> Dataset:
    """Two shards of two photos with a box each, its mask, and a verdict that keeps it."""
    for number in range(4):
        photos.add(f"{number}.jpg", [10, 10, 20, 20])
    return with_masks(ingested(photos, shard_images=2))


def with_masks(dataset: Dataset) -> Dataset:
    """A mask for every box, kept."""
    manifest = dataset.manifest
    blank = dict.fromkeys(schemas.MASKS_SCHEMA.names)
    blank |= {"height": SIZE[0], "width": SIZE[1], "candidates": []}
    mask = blank | mask_values(box_mask(10, 10, 30, 30))
    verdict = {"keep": True, "reason": None, "teacher": SAM, "candidate": 0}
    for cell in manifest.of_layer(schemas.BOXES):
        for layer, row, schema in (
            (SAM, mask, schemas.MASKS_SCHEMA),
            (schemas.VERDICTS, verdict, schemas.VERDICTS_SCHEMA),
        ):
            table = pa.Table.from_pylist([row] * cell.num_rows, schema=schema)
            made = write_cell(dataset.store, table, shard=cell.shard, layer=layer)
            manifest = manifest.with_cells([made])
    return dataset_of(dataset.store, manifest)


def changed(dataset: Dataset, shard: str) -> Dataset:
    """The shard's first mask lost its lower half; its second box is dropped."""
    smaller = setter(0, **mask_values(box_mask(10, 10, 30, 20)))
    dropped = setter(1, keep=False, reason="low_box_iou")
    return edited(edited(dataset, shard, SAM, smaller), shard, schemas.VERDICTS, dropped)


def page_of(a: Dataset, b: Dataset, folder: Path, **options: Any) -> tuple[str, DiffPageSummary]:
    chosen = DiffPageOptions(**options)
    found = diff(a, b, options=DiffOptions(max_examples=chosen.max_pictures))
    target = folder / "out" / "diff.html"
    summary = write_diff_page(a, b, found, target, options=chosen)
    text = target.read_text(encoding="utf-8")
    assert summary.num_bytes == len(text.encode())
    return text, summary


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def excess(picture: Image.Image | np.ndarray, more: int, less: int) -> float:
    """By how much one channel is above another, on average."""
    pixels = np.asarray(picture, dtype=int)
    return float((pixels[..., more] - pixels[..., less]).mean())


def test_before_and_after(before: Dataset, tmp_path: Path) -> None:
    after = changed(before, before.manifest.shards()[0])
    page, summary = page_of(before, after, tmp_path, before="main~1", after="main")
    for text in ("main~1", before.commit_id[:12], after.commit_id[:12], "low_box_iou", "sam",
                 "IoU <b>0.500</b>", "200 px moved", "50.0%", "0.500", "dropped now", "shoe",
                 "before</b> 400 px", "after</b> 200 px", "kept", "by hand"):  # fmt: skip
        assert text in page, text
    assert summary.num_pictures == 2
    old, new, kept, dropped = pictures(page)
    assert excess(old, RED, GREEN) > excess(new, RED, GREEN) + 10
    assert excess(dropped, RED, GREEN) > excess(kept, RED, GREEN) + 10
    assert old.size == new.size


def test_same_page_each_time(before: Dataset, tmp_path: Path) -> None:
    after = changed(before, before.manifest.shards()[1])
    pages = [page_of(before, after, tmp_path / name)[0] for name in "ab"]
    assert pages[0] == pages[1]


def test_fetches_nothing(before: Dataset, tmp_path: Path) -> None:
    page, _ = page_of(before, changed(before, before.manifest.shards()[0]), tmp_path)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "url(" not in page
    assert "<script" not in page


def test_escapes_everything_from_data(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    renamed = edited(before, shard, schemas.BOXES, setter(0, category=EVIL))
    renamed = edited(renamed, shard, schemas.IMAGE_INDEX, setter(0, file_name=EVIL, source=EVIL))
    after = changed(renamed, shard)
    after = edited(after, shard, schemas.VERDICTS, setter(0, keep=False, reason=EVIL))
    page, _ = page_of(before, after, tmp_path, before=EVIL, after=EVIL)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert") > 8
    assert not re.search(r'(?:alt|title)="[^"<>]*<', page)


def test_nothing_differs(before: Dataset, tmp_path: Path) -> None:
    page, summary = page_of(before, before, tmp_path)
    assert "Nothing differs" in page
    assert summary.num_pictures == 0


def test_boxes_and_images_that_came_and_went(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    less = dataset_of(before.store, [cell for cell in before.manifest if cell.shard != shard])
    page, summary = page_of(less, before, tmp_path)
    assert "Boxes by category" in page
    assert page.count('<span class="plus">+2</span>') == 3  # masks, images and boxes
    assert summary.num_pictures == 0
    recategorised = edited(before, shard, schemas.BOXES, setter(0, category="boot"))
    page, _ = page_of(before, recategorised, tmp_path)
    assert "shoe → boot" in page


def test_a_mask_that_is_not_there_any_more(before: Dataset, tmp_path: Path) -> None:
    failed = {"status": schemas.FAILED, "reason": "empty_mask", "counts": None, "area_px": None}
    after = edited(before, before.manifest.shards()[0], SAM, setter(0, **failed))
    page, _ = page_of(before, after, tmp_path)
    assert "mask removed" in page
    assert "no mask" in page


def test_images_that_were_taken_down_are_grey(before: Dataset, tmp_path: Path) -> None:
    store, shard = before.store, before.manifest.shards()[0]
    page, _ = page_of(before, changed(before, shard), tmp_path)
    assert len(pictures(page)) == 4
    store.remove(layout.object_path(shard))
    page, summary = page_of(before, changed(before, shard), tmp_path)
    assert summary.num_pictures == 2
    assert pictures(page) == []
    assert page.count('<div class="gone">') == 2
    assert f"shard {shard[:12]} of images is missing" in page
    assert "IoU <b>0.500</b>" in page


def test_a_takedown_is_explained(
    photos: PhotoSet, ingested: Callable[..., Dataset], tmp_path: Path
) -> None:
    """Seen backwards, the new side is the shard whose bytes are gone: the old side's are shown."""
    for number in range(3):
        photos.add(f"{number}.jpg", [10, 10, 20, 20])
    old = ingested(photos)
    [shard] = old.manifest.shards()
    image_id = old.table(shard, schemas.IMAGE_INDEX)["image_id"][0].as_py()
    done = take_down(old.store, "main", {shard: [image_id]}, reason="by order of the owner")
    new = Dataset(old.store, done.commit_id)
    old.store.remove(layout.object_path(shard))
    page, summary = page_of(with_masks(new), changed(with_masks(old), shard), tmp_path)
    assert (summary.num_pictures, len(pictures(page))) == (1, 2)
    page, _ = page_of(with_masks(old), changed(with_masks(old), shard), tmp_path)
    assert pictures(page) == []
    assert "by order of the owner" in page


def test_images_that_do_not_decode_are_grey(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    index = edited(before, shard, schemas.IMAGE_INDEX, lambda rows: [
        row | {"offset": 0, "size": 40, "transforms": ["made_up"]} for row in rows
    ])  # fmt: skip
    page, summary = page_of(index, changed(index, shard), tmp_path)
    assert "the stored bytes do not decode" in page
    assert (summary.num_pictures, pictures(page)) == (2, [])


def test_a_commit_without_images(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    bare = dataset_of(before.store, before.manifest.without(shard, schemas.IMAGES))
    page, _ = page_of(bare, changed(bare, shard), tmp_path)
    assert f"has no images of shard {shard[:12]}" in page


def test_flips_show_the_candidate_that_was_judged(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    other = dict.fromkeys(field.name for field in schemas.MASK_FIELDS)
    other |= {"counts": rle.encode(box_mask(0, 0, 7, 1)), "area_px": 7}
    both = edited(before, shard, SAM, setter(0, candidates=[other]))
    after = edited(both, shard, schemas.VERDICTS, setter(0, candidate=1))
    page, _ = page_of(both, after, tmp_path)
    assert "before</b> 400 px" in page
    assert "after</b> 7 px" in page
    assert "another mask" in page


def test_a_changed_mask_is_shown_though_another_was_judged(before: Dataset, tmp_path: Path) -> None:
    shard = before.manifest.shards()[0]
    table = before.table(shard, SAM)
    cell = write_cell(before.store, table, shard=shard, layer="masks/other")
    both = dataset_of(before.store, before.manifest.with_cells([cell]))
    after = edited(both, shard, "masks/other", setter(0, **mask_values(box_mask(10, 10, 30, 15))))
    page, _ = page_of(both, after, tmp_path)
    assert "after</b> 100 px" in page
    assert "with sam" in page


def test_half_of_the_pictures_are_flips(before: Dataset, tmp_path: Path) -> None:
    after = before
    for shard in before.manifest.shards():
        after = edited(after, shard, SAM, lambda rows: [
            row | mask_values(box_mask(10, 10, 30, 20)) for row in rows
        ])  # fmt: skip
    only_masks, summary = page_of(before, after, tmp_path, max_pictures=3)
    assert (summary.num_pictures, only_masks.count("px moved")) == (3, 3)
    for shard in before.manifest.shards():
        after = edited(after, shard, schemas.VERDICTS, lambda rows: [
            row | {"keep": False, "reason": "too_small"} for row in rows
        ])  # fmt: skip
    page, summary = page_of(before, after, tmp_path, max_pictures=3)
    assert (page.count("px moved"), page.count("dropped now")) == (2, 1)
    page, summary = page_of(before, after, tmp_path, max_pictures=0)
    assert (summary.num_pictures, pictures(page)) == (0, [])


def test_page_stays_under_its_limit(before: Dataset, tmp_path: Path) -> None:
    after = changed(before, before.manifest.shards()[0])
    whole, _ = page_of(before, after, tmp_path)
    page, summary = page_of(before, after, tmp_path, max_page_bytes=len(whole) - 1)
    assert summary.num_pictures == 2
    assert len(page) < len(whole)
    bare, _ = page_of(before, after, tmp_path, max_pictures=0)
    page, summary = page_of(before, after, tmp_path, max_page_bytes=len(bare) + 3000)
    assert summary.num_pictures == 0
    assert summary.num_bytes <= len(bare) + 3000


def test_a_damaged_mask(before: Dataset, tmp_path: Path) -> None:
    """The diff has found it, but a page may be made of an older diff."""
    shard = before.manifest.shards()[0]
    after = changed(before, shard)
    found = diff(before, after, options=DiffOptions(max_examples=9))
    damaged = edited(after, shard, SAM, setter(0, counts=b"5"))
    with pytest.raises(InputError, match="mask RLE covers 5 pixels"):
        write_diff_page(before, damaged, found, tmp_path / "d", options=DiffPageOptions())


def test_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="expected max_pictures of at least 0, got -1"):
        DiffPageOptions(max_pictures=-1)


def test_says_where_it_cannot_write(before: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written to"):
        page_of(before, before, tmp_path)


# -- pictures ------------------------------------------------------------------------------------

GREY = np.full((*SIZE, 3), 128, np.uint8)
BOX = (10.0, 10.0, 30.0, 30.0)


def drawn(mask: np.ndarray | None, **more: Any) -> Drawn:
    return Drawn(counts=None if mask is None else rle.encode(mask), box_xyxy=BOX, **more)


def test_went_is_red_and_came_is_green() -> None:
    up, down = box_mask(10, 10, 30, 22), box_mask(10, 18, 30, 30)
    old, new = draw_change(GREY, drawn(up), drawn(down), long_side=200, show_moved=True)
    plain = draw_change(GREY, drawn(up), drawn(down), long_side=200, show_moved=False)
    assert excess(old, RED, GREEN) > excess(plain[0], RED, GREEN) + 10
    assert excess(new, GREEN, RED) > excess(plain[1], GREEN, RED) + 5
    assert excess(plain[0], BLUE, RED) > 5
    dropped, _ = draw_change(
        GREY, drawn(up, is_dropped=True), drawn(down), long_side=200, show_moved=False
    )
    assert excess(dropped, RED, BLUE) > 5


def test_crops_to_what_is_drawn_and_no_further_than_the_photo() -> None:
    wide = box_mask(0, 0, 80, 2)
    old, new = draw_change(GREY, drawn(wide), drawn(None), long_side=160, show_moved=True)
    assert old.shape == new.shape
    assert max(old.shape[:2]) == 160
    assert old.shape[1] > old.shape[0]
    small, _ = draw_change(GREY, drawn(None), drawn(None), long_side=460, show_moved=True)
    assert small.shape == (288, 288, 3), "enlarged eightfold: 20 pixels and a margin of 8 around"


def test_a_large_photo_is_made_smaller() -> None:
    photo = np.zeros((3000, 2000, 3), np.uint8)
    side = Drawn(counts=rle.encode(np.ones((3000, 2000), np.uint8)), box_xyxy=(0, 0, 2000, 3000))
    old, _ = draw_change(photo, side, side, long_side=300, show_moved=True)
    assert old.shape == (300, 200, 3)


def test_an_empty_mask_and_a_photo_of_one_pixel() -> None:
    photo = np.zeros((1, 1, 3), np.uint8)
    empty = Drawn(counts=rle.encode(np.zeros((1, 1), np.uint8)), box_xyxy=(0, 0, 1, 1))
    old, new = draw_change(photo, empty, replace(empty, counts=None), long_side=9, show_moved=True)
    assert old.shape == new.shape == (8, 8, 3)


def test_refuses_a_mask_of_another_size() -> None:
    other = Drawn(counts=rle.encode(np.ones((5, 5), np.uint8)), box_xyxy=BOX)
    with pytest.raises(InputError, match="belongs to an image of another size"):
        draw_change(GREY, other, other, long_side=99, show_moved=True)


def test_leaves_the_photo_alone() -> None:
    photo = GREY.copy()
    draw_change(photo, drawn(box_mask(10, 10, 30, 30)), drawn(None), long_side=99, show_moved=True)
    assert (photo == GREY).all()
