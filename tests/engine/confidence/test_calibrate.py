"""Calibrate: from gold to a confidence for every box; too little gold and others' are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.confidence import priors
from engine.confidence.agree import AgreeConfig, agree
from engine.confidence.apply import Scores, confidence_table
from engine.confidence.calibrate import CalibrateConfig, calibrate, score_gold
from engine.confidence.calibrator import Calibrator, Curve
from engine.confidence.features import feature_names
from engine.confidence.gold import GOLD_SCHEMA, GoldBoxes, read_gold
from engine.confidence.judge import calibrator_of
from engine.confidence.outputs import Output
from engine.confidence.roles import role_of
from engine.filter import FilterConfig, filter_masks
from engine.policy import Policy, Target
from manifests import schemas
from manifests.cells import read_table
from manifests.dataset import Dataset
from manifests.errors import InputError, NothingToCommitError
from manifests.prior import is_by_prior
from manifests.refs import Refs
from manifests.store import Store
from tests.engine.confidence.planted_masks import (
    Plan,
    memory,
    planted,
    relabelled,
    replaced,
    rows_of,
)

needs_prior = pytest.mark.skipif(
    not (priors.FOLDER / "default.safetensors").exists(), reason="there is no prior yet"
)
PLAN = Plan(
    num_images=70, per_image=4, num_shards=3, missing=frozenset({("a", 9), ("b", 9), ("a", 2)}),
    is_gold=lambda number: number % 7 != 0,
    source=lambda number: "shop" if number < 35 else "street",
)  # fmt: skip


def run(store: Store, **fields: Any) -> Dataset:
    return Dataset(store, calibrate(store, CalibrateConfig(**fields)))


@pytest.fixture(scope="module")
def made() -> Dataset:
    """Calibrated once, and only read."""
    dataset = planted(memory("calibrate"), PLAN)
    agree(dataset.store, AgreeConfig())
    return run(dataset.store)


@pytest.fixture
def branch(made: Dataset) -> str:
    """A branch at that commit, to go on from."""
    refs = Refs(made.store)
    name = f"work-{len(refs.branches())}"
    refs.create_branch(name, made.commit_id)
    return name


def calibrator(dataset: Dataset) -> Calibrator:
    assert dataset.commit.attached is not None
    return Calibrator.load(dataset.store, dataset.commit.attached["calibrator"])


# -- the layer -----------------------------------------------------------------------------------


def test_every_box_has_the_confidence_of_the_output_that_is_taken(made: Dataset) -> None:
    rows = rows_of(made, schemas.CONFIDENCE)
    assert len(rows) == 280
    names = set(rows[0]) - set(schemas.CONFIDENCE_SCHEMA.names)
    assert names == {"a", "a.1", "a.2", "b"}
    for number, row in enumerate(rows):
        assert (row["confidence"] is None) == (row["teacher"] is None) == (number == 9)
        if number in {2, 9}:
            assert row["a"] is None
            assert row["a.1"] is None
        if row["confidence"] is None:
            continue
        teacher = row["teacher"].removeprefix("masks/")
        assert row["confidence"] == row[schemas.output_name(teacher, row["candidate"])]
        assert 0 <= row["confidence"] <= 1


def test_it_follows_the_iou_also_of_images_without_gold(made: Dataset) -> None:
    pairs = []
    for box, scored, a, b in zip(
        *(rows_of(made, layer) for layer in ("boxes", "confidence", "masks/a", "masks/b")),
        strict=True,
    ):
        pairs += [
            (scored[name], row["area_px"] / 160)
            for name, row in (("a", a), ("b", b))
            if row["area_px"] and box
        ]
    confidence, iou = np.array(pairs).T
    assert np.corrcoef(confidence, iou)[0, 1] > 0.95
    assert abs(confidence.mean() - iou.mean()) < 0.05


def test_the_ledger_and_the_statistics_say_what_has_no_mask(made: Dataset) -> None:
    made.commit.ledger.check()
    rows = made.commit.ledger.rows
    assert sum(row.inputs for row in rows) == 280
    assert sum(row.kept for row in rows) == 279
    assert [dict(row.dropped) for row in rows if row.dropped] == [{"no_mask": 1}]
    cells = made.manifest.of_layer(schemas.CONFIDENCE)
    assert sum(cell.statistics["scored"] for cell in cells) == 279
    assert all(cell.inputs[-1] == calibrator_of(made) for cell in cells)


def test_the_commit_carries_its_calibrator_and_its_gold(made: Dataset) -> None:
    attached = made.commit.attached
    assert attached is not None
    assert set(attached) == {"calibrator", "gold"}
    found = calibrator(made)
    assert found.gold == attached["gold"]
    assert not found.is_prior
    assert calibrator_of(made) == attached["calibrator"]
    assert made.commit.operation.config["identities"]["a"]["weights_sha256"] == "a" * 64
    assert set(found.heads) == {"a", "b"}
    assert found.origin in made.commit.message


# -- gold and figures ----------------------------------------------------------------------------


def test_the_gold_table_keeps_the_roles_apart(made: Dataset) -> None:
    assert made.commit.attached is not None
    table = read_table(made.store, made.commit.attached["gold"])
    assert table.schema.equals(GOLD_SCHEMA)
    rows = table.to_pylist()
    assert {row["role"] for row in rows} == {"calibrate", "certify"}
    assert all(row["role"] == role_of(row["image_id"], 0.5) for row in rows)
    layer = {shard: made.table(shard, "confidence").to_pylist() for shard in made.manifest.shards()}
    for row in rows:
        name = schemas.output_name(row["teacher"], row["candidate"])
        in_layer = layer[row["shard"]][row["row"]]
        if row["role"] == "certify":  # from the calibrator itself, which never saw it
            assert row["confidence"] == pytest.approx(in_layer[name], abs=1e-5)
            taken = (in_layer["teacher"], in_layer["candidate"])
            assert row["chosen"] == (taken == (f"masks/{row['teacher']}", row["candidate"]))
    mine = [row for row in rows if row["role"] == "calibrate"]
    other = [
        row["confidence"] - layer[row["shard"]][row["row"]][row["teacher"]]
        for row in mine
        if not row["candidate"]
    ]
    assert np.abs(other).max() > 1e-3  # out of fold: never from networks that saw the image
    boxes = {(row["shard"], row["row"]) for row in rows}
    assert sum(row["chosen"] for row in rows) == len(boxes)


def test_figures_are_of_gold_that_calibrates_and_of_gold_that_certifies(made: Dataset) -> None:
    figures = calibrator(made).figures
    certify = figures["certify"]
    assert figures["num_boxes"] + certify["num_boxes"] == 240 - 1
    for found in (figures, certify):
        assert found["auroc"] > 0.9
        assert found["calibration_error"] < 0.08
        assert found["mean_iou"]["oracle"] >= found["mean_iou"]["fused"]
        assert found["mean_iou"]["fused"] >= found["mean_iou"]["b"] - 0.02
    assert figures["unused"] == {"no_pseudo_mask": 1}
    assert figures["by_source"] == {}  # neither source alone has enough that calibrates


def test_gold_is_scored_as_the_layer_is(made: Dataset) -> None:
    names = {name: feature_names(name, ["a", "b"]) for name in ("a", "b")}
    gold = read_gold(made, names, certify_share=0.5)
    found = score_gold(calibrator(made), gold)
    layer = {shard: made.table(shard, "confidence").to_pylist() for shard in made.manifest.shards()}
    for number, row in enumerate(gold.table.to_pylist()):
        for output, values in found.items():
            expected = layer[row["shard"]][row["row"]][output.name]
            if expected is None:
                assert np.isnan(values[number])
            else:
                assert values[number] == pytest.approx(expected, abs=1e-5)


def test_sources_are_judged_by_a_calibrator_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine.confidence import calibrate as module

    seen, real = [], module.fit

    def fit(gold: GoldBoxes, *rest: Any, **more: Any) -> Any:  # Any: handed on
        seen.append(sorted(set(gold.words("source"))))
        return real(gold, *rest, **more)

    monkeypatch.setattr(module, "fit", fit)
    plan = replace(PLAN, num_images=80, per_image=3, is_gold=lambda number: True,
                   source=lambda number: "shop" if number % 2 else "street")  # fmt: skip
    dataset = planted(memory("sources"), plan)
    found = calibrator(run(dataset.store, certify_share=0.0)).figures["by_source"]
    assert seen == [["shop", "street"], ["street"], ["shop"]]
    assert list(found) == ["shop", "street"]
    assert sum(one["num_boxes"] for one in found.values()) == 239
    assert all(one["calibration_error"] < 0.1 for one in found.values())


# -- again ---------------------------------------------------------------------------------------


def test_the_same_gold_again_has_nothing_to_commit(made: Dataset, branch: str) -> None:
    with pytest.raises(NothingToCommitError):
        run(made.store, branch=branch)
    other = run(made.store, branch=branch, seed=1)
    assert other.commit.attached != made.commit.attached


def test_finished_shards_are_found_by_what_they_are(
    made: Dataset, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.confidence import calibrate as module

    def never(*args: object) -> None:
        raise AssertionError("a shard was scored again")

    store = made.store
    base = Refs(store).resolve("main")
    assert base == made.commit_id
    before = made.commit.parents[0]
    Refs(store).create_branch(f"{branch}-before", before)
    monkeypatch.setattr(module, "score", never)
    again = run(store, branch=f"{branch}-before")
    assert again.manifest.of_layer("confidence") == made.manifest.of_layer("confidence")


def test_a_calibrator_of_another_ref_is_applied_as_it_is(made: Dataset, branch: str) -> None:
    first = calibrator_of(made)
    run(made.store, branch=branch, seed=2)
    back = run(made.store, branch=branch, calibrator=first)
    assert calibrator_of(back) == first
    assert back.manifest.of_layer("confidence") == made.manifest.of_layer("confidence")
    # The gold hangs on this commit as well, or gc would take it with the other one.
    assert back.commit.attached == made.commit.attached


# -- refusals ------------------------------------------------------------------------------------


def test_masks_that_were_drawn_again_are_refused(made: Dataset) -> None:
    dataset = planted(memory("again"), PLAN)
    first = made.store.get_bytes(calibrator_of(made))
    known = dataset.store.put_bytes(first).object_id
    relabelled(dataset.store, "b", weights_sha256="c" * 64)
    with pytest.raises(InputError, match=r"weights bbbbbbbbbbbb of teacher 'b'.*cccccccccccc"):
        run(dataset.store, calibrator=known)
    relabelled(dataset.store, "b")
    # Its gold is not in this store, so it cannot be attached.
    assert set(run(dataset.store, calibrator=known).commit.attached or {}) == {"calibrator"}


def test_agreement_of_other_masks_is_refused() -> None:
    dataset = planted(memory("stale"), PLAN)
    agree(dataset.store, AgreeConfig())
    replaced(dataset.store, "masks/b", lambda row: {"stability": 0.5})
    message = r"agreement of 3 of 3 shards was computed from other masks.*'maskmill agree' again"
    with pytest.raises(InputError, match=message):
        run(dataset.store)


def test_too_little_gold_says_how_much_more_it_takes() -> None:
    plan = Plan(num_images=24, per_image=2, categories=("shoe", "bag", "shoe"))
    dataset = planted(memory("little"), plan)
    with pytest.raises(InputError) as caught:
        run(dataset.store, certify_share=0.0)
    said = str(caught.value)
    assert "expected at least 100 human masks on 20 images that calibrate, got 48 on 24" in said
    assert (
        "draw 52 more on 0 more images ('maskmill gold propose'; fewest: bag 16, shoe 32)" in said
    )
    assert "--prior" in said
    few = planted(memory("few"), Plan(num_images=10, per_image=12))
    with pytest.raises(InputError, match=r"got 120 on 10; draw 0 more on 10 more images"):
        run(few.store, certify_share=0.0)
    with pytest.raises(InputError, match=r"got \d+ on \d; draw"):
        run(few.store)  # half of it certifies


def test_gold_that_cannot_be_used_is_counted_in_the_refusal() -> None:
    missing = frozenset((name, box) for name in "ab" for box in range(30))
    dataset = planted(memory("unusable"), Plan(num_images=30, per_image=4, missing=missing))
    with pytest.raises(InputError, match=r"got 90 on 23 \(not usable: no_pseudo_mask 30\)"):
        run(dataset.store, certify_share=0.0)


def test_teachers_that_have_not_drawn_are_named(made: Dataset, branch: str) -> None:
    with pytest.raises(InputError, match=r"expected masks of 'z', but .* are a, b; run 'maskmill"):
        run(made.store, branch=branch, teachers=("a", "z"))
    nobody = planted(memory("nobody"), Plan(num_images=1, teachers=()))
    with pytest.raises(InputError, match=r"expected masks of a teacher, but .* are none"):
        run(nobody.store)
    one = run(made.store, branch=branch, teachers=("b",))
    assert set(calibrator(one).heads) == {"b"}
    assert set(rows_of(one, "confidence")[0]) == {"confidence", "teacher", "candidate", "b"}


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="expected --prior or --from, got both"):
        CalibrateConfig(prior=True, calibrator="ab" * 32)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="certify_share: expected from 0 to below 1, got"):
            CalibrateConfig(certify_share=share)


@needs_prior
def test_without_gold_and_without_a_prior_for_its_teachers() -> None:
    dataset = planted(memory("unknown"), Plan(num_images=2, is_gold=lambda number: False))
    with pytest.raises(InputError, match=r"no gold in this dataset, and no prior for a, b \(there"):
        run(dataset.store)


# -- applied -------------------------------------------------------------------------------------


def test_the_table_of_a_shard_without_any_output() -> None:
    nothing = Scores(outputs=(), values=np.zeros((2, 0), np.float32), taken=np.zeros(2, np.int64))
    assert (
        confidence_table(nothing).to_pylist()
        == [{"confidence": None, "teacher": None, "candidate": 0}] * 2
    )


def test_all_outputs_of_a_box_move_with_the_one_that_is_taken(made: Dataset) -> None:
    from engine.confidence.apply import scores_of

    outputs = (Output.of("a"), Output.of("b"))
    chosen = Curve(x=np.array([0, 1], np.float32), y=np.array([0, 0.5], np.float32))
    halved = replace(calibrator(made), chosen=chosen)
    values = np.array([[0.8, 0.1], [np.nan, 0.6], [np.nan, np.nan]], np.float32)
    categories = pa.array(["bag"] * 3).dictionary_encode()
    found = scores_of(halved, outputs, values, categories)
    assert found.taken.tolist()[:2] == [0, 1]
    assert found.values[0].tolist() == pytest.approx([0.4, 0.0])
    assert found.values[1, 1] == pytest.approx(0.3)
    assert np.isnan(found.values[2]).all()


# -- the prior -----------------------------------------------------------------------------------


_IDENTITY = ("weights_sha256", "version", "config")


@needs_prior
@pytest.mark.parametrize("asked", [True, False])
def test_without_gold_or_when_asked_for_the_prior_is_applied(asked: bool) -> None:
    data = (priors.FOLDER / "default.safetensors").read_bytes()
    known = Calibrator.from_bytes(data, what="the prior")
    assert known.is_prior
    assert known.to_bytes() == data
    name = sorted(known.heads)[0]
    plan = Plan(num_images=4, teachers=(name,), is_gold=lambda number: asked)
    dataset = planted(memory("prior"), plan)
    with pytest.raises(InputError, match=f"of teacher '{name}', but the masks were drawn with"):
        run(dataset.store, prior=asked)
    drawn_by = {key: known.heads[name].teacher[key] for key in _IDENTITY}
    relabelled(dataset.store, name, **drawn_by)
    made = run(dataset.store, prior=asked)
    found = calibrator(made)
    assert found.is_prior
    assert set(found.heads) == {name}
    assert set(made.commit.attached or {}) == {"calibrator"}
    assert is_by_prior(made)
    confidence = [row["confidence"] for row in rows_of(made, schemas.CONFIDENCE)]
    assert all(0 <= value <= 1 for value in confidence)
    assert len(confidence) == 20
    chosen = Policy(name="test", target=Target(max_risk=0.05))
    nothing = "a target expects masks to choose from" if asked else "there are 0; add gold"
    with pytest.raises(InputError, match=nothing):
        filter_masks(dataset.store, FilterConfig(policy=chosen))
