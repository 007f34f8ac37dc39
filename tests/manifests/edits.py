"""Datasets for tests of diff: a small shop, and copies of it in which single cells were edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.commit import Commit
from manifests.dataset import Dataset, operation
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
    dataset.store.remove(layout.object_path(object_id))


def shop_of(builder: DatasetBuilder) -> Dataset:
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
