"""fsck on agreement and confidence: right ones, wrong ones, and those made of older masks."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.fsck import FsckReport
from manifests.manifest import Cell
from tests.manifests.computed_cells import computed_cell, confidence_table, shares
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.damage import assert_says, damage_in, fill, look
from tests.manifests.older_cells import as_older

_SAM, _BOX = "mobile_sam", "box"
_CALIBRATOR = b'{"heads": {}}'


@pytest.fixture
def dataset(builder: DatasetBuilder) -> Dataset:
    """The first shard has three boxes, masks by two teachers (`box` none for the second) and two
    candidates of mobile_sam for the third."""
    fill(builder)
    images = builder.cells[0]
    masks = next(cell for cell in builder.cells if cell.layer == schemas.masks_layer(_SAM))
    made = builder.commit()
    rows = made.table(images.shard, masks.layer).to_pylist()
    for row in rows:
        row["candidates"] = []
    rows[1] = mask_row(None, (12, 20), status=schemas.FAILED, reason="too_small")
    table = pa.Table.from_pylist(rows, schema=schemas.MASKS_SCHEMA)
    layer = schemas.masks_layer(_BOX)
    builder.cells.append(write_cell(builder.store, table, shard=images.shard, layer=layer))
    return builder.commit()


def _confidence(**changes: list[float | None]) -> pa.Table:
    outputs = {
        "box": [0.5, None, 0.25], "mobile_sam": [0.75, 0.5, 0.5],
        "mobile_sam.1": [None, None, 0.875], "mobile_sam.2": [None, None, 0.0],
    }  # fmt: skip
    return confidence_table(outputs | changes)


def _agreement(**changes: list[float | None]) -> pa.Table:
    columns = {
        "box|mobile_sam": [1.0, None, 0.5], "box|mobile_sam.1": [None, None, 0.25],
        "box|mobile_sam.2": [None, None, 0.0],
    }  # fmt: skip
    return pa.table(shares(columns | changes))


def _look_at(dataset: Dataset, layer: str, table: pa.Table, **more: object) -> FsckReport:
    calibrator = dataset.store.put_bytes(_CALIBRATOR).object_id
    inputs = (calibrator,) if layer == schemas.CONFIDENCE else ()
    cell = computed_cell(dataset, dataset.manifest.shards()[0], layer, table, *inputs)
    return _with(dataset, replace(cell, **more), calibrator)  # type: ignore[arg-type]  # of Cell


def _with(dataset: Dataset, cell: Cell, calibrator: str) -> FsckReport:
    manifest = dataset.manifest.with_cells([cell]).save(dataset.store)
    commit = replace(dataset.commit, manifest=manifest, attached={"calibrator": calibrator})
    return look(dataset.store, ref=commit.save(dataset.store))


def test_right_ones_have_no_findings(dataset: Dataset) -> None:
    assert _look_at(dataset, schemas.CONFIDENCE, _confidence()).findings == ()
    assert _look_at(dataset, schemas.AGREEMENT, _agreement()).findings == ()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (_confidence().slice(1), "confidence has 2 rows, but its boxes have 3"),
        (_confidence().drop(["teacher"]), "confidence lacks the column 'teacher'"),
        (
            _confidence().set_column(
                3, "box", pa.array([0.5, None, 0.25], pa.float64())),
            "has 'box' as double, expected float",
        ),
        (_confidence(mobile_sam=[1.5, 0.5, 0.5]), "'confidence' that is not from 0 to 1 in row 0"),
        (_confidence(mobile_sam=[0.75, -0.5, 0.5]), "'mobile_sam' that is not from 0 to 1 in row"),
        (
            _confidence(mobile_sam=[0.75, float("nan"), 0.5]),
            "has a 'mobile_sam' that is not from 0 to 1 in row 1",
        ),
        (
            _confidence(box=[0.5, 0.25, 0.25]),
            "has 'box' of a mask that 'masks/box' does not have in row 1",
        ),
        (
            _confidence(**{"mobile_sam.2": [None, 0.125, 0.0]}),
            "has 'mobile_sam.2' of a mask that 'masks/mobile_sam' does not have in row 1",
        ),
        (
            _confidence(other=[0.0, None, None]),
            "has 'other', but its shard does not have masks of 'masks/other'",
        ),
        (
            _confidence().set_column(1, "teacher", pa.array([None, None, "masks/box"], "string")),
            "has a confidence of no mask, or a mask without any, in row 0 and 1 more",
        ),
        (
            _confidence().set_column(2, "candidate", pa.array([0, 0, 2], pa.int16())),
            "names an output that does not have the row's confidence in row 2",
        ),
    ],
)  # fmt: skip
def test_wrong_confidence(dataset: Dataset, table: pa.Table, says: str) -> None:
    found = damage_in(_look_at(dataset, schemas.CONFIDENCE, table, statistics={}))
    assert any(says in finding.what for finding in found), found
    assert all(finding.cells and "take that back" in finding.remedy for finding in found)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (_agreement().slice(1), "agreement has 2 rows, but its boxes have 3"),
        (
            _agreement(**{"box|mobile_sam": [1.0, None, 1.5]}),
            "'box|mobile_sam' that is not from 0 to 1 in row 2",
        ),
        (
            _agreement(**{"box|mobile_sam": [1.0, 0.5, 0.5]}),
            "has 'box|mobile_sam' of a mask that 'masks/box' does not have in row 1",
        ),
        (
            _agreement(**{"box|other": [None, None, None]}),
            "has 'box|other', but its shard does not have masks of 'masks/other'",
        ),
        (_agreement(value=[None] * 3), "a column 'value', which names no pair of masks of two"),
        (_agreement(**{"mobile_sam|box": [None] * 3}), "'mobile_sam|box', which names no pair"),
        (_agreement(**{"box|box.1": [None] * 3}), "a column 'box|box.1', which names no pair"),
        (
            pa.table({"box|mobile_sam": pa.array([1, 0, 1], pa.int32())}),
            "has 'box|mobile_sam' as int32, expected float",
        ),
    ],
)
def test_wrong_agreement(dataset: Dataset, table: pa.Table, says: str) -> None:
    found = damage_in(_look_at(dataset, schemas.AGREEMENT, table, statistics={}))
    assert any(says in finding.what for finding in found), found
    assert all(finding.cells and "take that back" in finding.remedy for finding in found)


def test_counts_that_the_manifest_has_wrong(dataset: Dataset) -> None:
    right = {"scored": 3, "no_mask": 0}
    table = _confidence()
    assert _look_at(dataset, schemas.CONFIDENCE, table, statistics=right).findings == ()
    [finding] = damage_in(_look_at(dataset, schemas.CONFIDENCE, table, statistics={"scored": 2}))
    assert_says("is listed with 2 of 'scored', but it has 3", finding)
    wrong = {"compared": 3}
    [finding] = damage_in(_look_at(dataset, schemas.AGREEMENT, _agreement(), statistics=wrong))
    assert_says("is listed with 3 of 'compared', but it has 2", finding)


def test_confidence_of_older_masks_is_stale_and_not_damaged(dataset: Dataset) -> None:
    shard, calibrator = dataset.manifest.shards()[0], dataset.store.put_bytes(b"{}").object_id
    cell = computed_cell(dataset, shard, schemas.CONFIDENCE, _confidence(), calibrator)
    masks = dataset.cell(shard, schemas.masks_layer(_SAM))
    rows = [mask_row(None, (12, 20), status=schemas.FAILED, reason="empty_mask")] * 3
    table = pa.Table.from_pylist(rows, schema=schemas.MASKS_SCHEMA)
    newer = write_cell(dataset.store, table, shard=shard, layer=masks.layer)
    verdicts = [cell for cell in dataset.manifest.of_shard(shard) if cell.layer == "verdicts"]
    manifest = dataset.manifest.without(shard, verdicts[0].layer).with_cells([newer])
    changed = replace(dataset.commit, manifest=manifest.save(dataset.store))
    [finding] = _with(
        Dataset(dataset.store, changed.save(dataset.store)), cell, calibrator
    ).findings
    assert (finding.severity, finding.kind) == ("warning", "stale")
    assert_says("confidence was made from other masks than .* 'maskmill calibrate", finding)


def test_cells_of_older_versions_are_sound(dataset: Dataset) -> None:
    older = [
        write_cell(
            dataset.store, as_older(dataset.table(cell.shard, cell.layer)), shard=cell.shard,
            layer=cell.layer,
        )
        for cell in dataset.manifest
        if cell.layer.startswith("masks/") or cell.layer == schemas.VERDICTS
    ]  # fmt: skip
    manifest = dataset.manifest.with_cells(older).save(dataset.store)
    commit = replace(dataset.commit, manifest=manifest)
    assert look(dataset.store, ref=commit.save(dataset.store)).findings == ()
