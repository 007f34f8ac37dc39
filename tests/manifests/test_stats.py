"""Stats: sums over the manifest alone, layer by layer and category by category."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.manifest import Cell
from manifests.statistics import category_counts, value_counts
from manifests.stats import stats


def with_statistics(builder: Any, cell: Cell) -> Cell:
    """The cell as the steps write it, with its counts."""
    if cell.layer in (schemas.IMAGES, schemas.IMAGE_INDEX):
        return cell
    table = Dataset.table(builder.commit(), cell.shard, cell.layer)
    counts = {"ok": table.num_rows}
    if cell.layer == schemas.BOXES:
        counts = category_counts(table["category"])
    elif cell.layer == schemas.VERDICTS:
        counts = {"kept": sum(table["keep"].to_pylist()), **value_counts(table["reason"])}
    return write_cell(builder.store, table, shard=cell.shard, layer=cell.layer, statistics=counts)


def test_two_shards_are_summed(builder: Any) -> None:
    builder.image("a.jpg")
    builder.box("shoe", (0, 0, 5, 5))
    builder.box("bag", (0, 0, 9, 9), keep=False, reason="too_small")
    builder.shard()
    builder.image("b.jpg")
    builder.box("shoe", (1, 1, 5, 5))
    builder.image("empty.jpg")
    builder.shard()
    builder.cells = [with_statistics(builder, cell) for cell in builder.cells]
    dataset = builder.commit()
    found = stats(dataset)
    assert (found.num_shards, found.num_images, found.num_boxes) == (2, 3, 3)
    assert found.commit_id == dataset.commit_id
    assert list(found.categories.items()) == [("shoe", 2), ("bag", 1)]
    layers = {layer.layer: layer for layer in found.layers}
    assert set(layers) == {"boxes", "image_index", "images", "masks/mobile_sam", "verdicts"}
    assert layers["boxes"].counts == {}  # they are the categories
    assert layers["verdicts"].counts == {"kept": 2, "too_small": 1}
    assert (layers["verdicts"].num_cells, layers["verdicts"].num_rows) == (2, 3)
    sizes = [cell.num_bytes for cell in dataset.manifest.of_layer("images")]
    assert layers["images"].num_bytes == sum(sizes)


def test_no_cell_is_opened(builder: Any) -> None:
    builder.image("a.jpg")
    builder.box("shoe", (0, 0, 5, 5))
    builder.shard()
    dataset = builder.commit()
    for cell in dataset.manifest:
        path = f"{builder.store.root}/objects/{cell.object_id[:2]}/{cell.object_id}"
        if builder.store.fs.exists(path):
            builder.store.fs.rm_file(path)
    assert stats(dataset).num_images == 1


def test_an_empty_store(builder: Any) -> None:
    found = stats(builder.commit())
    assert (found.num_shards, found.num_images, found.num_boxes, found.layers) == (0, 0, 0, ())


def test_odd_category_names_come_back_as_they_are() -> None:
    names = ["a:b", "", "category:x", "a:b"]
    cell = Cell(
        shard="s", layer="boxes", object_id="o", num_rows=4, num_bytes=1,
        statistics=category_counts(pa.chunked_array([names])),
    )  # fmt: skip
    from manifests.statistics import rows_by_category

    assert rows_by_category(cell) == {"a:b": 2, "": 1, "category:x": 1}
