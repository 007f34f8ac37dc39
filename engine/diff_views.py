"""The examples of a diff as a page shows them: pictures, names and verdicts of both sides."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.decode import ImageRejectedError, ImageRgb, decode_stored
from engine.diff_pictures import Drawn, draw_change
from engine.report_rows import DROPPED, KEPT, judged_rows
from manifests import rle, schemas
from manifests.dataset import Dataset
from manifests.diff_result import Example
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.html_page import PictureQuality
from manifests.image_tar import STREAM_COLUMNS
from teachers.overlay import encode_jpeg

Row = dict[str, Any]  # Any: one value of each column
_PREFIX = schemas.masks_layer("")
_INDEX_COLUMNS = ["file_name", "source", "height", "width", *STREAM_COLUMNS]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideView:
    """A box on one side of a diff.

    Attributes:
        picture: a data: URI, or None.
        state: "kept", a drop reason, or why there is neither.
        judged: whose mask the verdict is on.
        area_px: of the mask that is drawn; None if there is none.
    """

    picture: str | None
    state: str
    is_kept: bool
    is_dropped: bool
    judged: str | None
    area_px: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleView:
    """One changed box.

    Attributes:
        teacher: whose mask changed; None where it is the verdict that did.
        picture_hw: height and width of both pictures.
        missing: a sentence on why there are no pictures.
    """

    example: Example
    teacher: str | None
    category: str
    file_name: str
    source: str
    size_hw: tuple[int, int]
    before: SideView
    after: SideView
    picture_hw: tuple[int, int]
    missing: str | None


def example_views(
    a: Dataset, b: Dataset, examples: Sequence[Example], quality: PictureQuality
) -> list[ExampleView]:
    """The examples in their order; the rows of each shard are read once.

    Raises:
        ObjectMissingError, ObjectDamagedError: a table that was compared is not there any more.
        InputError: a mask is damaged.
    """
    views: dict[Example, ExampleView] = {}
    pairs = dict.fromkeys((one.shard_before, one.shard_after) for one in examples)
    for before, after in pairs:
        mine = [one for one in examples if (one.shard_before, one.shard_after) == (before, after)]
        old = _rows(a, before, [(one.layer, one.row_before) for one in mine])
        new = _rows(b, after, [(one.layer, one.row_after) for one in mine])
        for example, was, now in zip(mine, old, new, strict=True):
            views[example] = _view(example, was, now, _photo(a, was, b, now), quality)
    return [views[example] for example in examples]


def _rows(dataset: Dataset, shard: str, wanted: Sequence[tuple[str, int]]) -> Iterator[Row]:
    """Rows of `judged_rows` with their image's; `counts` are the layer's own, if it is one."""
    chosen = pa.array([row for _, row in wanted], pa.int64())
    has_flips = any(layer == schemas.VERDICTS for layer, _ in wanted)
    judged = judged_rows(dataset, shard, with_counts=has_flips).take(chosen)
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS)
    images = index.take(judged["image_row"]).to_pylist()
    masks = {
        layer: _own_masks(dataset, shard, layer).take(chosen)
        for layer in {layer for layer, _ in wanted}
        if layer != schemas.VERDICTS
    }
    for number, (row, image) in enumerate(zip(judged.to_pylist(), images, strict=True)):
        layer = wanted[number][0]
        own = {"counts": masks[layer][number].as_py()} if layer in masks else {}
        yield {**image, **row, **own, "shard": shard}


def _own_masks(dataset: Dataset, shard: str, layer: str) -> pa.ChunkedArray:
    """[N] counts of a layer's masks, null where it has none."""
    table = dataset.table(shard, layer, columns=["status", "counts"])
    return pc.if_else(pc.equal(table["status"], schemas.OK), table["counts"], None)


def _photo(a: Dataset, was: Row, b: Dataset, now: Row) -> ImageRgb | str:
    """The photo of a box, the new side's or else the old side's, which is the same; or a sentence
    that says why there is none."""
    found = _stored_photo(b, now)
    if isinstance(found, str) and was["shard"] != now["shard"]:
        other = _stored_photo(a, was)
        return found if isinstance(other, str) else other
    return found


def _stored_photo(dataset: Dataset, row: Row) -> ImageRgb | str:
    if dataset.manifest.get(row["shard"], schemas.IMAGES) is None:
        return f"commit {dataset.commit_id[:12]} has no images of shard {row['shard'][:12]}"
    index = pa.Table.from_pylist([{name: row[name] for name in STREAM_COLUMNS}])
    try:
        [data] = dataset.images(row["shard"], index)
        photo = decode_stored(data)
    except (ObjectMissingError, ObjectDamagedError) as error:
        return str(error)
    except ImageRejectedError as error:
        return f"the stored bytes do not decode: {error.detail}"
    if photo.shape[:2] != (row["height"], row["width"]):
        return (
            f"the stored photo has {photo.shape[0]} x {photo.shape[1]} pixels, expected "
            f"{row['height']} x {row['width']}"
        )
    return photo


def _view(
    example: Example, was: Row, now: Row, photo: ImageRgb | str, quality: PictureQuality
) -> ExampleView:
    is_flip = example.layer == schemas.VERDICTS
    drawn = None
    if not isinstance(photo, str):
        drawn = draw_change(
            photo, _drawn(was, is_flip), _drawn(now, is_flip), long_side=quality.long_side,
            show_moved=not is_flip,
        )  # fmt: skip
    before, after = drawn or (None, None)
    return ExampleView(
        example=example,
        teacher=None if is_flip else example.layer.removeprefix(_PREFIX),
        category=now["category"],
        file_name=now["file_name"],
        source=now["source"],
        size_hw=(now["height"], now["width"]),
        before=_side(was, before, quality),
        after=_side(now, after, quality),
        picture_hw=(before.shape[0], before.shape[1]) if before is not None else (0, 0),
        missing=photo if isinstance(photo, str) else None,
    )


def _drawn(row: Row, is_flip: bool) -> Drawn:
    x0, y0, x1, y1 = row["box_xyxy"]
    is_dropped = is_flip and row["outcome"] == DROPPED
    return Drawn(counts=row["counts"], box_xyxy=(x0, y0, x1, y1), is_dropped=is_dropped)


def _side(row: Row, picture: ImageRgb | None, quality: PictureQuality) -> SideView:
    area_px = None
    if row["counts"] is not None:
        size_hw = row["height"], row["width"]
        rle.check(row["counts"], size_hw=size_hw)
        area_px = rle.area(row["counts"], size_hw=size_hw)
    return SideView(
        picture=None if picture is None else _data_uri(picture, quality),
        state=row["outcome"] if row["outcome"] == KEPT else row["reason"] or row["outcome"],
        is_kept=row["outcome"] == KEPT,
        is_dropped=row["outcome"] == DROPPED,
        judged=row["teacher"],
        area_px=area_px,
    )


def _data_uri(picture: ImageRgb, quality: PictureQuality) -> str:
    encoded = base64.b64encode(encode_jpeg(picture, quality=quality.jpeg)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"
