"""The benchmarks' synthetic store: everything in it is what a real store would hold."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engine.decode import read_upright
from engine.ingest_config import ImagePolicy
from engine.measure import measure
from engine.shard_tables import ShardTables
from manifests import rle, schemas
from manifests.dataset import Dataset
from manifests.image_tar import stream_images
from manifests.manifest import Cell
from manifests.statistics import category_counts, value_counts
from manifests.store import Store
from teachers.signals import measure_mask

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_IMAGES, _MASKS = 70, 700
_LAYERS = ["boxes", "image_index", "images", "masks/human", "masks/sam_vit_b", "masks/sam_vit_t"]


@pytest.fixture(scope="module")
def synthetic() -> Iterator[ModuleType]:
    """`benchmarks/synthetic_store.py`, whose modules find each other by being side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(_BENCHMARKS)
        yield importlib.import_module("synthetic_store")
    for name in [name for name in sys.modules if name.startswith("synthetic_")]:
        del sys.modules[name]


def make(synthetic: ModuleType, folder: Path, *, seed: int = 0, branch: str = "main") -> Dataset:
    plan = synthetic.StorePlan(
        images=_IMAGES, masks=_MASKS, seed=seed, teachers=("sam_vit_t", "sam_vit_b"), candidates=1,
        shard_images=10,
    )  # fmt: skip
    store = Store(str(folder))
    return Dataset(store, synthetic.make_store(store, plan, branch=branch, workers=1))


@pytest.fixture(scope="module")
def dataset(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(synthetic, tmp_path_factory.mktemp("synthetic") / "store")


def test_holds_exactly_the_images_and_masks_asked_for(dataset: Dataset) -> None:
    manifest = dataset.manifest
    assert list(manifest.layers()) == [*_LAYERS, "verdicts"]
    assert len(manifest.shards()) == 7
    sums = {name: sum(cell.num_rows for cell in manifest.of_layer(name)) for name in _LAYERS}
    assert sums["images"] == sums["image_index"] == _IMAGES
    assert sums["boxes"] == sums["masks/sam_vit_t"] == sums["masks/sam_vit_b"] == _MASKS
    assert len(manifest.of_layer(schemas.MASKS_HUMAN)) == 2
    assert len({row for cell in manifest.of_layer("boxes") for row in ids(dataset, cell)}) == _MASKS


def ids(dataset: Dataset, cell: Cell) -> list[str]:
    found: list[str] = dataset.table(cell.shard, cell.layer)["annotation_id"].to_pylist()
    return found


def test_the_filter_really_judges_both_teachers_and_keeps_about_what_it_keeps_of_real_masks(
    dataset: Dataset,
) -> None:
    assert [*dataset.commit.operation.config["teachers"]] == ["sam_vit_t", "sam_vit_b"]
    [verdicts] = dataset.commit.ledger.totals()
    assert verdicts.inputs == _MASKS
    assert 0.8 < verdicts.kept / _MASKS < 1
    assert {"crowd", "low_box_iou", "outside_box"} & {*verdicts.dropped}


def test_the_same_arguments_give_the_same_manifest_and_another_seed_gives_another(
    synthetic: ModuleType, dataset: Dataset, tmp_path: Path
) -> None:
    again = make(synthetic, tmp_path / "again")
    assert again.commit.manifest == dataset.commit.manifest
    other = make(synthetic, tmp_path / "other", seed=1)
    assert not {cell.object_id for cell in other.manifest} & {
        cell.object_id for cell in dataset.manifest
    }


def test_a_second_run_finds_everything_done(synthetic: ModuleType, dataset: Dataset) -> None:
    assert make(synthetic, Path(dataset.store.url)).commit_id == dataset.commit_id


def test_another_seed_can_be_added_on_a_branch(
    synthetic: ModuleType, dataset: Dataset, tmp_path: Path
) -> None:
    make(synthetic, tmp_path)
    more = make(synthetic, tmp_path, seed=1, branch="more")
    assert {*dataset.manifest.shards()} < {*more.manifest.shards()}
    assert len(more.manifest) == 2 * len(dataset.manifest)
    assert Dataset.open(more.store, "main").commit.manifest == dataset.commit.manifest
    sources = [*more.commit.categories[0].source_ids]
    assert sources == ["synthetic_0", "synthetic_1"]


def test_tables_have_the_schemas_and_statistics_that_the_real_operations_write(
    dataset: Dataset,
) -> None:
    expected = {
        schemas.IMAGE_INDEX: schemas.IMAGE_INDEX_SCHEMA, schemas.BOXES: schemas.BOXES_SCHEMA,
        schemas.VERDICTS: schemas.VERDICTS_SCHEMA,
    }  # fmt: skip
    for cell in dataset.manifest:
        if cell.layer == schemas.IMAGES:
            continue
        table = dataset.table(cell.shard, cell.layer)
        assert table.schema == expected.get(cell.layer, schemas.MASKS_SCHEMA), cell.layer
        if cell.layer == schemas.BOXES:
            assert cell.statistics == category_counts(table["category"])
        if cell.layer.startswith("masks/"):
            assert cell.statistics == value_counts(table["status"])
        if cell.layer == schemas.IMAGE_INDEX:
            assert cell.statistics == {"quarantined": 10 - table["quarantine"].null_count}


def test_pictures_decode_to_what_the_index_says(dataset: Dataset) -> None:
    seen = set()
    for shard in dataset.manifest.shards():
        index = dataset.table(shard, schemas.IMAGE_INDEX).to_pylist()
        spans = [(row["offset"], row["size"]) for row in index]
        for row, data in zip(index, stream_images(dataset.store, shard, spans), strict=True):
            seen.add(data)
            upright = read_upright(data)
            assert (upright.data, upright.format) == (data, "png")
            measures = measure(upright.rgb)
            assert upright.rgb.shape[:2] == (row["height"], row["width"])
            assert asdict(measures).items() <= row.items()
            policy = ImagePolicy(min_sharpness=0)
            assert policy.quarantine(upright.rgb.shape[:2], measures) == row["quarantine"]
    assert len(seen) == _IMAGES


def test_annotation_ids_are_those_that_ingest_makes(dataset: Dataset) -> None:
    shard = dataset.manifest.shards()[1]
    tables = ShardTables("synthetic_0", ImagePolicy())
    for row in dataset.table(shard, schemas.BOXES).to_pylist()[:20]:
        # A source's boxes are float64; the stored ones are its hundredths of a pixel as float32.
        box = [round(side, 2) for side in row["box_xyxy"]]
        annotation = {**row, "box_xyxy": box, "source_image_id": "not used"}
        assert tables._annotation_id(row, annotation) == row["annotation_id"]


def test_masks_are_whole_and_have_the_signals_that_they_claim(dataset: Dataset) -> None:
    num_parts = set()
    for cell in dataset.manifest:
        if not cell.layer.startswith("masks/") or cell.shard not in dataset.manifest.shards()[:3]:
            continue
        boxes = dataset.table(cell.shard, schemas.BOXES)["box_xyxy"].to_pylist()
        rows = dataset.table(cell.shard, cell.layer).to_pylist()
        for box, row in zip(boxes, rows, strict=True):
            drawn = [row, *row["candidates"]] if row["status"] == schemas.OK else []
            assert drawn or (row["counts"], row["area_px"], row["candidates"]) == (None, None, [])
            assert len(drawn) in (0, 1 if cell.layer == schemas.MASKS_HUMAN else 2)
            for fields in drawn:
                check_mask(fields, box, (row["height"], row["width"]))
                num_parts.add(fields["num_components"])
    assert num_parts >= {1, 2}


def check_mask(fields: dict[str, object], box: list[float], size_hw: tuple[int, int]) -> None:
    counts = fields["counts"]
    rle.check(counts, size_hw=size_hw)
    mask = rle.decode(counts, size_hw=size_hw)
    assert rle.encode(mask) == counts
    for name, value in asdict(measure_mask(mask, np.array(box, np.float32))).items():
        if name == "edge_alignment":  # there is no photo to hold it against
            continue
        np.testing.assert_array_equal(np.float32(fields[name]), np.float32(value), err_msg=name)


def test_counts_are_about_as_long_and_as_hard_to_pack_as_real_ones(dataset: Dataset) -> None:
    [cell, *_] = dataset.manifest.of_layer("masks/sam_vit_t")
    counts = dataset.table(cell.shard, cell.layer)["counts"].drop_null().to_pylist()
    assert 120 < np.mean([len(entry) for entry in counts]) < 320
    assert len(set(counts)) == len(counts)


def test_masks_that_touch_both_edges_leave_no_empty_run(synthetic: ModuleType) -> None:
    masks = sys.modules["synthetic_masks"]
    size_hw = np.array([[9, 40], [1, 1], [2, 30], [300, 7]])
    whole = np.concatenate([np.zeros((4, 2)), size_hw[:, ::-1]], axis=1).astype(float)
    blobs = masks.draw(np.random.default_rng(0), whole, size_hw)
    signals = masks.measure(blobs, whole)
    for n, counts in enumerate(masks.encode(blobs, np.ones(4, dtype=bool)).to_pylist()):
        size = (int(size_hw[n][0]), int(size_hw[n][1]))
        rle.check(counts, size_hw=size)
        assert rle.encode(rle.decode(counts, size_hw=size)) == counts
        assert rle.area(counts, size_hw=size) == signals.area_px[n]
