"""Ingest on real files: what becomes of every good and every bad image and box."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.decode import decode_stored
from engine.ingest import ingest
from manifests import rle, schemas
from manifests.cells import read_table
from manifests.dataset import Dataset
from manifests.errors import InputError, NothingToCommitError, SourceSyntaxError
from manifests.image_tar import stream_images
from manifests.store import Store

Ingest = Callable[..., Dataset]


def ledger(dataset: Dataset, layer: str) -> dict[str, int]:
    """`inputs`, `kept`, and every reason, of a layer."""
    row = next(row for row in dataset.commit.ledger.totals() if row.layer == layer)
    return {"inputs": row.inputs, "kept": row.kept, **row.dropped, **row.failed}


def rows(dataset: Dataset, layer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for shard in dataset.manifest.shards():
        found += dataset.table(shard, layer).to_pylist()
    return found


def pixels(dataset: Dataset, row: int = 0) -> np.ndarray:
    shard = dataset.manifest.shards()[0]
    entry = dataset.table(shard, schemas.IMAGE_INDEX).to_pylist()[row]
    [data] = stream_images(dataset.store, shard, [(entry["offset"], entry["size"])])
    return decode_stored(data)


def test_good_images_keep_their_bytes_names_ids_and_boxes(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [10, 5, 20, 30])
    photos.add("b.jpg", [0, 0, 80, 60], [1.5, 2.5, 3, 4])
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 2}
    assert ledger(dataset, "boxes") == {"inputs": 3, "kept": 3}
    index, boxes = rows(dataset, "image_index"), rows(dataset, "boxes")
    assert [row["file_name"] for row in index] == ["a.jpg", "b.jpg"]
    assert index[0]["transforms"] == []
    assert boxes[0]["box_xyxy"] == [10, 5, 30, 35]
    assert [box["image_row"] for box in boxes] == [0, 1, 1]
    assert [box["source_annotation_id"] for box in boxes] == ["1", "2", "3"]
    assert boxes[1]["category"] == "shoe"
    shard = dataset.manifest.shards()[0]
    [data] = stream_images(dataset.store, shard, [(index[0]["offset"], index[0]["size"])])
    assert data == (photos.images / "a.jpg").read_bytes()


def test_shards_are_full_by_images_and_by_bytes(photos: Any, store: Store) -> None:
    from dataclasses import replace

    for number in range(5):
        photos.add(f"{number}.jpg")
    size = (photos.images / "0.jpg").stat().st_size
    by_images = replace(photos.config(), shard_images=2)
    first = Dataset(store, ingest(store, by_images))
    assert [cell.num_rows for cell in first.manifest.of_layer("images")] == [2, 2, 1]
    other = Store("memory://by-bytes")
    from manifests.dataset import init

    init(other)
    by_bytes = replace(photos.config(), shard_bytes=int(size * 2.5))
    second = Dataset(other, ingest(other, by_bytes))
    assert max(cell.num_rows for cell in second.manifest.of_layer("images")) <= 3
    assert sum(cell.num_rows for cell in second.manifest.of_layer("images")) == 5


def test_images_without_boxes_are_kept_and_counted(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg")
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 1, "kept": 1}
    assert dataset.cell(dataset.manifest.shards()[0], "boxes").num_rows == 0


def bomb() -> bytes:
    """A PNG that says it is 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "missing_file"),
        (b"this is not an image", "not_an_image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not_an_image"),
        (bomb(), "too_many_pixels"),
    ],
    ids=["missing", "text", "header only", "bomb"],
)
def test_hopeless_images_fail_with_their_boxes(
    photos: Any, ingested: Ingest, content: bytes, reason: str
) -> None:
    photos.add("good.jpg", [1, 1, 20, 20])
    photos.add("bad.jpg", [1, 1, 20, 20], [2, 2, 30, 30], content=content)
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 1, reason: 1}
    assert ledger(dataset, "boxes") == {"inputs": 3, "kept": 1, f"image_{reason}": 2}
    rejects = read_table(dataset.store, dataset.commit.rejects or "").to_pylist()
    assert {row["file_name"] for row in rejects if row["layer"] == "images"} == {"bad.jpg"}


def test_an_empty_file_and_a_truncated_one(
    photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    whole = make_jpeg(make_image(9))
    photos.add("cut.jpg", [1, 1, 20, 20], content=whole[: len(whole) // 2])
    photos.add("empty.jpg", [1, 1, 20, 20])
    (photos.images / "empty.jpg").write_bytes(b"")
    photos.add("good.jpg")
    assert ledger(ingested(photos), "images") == {
        "inputs": 3, "kept": 1, "undecodable": 1, "empty_file": 1,
    }  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["upright", "raw"])
def test_exif_rotation_is_applied_once_to_image_box_and_mask(
    photos: Any, ingested: Ingest, make_jpeg: Any, orientation: int, frame: str
) -> None:
    """A red rectangle stays under its box and its mask, in whichever grid they were drawn."""
    upright = np.full((60, 80, 3), 128, dtype=np.uint8)
    upright[::7] = 90
    upright[5:25, 10:50] = (250, 10, 10)
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    carrier = Image.fromarray(upright)
    carrier.getexif()[0x0112] = inverse
    from PIL import ImageOps

    raw = np.asarray(ImageOps.exif_transpose(carrier))
    tagged = Image.Exif()
    tagged[0x0112] = orientation
    grid = upright if frame == "upright" else raw
    is_red = (grid[..., 0] > 200) & (grid[..., 1] < 50)
    ys, xs = np.nonzero(is_red)
    box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    size = None if frame == "upright" and orientation < 5 else grid.shape[:2]
    image_id = photos.add(
        "a.jpg", content=make_jpeg(Image.fromarray(raw), exif=tagged), size_hw=size
    )
    counts = rle.encode(is_red.astype(np.uint8)).decode()
    photos.annotate(image_id, box, segmentation={"size": list(grid.shape[:2]), "counts": counts})
    ambiguous = {"exif_frame": frame} if orientation in (2, 3, 4) else {}
    dataset = ingested(photos, **ambiguous)
    stored = pixels(dataset).astype(int)
    assert stored.shape == (60, 80, 3)
    [row] = rows(dataset, "boxes")
    assert row["box_xyxy"] == [10, 5, 50, 25]
    [mask] = rows(dataset, schemas.MASKS_HUMAN)
    inside = rle.decode(mask["counts"], size_hw=(60, 80)).astype(bool)
    assert inside[5:25, 10:50].all()
    assert inside.sum() == 20 * 40
    assert (stored[inside][:, 0] - stored[inside][:, 1] > 130).mean() > 0.9
    assert (stored[~inside][:, 0] - stored[~inside][:, 1] > 130).mean() < 0.01
    expected = [] if orientation == 1 else [f"exif_{orientation}"]
    assert rows(dataset, "image_index")[0]["transforms"] == expected


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def odd_images() -> dict[str, tuple[bytes, list[str]]]:
    base = Image.fromarray(np.random.default_rng(3).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    grey16 = Image.fromarray(
        np.random.default_rng(4).integers(0, 65535, (60, 80)).astype(np.uint16)
    )
    frames = [base.convert("P"), base.rotate(180).convert("P")]
    alpha = base.copy()
    alpha.putalpha(Image.fromarray(np.full((60, 80), 100, np.uint8)))
    return {
        "cmyk.jpg": (encoded(base.convert("CMYK"), "JPEG"), ["cmyk"]),
        "grey16.png": (encoded(grey16, "PNG"), ["16_bit"]),
        "grey.png": (encoded(base.convert("L"), "PNG"), []),
        "palette.png": (encoded(base.convert("P"), "PNG"), []),
        "alpha.png": (encoded(alpha, "PNG"), ["alpha_on_white"]),
        "animated.gif": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            ["first_frame", "from_gif"],
        ),
        "photo.bmp": (encoded(base, "BMP"), ["from_bmp"]),
        "photo.webp": (encoded(base, "WEBP"), []),
    }


@pytest.mark.parametrize("name", sorted(odd_images()))
def test_odd_images_are_stored_as_plain_ones(photos: Any, ingested: Ingest, name: str) -> None:
    content, transforms = odd_images()[name]
    photos.add(name, [1, 1, 20, 20], content=content)
    dataset = ingested(photos)
    [entry] = rows(dataset, "image_index")
    assert entry["transforms"] == transforms
    assert (entry["height"], entry["width"]) == (60, 80)
    shape = pixels(dataset).shape
    assert shape == (60, 80, 3)


def test_sixteen_bit_grey_uses_the_whole_range(photos: Any, ingested: Ingest) -> None:
    photos.add("grey16.png", content=odd_images()["grey16.png"][0])
    stored = pixels(ingested(photos))
    assert stored.min() < 10
    assert stored.max() > 245


def test_a_size_that_contradicts_the_annotation(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [1, 1, 20, 20], size_hw=(100, 100))
    photos.add("b.jpg")
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 1, "image_size_mismatch": 1}
    assert ledger(dataset, "boxes") == {"inputs": 1, "kept": 0, "image_size_mismatch": 1}


def test_a_resized_photo_can_have_its_boxes_rescaled(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [20, 20, 40, 60], size_hw=(120, 160))
    dataset = ingested(photos, on_size_mismatch="rescale")
    assert rows(dataset, "boxes")[0]["box_xyxy"] == [10, 10, 30, 40]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([100, 10, 20, 20], "box_outside_image"),
        ([-50, -50, 20, 20], "box_outside_image"),
        ([10, 10, 0, 20], "box_zero_area"),
        ([10, 10, -5, 20], "box_negative_size"),
        ([float("nan"), 10, 5, 20], "box_not_finite"),
        ([float("inf"), 10, 5, 20], "box_not_finite"),
        ([10, 10, 0.5, 20], "box_too_small"),
        ([1, 2, 3], "malformed_box"),
        (["a", 2, 3, 4], "malformed_box"),
        (None, "malformed_box"),
    ],
)
def test_impossible_boxes_are_counted(photos: Any, ingested: Ingest, box: Any, reason: str) -> None:
    image_id = photos.add("a.jpg", [1, 1, 20, 20])
    photos.annotate(image_id, box)
    dataset = ingested(photos)
    assert ledger(dataset, "boxes") == {"inputs": 2, "kept": 1, reason: 1}


def test_boxes_over_the_edge_are_cut_and_say_so(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [-10, -10, 30, 30], [0, 0, 80, 60], [0, 0, 800, 600])
    dataset = ingested(photos)
    boxes = rows(dataset, "boxes")
    assert [box["box_xyxy"] for box in boxes] == [[0, 0, 20, 20], [0, 0, 80, 60]]
    assert [box["flags"] for box in boxes] == [["clipped"], []]
    assert ledger(dataset, "boxes")["duplicate_box"] == 1


def test_unknown_and_duplicate_ids(photos: Any, ingested: Ingest) -> None:
    image_id = photos.add("a.jpg", [1, 1, 20, 20])
    photos.annotate(999, [1, 1, 20, 20])
    photos.annotate(image_id, [2, 2, 20, 20], category_id=55)
    photos.annotate(image_id, [3, 3, 20, 20], id=1)
    photos.document["images"].append(dict(photos.document["images"][0]))
    dataset = ingested(photos)
    assert ledger(dataset, "boxes") == {
        "inputs": 4, "kept": 1, "unknown_image_id": 1, "unknown_category_id": 1,
        "duplicate_annotation_id": 1,
    }  # fmt: skip
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 1, "duplicate_image_id": 1}


def test_one_picture_under_two_names_is_one_image_with_both_origins(
    photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    content = make_jpeg(make_image(1))
    photos.add("a.jpg", [1, 1, 20, 20], content=content)
    photos.add("b.jpg", [1, 1, 20, 20], [5, 5, 20, 20], content=content)
    dataset = ingested(photos)
    [entry] = rows(dataset, "image_index")
    assert [origin["file_name"] for origin in entry["origins"]] == ["a.jpg", "b.jpg"]
    assert [box["box_xyxy"] for box in rows(dataset, "boxes")] == [[1, 1, 21, 21], [5, 5, 25, 25]]
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 1, "duplicate_image": 1}
    assert ledger(dataset, "boxes") == {"inputs": 3, "kept": 2, "duplicate_box": 1}


def test_equal_pictures_keep_the_grid_that_each_entry_declares(
    photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    """One rotated photo three times: boxes upright, in the raw grid, and of an impossible size."""
    exif = Image.Exif()
    exif[0x0112] = 6  # raw 60 x 80 becomes upright 80 x 60
    content = make_jpeg(make_image(1), exif=exif)
    photos.add("a.jpg", [10, 20, 5, 6], content=content, size_hw=None)
    photos.add("b.jpg", [10, 20, 5, 6], content=content, size_hw=(60, 80))
    photos.add("c.jpg", [1, 1, 5, 6], content=content, size_hw=(999, 10))
    dataset = ingested(photos)
    boxes = [box["box_xyxy"] for box in rows(dataset, "boxes")]
    assert boxes == [[10, 20, 15, 26], [60 - 26, 10, 60 - 20, 15]]
    assert ledger(dataset, "boxes") == {"inputs": 3, "kept": 2, "image_size_mismatch": 1}
    assert ledger(dataset, "images") == {"inputs": 3, "kept": 1, "duplicate_image": 2}


def test_two_datasets_of_one_name_share_no_ids(
    photos: Any, more_photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    photos.add("a.jpg", [1, 1, 20, 20])
    more_photos.add("a.jpg", [1, 1, 20, 20], content=make_jpeg(make_image(77)))
    ingested(photos, "coco")
    ids = [box["annotation_id"] for box in rows(ingested(more_photos, "coco"), "boxes")]
    assert len(set(ids)) == 2


def test_the_same_picture_from_two_sources_is_one_image(
    photos: Any, more_photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    content = make_jpeg(make_image(1))
    photos.add("a.jpg", [1, 1, 20, 20], content=content)
    photos.add("other.jpg", [3, 3, 9, 9])
    before = ingested(photos, "first")
    more_photos.add("z.jpg", [30, 30, 9, 9], [1, 1, 20, 20], content=content)
    after = ingested(more_photos, "second")
    assert after.manifest.of_layer("images") == before.manifest.of_layer("images")
    entry = rows(after, "image_index")[0]
    assert [origin["source"] for origin in entry["origins"]] == ["first", "second"]
    boxes = rows(after, "boxes")
    assert [box["image_row"] for box in boxes] == [0, 0, 1]
    assert [box["source"] for box in boxes] == ["first", "second", "first"]
    assert ledger(after, "images") == {"inputs": 1, "kept": 0, "already_in_dataset": 1}
    assert ledger(after, "boxes") == {"inputs": 2, "kept": 1, "duplicate_box": 1}


def test_the_same_source_again_changes_nothing(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [1, 1, 20, 20])
    ingested(photos)
    with pytest.raises(NothingToCommitError):
        ingested(photos)


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/hostname", "a/../../out.jpg", "C:\\x.jpg"])
def test_names_that_lead_out_are_refused(photos: Any, ingested: Ingest, name: str) -> None:
    (photos.folder / "out.jpg").write_bytes(b"secret")
    photos.document["images"].append({"id": 77, "file_name": name, "height": 60, "width": 80})
    photos.annotate(77, [1, 1, 20, 20])
    photos.add("good.jpg")
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 2, "kept": 1, "unsafe_file_name": 1}
    assert ledger(dataset, "boxes") == {"inputs": 1, "kept": 0, "image_unsafe_file_name": 1}


def test_a_link_out_of_the_root_is_refused(photos: Any, ingested: Ingest, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"secret")
    photos.add("good.jpg")
    photos.add("link.jpg", content=b"")
    (photos.images / "link.jpg").symlink_to(outside)
    assert ledger(ingested(photos), "images")["unsafe_file_name"] == 1


def test_black_blurry_and_tiny_photos_are_quarantined_by_policy(
    photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    from PIL import ImageFilter

    blurred = make_image(1, size_hw=(300, 400)).filter(ImageFilter.GaussianBlur(12))
    photos.add("black.jpg", content=make_jpeg(Image.new("RGB", (80, 60))))
    photos.add("white.jpg", content=make_jpeg(Image.new("RGB", (80, 60), "white")))
    photos.add("blurry.jpg", content=make_jpeg(blurred), size_hw=None)
    photos.add("tiny.jpg", content=make_jpeg(make_image(5, size_hw=(10, 80))), size_hw=(10, 80))
    photos.add("good.jpg")
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {
        "inputs": 5, "kept": 1, "quarantined_too_dark": 1, "quarantined_overexposed": 1,
        "quarantined_blurry": 1, "quarantined_too_small": 1,
    }  # fmt: skip
    assert len(rows(dataset, "image_index")) == 5


def test_crowd_flags_and_federated_lists_survive(photos: Any, ingested: Ingest) -> None:
    image_id = photos.add("a.jpg")
    photos.annotate(image_id, [1, 1, 20, 20], iscrowd=1)
    dataset = ingested(photos)
    assert rows(dataset, "boxes")[0]["is_crowd"] is True


def test_human_masks_are_kept_and_bad_ones_counted(photos: Any, ingested: Ingest) -> None:
    image_id = photos.add("a.jpg")
    mask = np.zeros((60, 80), np.uint8)
    mask[5:20, 5:30] = 1
    good = {"size": [60, 80], "counts": rle.encode(mask).decode()}
    photos.annotate(image_id, [5, 5, 25, 15], segmentation=good)
    photos.annotate(image_id, [5, 5, 26, 15], segmentation=[[5, 5, 31, 5, 31, 20, 5, 20]])
    photos.annotate(image_id, [5, 5, 27, 15], segmentation={**good, "size": [61, 80]})
    photos.annotate(image_id, [5, 5, 28, 15], segmentation={**good, "counts": good["counts"] * 2})
    photos.annotate(image_id, [5, 5, 29, 15], segmentation=[[1, 2]])
    photos.annotate(image_id, [5, 5, 30, 15], segmentation=[])
    photos.annotate(image_id, [5, 5, 31, 15])
    dataset = ingested(photos)
    counted = ledger(dataset, schemas.MASKS_HUMAN)
    assert counted["kept"] == 2
    assert counted["unusable_mask"] >= 3
    human = rows(dataset, schemas.MASKS_HUMAN)
    assert [row["status"] for row in human] == ["ok", "ok", *["absent"] * 5]
    assert human[0]["area_px"] == 15 * 25
    assert human[0]["box_iou"] == pytest.approx(1.0)


def test_2000_boxes_on_one_image(photos: Any, ingested: Ingest) -> None:
    boxes = [[x, y, 1.5, 1.5] for x in range(60) for y in range(40)][:2000]
    photos.add("a.jpg", *boxes)
    assert ledger(ingested(photos), "boxes") == {"inputs": 2000, "kept": 2000}


def test_broken_json_says_where(photos: Any, store: Store) -> None:
    photos.add("a.jpg")
    config = photos.config()
    Path(config.source.annotations).write_text('{\n "images": [\n  {"id": 1,,}\n ]}')
    with pytest.raises(SourceSyntaxError, match="line 3") as caught:
        ingest(store, config)
    assert caught.value.line == 3


def test_a_source_without_images_is_refused(photos: Any, store: Store) -> None:
    with pytest.raises(InputError, match="no images"):
        ingest(store, photos.config())


def test_a_missing_image_root_is_refused(photos: Any, store: Store) -> None:
    photos.add("a.jpg")
    config = photos.config()
    photos.images.rename(photos.folder / "moved")
    with pytest.raises(InputError, match="images"):
        ingest(store, config)


def test_only_bad_images_still_make_a_commit_with_their_ledger(
    photos: Any, ingested: Ingest
) -> None:
    photos.add("a.jpg", [1, 1, 20, 20], content=b"junk")
    dataset = ingested(photos)
    assert ledger(dataset, "images") == {"inputs": 1, "kept": 0, "not_an_image": 1}


def test_ids_do_not_depend_on_the_order_of_the_file(
    photos: Any, store: Store, ingested: Ingest
) -> None:
    photos.add("a.jpg", [1, 1, 20, 20])
    photos.add("b.jpg", [1, 1, 20, 20])
    first = {row["annotation_id"] for row in rows(ingested(photos), "boxes")}
    photos.document["annotations"].reverse()
    photos.document["images"].reverse()
    from manifests.dataset import init

    other = Store("memory://other-order")
    init(other)
    second = Dataset(other, ingest(other, photos.config()))
    assert {row["annotation_id"] for row in rows(second, "boxes")} == first


def test_the_configuration_that_made_a_commit_is_in_it(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg")
    operation = ingested(photos, min_sharpness=2.5).commit.operation
    assert operation.config["policy"]["min_sharpness"] == 2.5
    assert json.dumps(operation.config)
