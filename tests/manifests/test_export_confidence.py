"""What exports say of the confidence and the weight of a mask, and of datasets that have none."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests import schemas
from manifests.cells import write_cell
from manifests.checkout_annotations import annotations_key
from manifests.dataset import Dataset
from manifests.export import export
from manifests.kept import KeptOptions, kept_shards
from manifests.manifest import Cell
from tests.manifests.computed_cells import computed_cell, confidence_table
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.damage import blob, human_row, three_masks
from tests.manifests.older_cells import as_older

_BOX = (2.0, 2.0, 9.0, 9.0)
_OUTPUTS = {
    "mobile_sam": [0.75, 0.5, 0.25, 0.5, None], "mobile_sam.1": [None, None, 0.875, None, None],
}  # fmt: skip


@pytest.fixture
def dataset(builder: DatasetBuilder) -> Dataset:
    """Five boxes: own choice, human, a candidate, a dropped one, and a crowd."""
    builder.image("a.jpg")
    builder.box("cat", _BOX)
    builder.box("cat", _BOX, layers={schemas.MASKS_HUMAN: human_row()})
    builder.verdicts[-1]["teacher"] = schemas.MASKS_HUMAN
    candidates = {schemas.masks_layer("mobile_sam"): three_masks()}
    builder.box("cat", _BOX, layers=candidates, candidate=1)
    builder.box("cat", _BOX, keep=False, reason="low_confidence")
    skipped = mask_row(None, (12, 20), status=schemas.SKIPPED, reason="crowd")
    layers = {schemas.masks_layer("mobile_sam"): skipped}
    builder.box("cat", _BOX, is_crowd=True, keep=False, reason="crowd", layers=layers)
    for verdict, weight in zip(builder.verdicts, (0.75, 1.0, 0.875, 0.0, 0.0), strict=True):
        verdict["weight"] = weight
    builder.shard()
    return builder.commit()


def _with(dataset: Dataset, *cells: Cell) -> Dataset:
    manifest = dataset.manifest.with_cells(cells).save(dataset.store)
    return Dataset(dataset.store, replace(dataset.commit, manifest=manifest).save(dataset.store))


def _scored(dataset: Dataset) -> Dataset:
    [shard] = dataset.manifest.shards()
    table = confidence_table(_OUTPUTS)
    return _with(dataset, computed_cell(dataset, shard, "confidence", table, "c" * 64))


def _kept(dataset: Dataset, layer: str | None = None) -> list[tuple[Any, ...]]:
    [found] = kept_shards(dataset, KeptOptions(layer=layer))
    columns = ("teacher", "confidence", "weight")
    return [tuple(row[name] for name in columns) for row in found.annotations.to_pylist()]


def test_confidence_is_that_of_the_very_mask(dataset: Dataset) -> None:
    assert _kept(_scored(dataset)) == [
        ("mobile_sam", 0.75, 0.75), ("human", None, 1.0), ("mobile_sam", 0.875, 0.875),
        (None, None, None),
    ]  # fmt: skip
    by_layer = _kept(_scored(dataset), "masks/mobile_sam")
    assert by_layer == [
        ("mobile_sam", confidence, None) for confidence in (0.75, 0.5, 0.25, 0.5)
    ] + [(None, None, None)]  # fmt: skip
    assert {row[1:] for row in _kept(_scored(dataset), "boxes")} == {(None, None)}


def test_without_confidence_and_weight(dataset: Dataset) -> None:
    [shard] = dataset.manifest.shards()
    older = as_older(dataset.table(shard, "verdicts"))
    found = _with(dataset, write_cell(dataset.store, older, shard=shard, layer="verdicts"))
    assert {row[1:] for row in _kept(found)} == {(None, None)}


def test_confidence_of_older_masks_is_not_theirs(dataset: Dataset) -> None:
    scored = _scored(dataset)
    [shard] = scored.manifest.shards()
    rows = scored.table(shard, "masks/mobile_sam").to_pylist()
    rows[0] = mask_row(blob(9), (12, 20))
    table = pa.Table.from_pylist(rows, schema=schemas.MASKS_SCHEMA)
    drawn = write_cell(scored.store, table, shard=shard, layer="masks/mobile_sam")
    assert {row[1] for row in _kept(_with(scored, drawn))} == {None}


def test_keys_of_coco_and_webdataset(dataset: Dataset, tmp_path: Path) -> None:
    scored = _scored(dataset)
    for name in ("coco", "webdataset"):
        export(scored, str(tmp_path / name), format=name)
    found = json.loads((tmp_path / "coco" / "instances.json").read_text())["annotations"]
    assert [(row.get("confidence"), row.get("weight")) for row in found] == [
        (0.75, 0.75), (None, None), (0.875, 0.875), (None, None),
    ]  # fmt: skip
    assert "weight" not in found[1]
    with tarfile.open(tmp_path / "webdataset" / "000000.tar") as tar:
        name = next(name for name in tar.getnames() if name.endswith(".json"))
        record = json.load(tar.extractfile(name) or io.BytesIO())
    assert [(row.get("confidence"), row.get("weight")) for row in record["annotations"]] == [
        (row.get("confidence"), row.get("weight")) for row in found
    ]


def test_a_checkout_is_written_again_for_another_confidence(dataset: Dataset) -> None:
    def key(of: Dataset, masks: str) -> str:
        return annotations_key(of, masks, include_quarantined=False)

    scored = _scored(dataset)
    assert key(scored, "verdicts") != key(dataset, "verdicts")
    assert key(scored, "masks/mobile_sam") != key(dataset, "masks/mobile_sam")
    assert key(scored, "boxes") == key(dataset, "boxes")
