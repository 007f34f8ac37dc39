"""Features and outputs: what a calibrator is told, box by box, of every candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.confidence.agree import AgreeConfig, agree
from engine.confidence.features import ShardOutputs, feature_names, features_of, read_shard
from engine.confidence.outputs import SIGNALS, Output, read_outputs, teachers_of
from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError
from tests.engine.confidence.planted_masks import BOX, SIZE_HW, Plan, memory, planted, replaced

A, A1, A2, B = (Output.of(name) for name in ("a", "a.1", "a.2", "b"))
NAMES = feature_names("a", ["a", "b"])


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """One shard of 10 boxes; `a` did not draw box 1, `b` not box 2."""
    plan = Plan(num_images=5, per_image=2, num_shards=1, missing=frozenset({("a", 1), ("b", 2)}))
    made = planted(memory("features"), plan)
    # The second candidate of box 4 is not there.
    number = iter(range(100))

    def without(row: dict[str, Any]) -> dict[str, Any]:
        return {"candidates": row["candidates"][:1]} if next(number) == 4 else {}

    replaced(made.store, "masks/a", without)
    return Dataset(made.store, agree(made.store, AgreeConfig()))


def shard_of(dataset: Dataset) -> ShardOutputs:
    [shard] = dataset.manifest.shards()
    return read_shard(dataset, shard, ["a", "b"])


def layer(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    [shard] = dataset.manifest.shards()
    rows: list[dict[str, Any]] = dataset.table(shard, name).to_pylist()
    return rows


def column(dataset: Dataset, output: Output, name: str) -> list[float]:
    names = feature_names(output.teacher, ["a", "b"])
    found = features_of(shard_of(dataset), output, names)
    assert found.shape == (10, len(names))
    values: list[float] = found[:, names.index(name)].tolist()
    return values


def drawn(row: dict[str, Any], output: Output) -> dict[str, Any] | None:
    if row["status"] != "ok" or len(row["candidates"]) < output.candidate:
        return None
    found: dict[str, Any] = row["candidates"][output.candidate - 1] if output.candidate else row
    return found


def test_outputs_and_their_names() -> None:
    assert [output.name for output in sorted([B, A2, A, A1])] == ["a", "a.1", "a.2", "b"]
    assert Output.of("v1.5") == Output(teacher="v1", candidate=5)
    assert Output.of("sam.x") == Output(teacher="sam.x", candidate=0)


def test_every_output_has_its_own_columns_and_nulls_where_it_is_not_there(
    dataset: Dataset,
) -> None:
    [shard] = dataset.manifest.shards()
    found = read_outputs(dataset, shard, ["a", "b", "nobody"], SIGNALS, num_rows=10)
    assert sorted(found) == [A, A1, A2, B]
    for output, table in found.items():
        rows = layer(dataset, schemas.masks_layer(output.teacher))
        masks = [drawn(row, output) for row in rows]
        assert table.has_mask.tolist() == [mask is not None for mask in masks]
        for name in SIGNALS:
            expected = [None if mask is None else mask[name] for mask in masks]
            assert table.columns[name].to_pylist() == expected
    assert not found[A2].has_mask[4]
    assert found[A1].has_mask[4]
    with pytest.raises(ObjectDamagedError, match="expected the 9 rows of boxes, found 10"):
        read_outputs(dataset, shard, ["a"], SIGNALS, num_rows=9)


def test_teachers_are_those_that_have_drawn(dataset: Dataset) -> None:
    assert teachers_of(dataset.manifest) == ("a", "b")  # no humans
    assert teachers_of(dataset.manifest, ["b", "z"]) == ("b",)


def test_raw_signals_are_as_they_were_measured(dataset: Dataset) -> None:
    rows = layer(dataset, "masks/a")
    for output in (A, A1, A2):
        expected = [(drawn(row, output) or {}).get("predicted_iou") for row in rows]
        found = column(dataset, output, "predicted_iou")
        assert found == pytest.approx(
            [np.nan if value is None else value for value in expected], nan_ok=True
        )
    assert np.isnan(column(dataset, A, "jitter_iou")).all()


def test_shapes(dataset: Dataset) -> None:
    box_area = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1])
    areas = [row["area_px"] or np.nan for row in layer(dataset, "masks/a")]
    expected = {
        "log_area": [np.log1p(area) for area in areas],
        "area_ratio": [area / box_area for area in areas],
        "log_box_area": [np.log1p(box_area)] * 10,
        "box_image_fraction": [box_area / (SIZE_HW[0] * SIZE_HW[1])] * 10,
        "log_aspect": [np.log((BOX[2] - BOX[0]) / (BOX[3] - BOX[1]))] * 10,
        "log_components": [np.nan if np.isnan(area) else np.log1p(1) for area in areas],
        "log_holes": [np.nan if np.isnan(area) else 0.0 for area in areas],
    }
    for name, values in expected.items():
        assert column(dataset, A, name) == pytest.approx(values, nan_ok=True), name


def test_siblings(dataset: Dataset) -> None:
    rows = layer(dataset, "masks/a")
    for output in (A, A1, A2):
        assert set(column(dataset, output, "is_candidate_1")) == {float(output == A1)}
        assert set(column(dataset, output, "is_candidate_2")) == {float(output == A2)}
        for row, lead in zip(rows, column(dataset, output, "lead"), strict=True):
            own = drawn(row, output)
            others = [drawn(row, other) for other in {A, A1, A2} - {output}]
            best = max((mask["predicted_iou"] for mask in others if mask), default=np.nan)
            expected = own["predicted_iou"] - best if own else np.nan
            assert lead == pytest.approx(expected, nan_ok=True)
    assert np.isnan(column(dataset, B, "lead")).all()


def test_rivals(dataset: Dataset) -> None:
    pairs = layer(dataset, schemas.AGREEMENT)
    own = [np.nan if row["a|b"] is None else row["a|b"] for row in pairs]
    for name in ("agreement:b", "best_agreement:b", "agreement_mean", "agreement_max"):
        assert column(dataset, A, name) == pytest.approx(own, nan_ok=True), name
    assert column(dataset, B, "agreement:a") == pytest.approx(own, nan_ok=True)
    best = [
        max((value for value in row.values() if value is not None), default=np.nan)
        for row in pairs
    ]  # fmt: skip
    assert column(dataset, B, "best_agreement:a") == pytest.approx(best, nan_ok=True)
    assert best != pytest.approx(own, nan_ok=True)
    of_candidate = [np.nan if row["a.1|b"] is None else row["a.1|b"] for row in pairs]
    assert column(dataset, A1, "agreement:b") == pytest.approx(of_candidate, nan_ok=True)


def test_names_that_a_dataset_cannot_fill_are_nan(dataset: Dataset) -> None:
    names = feature_names("a", ["a", "b", "later"])
    assert [name for name in names if "later" in name] == [
        "agreement:later", "best_agreement:later",
    ]  # fmt: skip
    found = features_of(shard_of(dataset), A, names)
    assert np.isnan(found[:, names.index("agreement:later")]).all()
    assert not [name for name in feature_names("a", ["a"]) if "agreement" in name]
    assert len({*NAMES}) == len(NAMES)


def test_without_agreement_nothing_is_said_of_rivals() -> None:
    bare = planted(memory("bare"), Plan(num_images=1, num_shards=1))
    found = features_of(read_shard(bare, bare.manifest.shards()[0], ["a", "b"]), A, NAMES)
    assert np.isnan(found[:, NAMES.index("agreement_mean")]).all()
    assert np.isfinite(found[:, NAMES.index("area_ratio")]).all()
