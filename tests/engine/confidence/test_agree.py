"""Agreement: the IoU that pycocotools finds, for every pair of outputs of two teachers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco

from engine.confidence.agree import AgreeConfig, agree, pair_table
from engine.confidence.outputs import Output, OutputTable
from manifests import rle, schemas
from manifests.dataset import Dataset
from manifests.errors import InputError, NothingToCommitError
from manifests.store import Store
from tests.engine.confidence.planted_masks import Plan, memory, planted, replaced, rows_of

Mask = np.ndarray[Any, np.dtype[np.uint8]]
SIZE_HW = (30, 40)


def output_table(masks: list[Mask | None]) -> OutputTable:
    counts = [None if mask is None else rle.encode(mask) for mask in masks]
    return OutputTable(
        has_mask=np.array([mask is not None for mask in masks]),
        columns={"counts": pa.array(counts, pa.binary())},
    )


def masks_of(seed: int, size: int) -> list[Mask | None]:
    """Blobs; every fifth is missing."""
    rng, found = np.random.default_rng(seed), []
    for number in range(size):
        mask = np.zeros(SIZE_HW, np.uint8)
        y, x = rng.integers(0, 20, 2)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 25)] = 1
        mask &= rng.random(SIZE_HW) < 0.8
        found.append(None if number % 5 == seed % 5 else mask)
    return found


def coco_iou(first: Mask, second: Mask) -> float:
    one, other = (coco.encode(np.asfortranarray(mask)) for mask in (first, second))
    return float(coco.iou([one], [other], [False])[0, 0])


def test_pairs_are_what_pycocotools_says_and_null_where_one_is_missing() -> None:
    names, size = ("a", "a.1", "b", "c.2"), 40
    masks = {name: masks_of(seed, size) for seed, name in enumerate(names)}
    outputs = {Output.of(name): output_table(drawn) for name, drawn in masks.items()}
    sizes = pa.table({"height": [SIZE_HW[0]] * size, "width": [SIZE_HW[1]] * size})
    table = pair_table(outputs, sizes, num_rows=size)
    # No pair within a teacher; names in their order.
    assert table.column_names == ["a.1|b", "a.1|c.2", "a|b", "a|c.2", "b|c.2"]
    assert {field.type for field in table.schema} == {pa.float32()}
    for name in table.column_names:
        first, second = schemas.pair_of(name)
        for row, value in enumerate(table[name].to_pylist()):
            one, other = masks[first][row], masks[second][row]
            if one is None or other is None:
                assert value is None
            else:
                assert value == pytest.approx(coco_iou(one, other), abs=1e-6)


def test_nothing_to_compare() -> None:
    assert pair_table({}, None, num_rows=3).num_columns == 0
    alone = {Output.of("a"): output_table([None]), Output.of("a.1"): output_table([None])}
    assert pair_table(alone, None, num_rows=1).num_columns == 0


# -- on a dataset --------------------------------------------------------------------------------


@pytest.fixture
def dataset() -> Dataset:
    missing = frozenset({("a", 0), ("b", 3), ("a", 4), ("b", 4)})
    plan = Plan(num_images=6, per_image=2, missing=missing, is_gold=lambda number: False)
    return planted(memory("agree"), plan)


def run(store: Store, *teachers: str) -> Dataset:
    return Dataset(store, agree(store, AgreeConfig(teachers=teachers)))


def test_the_layer_has_a_row_for_each_box_and_a_column_for_each_pair(dataset: Dataset) -> None:
    made = run(dataset.store)
    rows = rows_of(made, schemas.AGREEMENT)
    a, b = (rows_of(made, schemas.masks_layer(name)) for name in "ab")
    assert len(rows) == 12
    for place, row in enumerate(rows):
        assert set(row) == {"a|b", "a.1|b", "a.2|b"}
        if place in {0, 3, 4}:
            assert set(row.values()) == {None}
            continue
        drawn = [a[place], *a[place]["candidates"]]
        for name, one in zip(("a|b", "a.1|b", "a.2|b"), drawn, strict=True):
            # Of columns from the same edge the smaller is in the larger.
            small, large = sorted((one["area_px"], b[place]["area_px"]))
            assert row[name] == pytest.approx(small / large)


def test_the_ledger_says_which_boxes_have_one_mask_alone(dataset: Dataset) -> None:
    made = run(dataset.store)
    made.commit.ledger.check()
    dropped = [dict(row.dropped) for row in made.commit.ledger.rows]
    assert sum(row.get("no_second_mask", 0) for row in dropped) == 3
    assert sum(row.kept for row in made.commit.ledger.rows) == 9
    [first, second] = made.manifest.of_layer(schemas.AGREEMENT)
    assert first.statistics["compared"] + second.statistics["compared"] == 9
    assert made.commit.operation.config == {"teachers": ["a", "b"]}


def test_again_there_is_nothing_to_commit_and_other_masks_are_compared_again(
    dataset: Dataset,
) -> None:
    first = run(dataset.store)
    with pytest.raises(NothingToCommitError):
        run(dataset.store)
    replaced(dataset.store, "masks/b", lambda row: {"counts": None, "status": "failed"})
    again = run(dataset.store)
    assert {value for row in rows_of(again, "agreement") for value in row.values()} == {None}
    assert rows_of(first, "agreement") != rows_of(again, "agreement")


def test_one_teacher_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"expected masks of two teachers, but .* are a, b; run"):
        run(dataset.store, "a")
    with pytest.raises(InputError, match=r"expected masks of 'c', but .* are a, b; run"):
        run(dataset.store, "a", "b", "c")
    alone = planted(memory("alone"), Plan(num_images=1, teachers=("a",)))
    with pytest.raises(InputError, match=r"expected masks of two teachers, but .* are a; run"):
        run(alone.store)
