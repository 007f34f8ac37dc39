"""The whole job on a few made-up photos: once, again, elsewhere, and without weights."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.driver import JobProgress
from engine.filter import FilterConfig
from engine.job import ExportSettings, JobConfig, LabelSettings, ReportSettings
from engine.label import LabelConfig
from engine.policy import Policy
from engine.pool import PoolConfig
from engine.run import outcome, policy_for, run, run_filter, run_label
from manifests.dataset import Dataset, init
from manifests.errors import InputError, RefError, WeightsError
from manifests.store import Store

INLINE = PoolConfig(executor="inline")
BOXES = Policy(name="boxes", teachers=("box",), rules={"min_area_px": 50})


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcomes: list[str] = []
        self.warnings: list[str] = []
        self.last: JobProgress | None = None

    def step(self, name: str) -> None:
        self.steps.append(name)

    def progress(self, progress: JobProgress) -> None:
        self.last = progress

    def done(self, text: str) -> None:
        self.outcomes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def job(
    photos: Any, more_photos: Any, tmp_path: Path, make_jpeg: Any, make_image: Any
) -> JobConfig:
    """Two sources of two photos, one of which is broken; four boxes, one of them small."""
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 80, 60])
    photos.add("b.jpg", [1, 2, 3, 4])
    more_photos.add("c.jpg", [4, 4, 40, 40], content=make_jpeg(make_image(77)))
    more_photos.add("broken.jpg", [1, 1, 9, 9], content=b"\xff\xd8\xff nothing")
    return JobConfig(
        store=str(tmp_path / "store"),
        source=(photos.config("first").source, more_photos.config("second").source),
        label=(LabelSettings(teacher="box"),),
        policy=BOXES,
        export=(ExportSettings(format="coco", target=str(tmp_path / "out")),),
        report=ReportSettings(target=str(tmp_path / "page.html")),
        pool=INLINE,
    )


def exported(job: JobConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(job.export[0].target) / "instances.json").read_text())
    return found


def test_the_whole_chain(job: JobConfig) -> None:
    ears = Ears()
    result = run(job, ears)
    assert [step.step for step in result.steps] == [
        "ingest first", "ingest second", "label box", "filter boxes",
    ]  # fmt: skip
    assert all(step.is_new for step in result.steps)
    assert ears.steps[:4] == [step.step for step in result.steps]
    [label_row] = result.steps[2].ledger.totals()
    [verdict_row] = result.steps[3].ledger.totals()
    assert (label_row.inputs, label_row.kept) == (4, 4)
    assert (verdict_row.kept, dict(verdict_row.dropped)) == (3, {"too_small": 1})
    assert len(exported(job)["annotations"]) == 3
    [summary] = result.exports
    assert summary.num_annotations == 3
    assert Path(result.report or "").stat().st_size > 1000
    dataset = Dataset.open(Store(job.store))
    assert dataset.commit_id == result.commit_id == result.steps[-1].commit_id
    assert not ears.warnings


def test_outcomes_say_what_became_of_every_row(job: JobConfig) -> None:
    ears = Ears()
    run(job, ears)
    assert ears.outcomes[0].startswith(
        "ingest first: boxes 3 of 3 kept; images 2 of 2 kept; commit"
    )
    assert "images 1 of 2 kept (" in ears.outcomes[1]
    assert "1 (failed))" in ears.outcomes[1]
    assert "verdicts 3 of 4 kept (too_small 1)" in ears.outcomes[3]


def test_run_again_changes_nothing(job: JobConfig) -> None:
    first = run(job)
    written = exported(job)
    ears = Ears()
    again = run(job, ears)
    assert again.commit_id == first.commit_id
    assert [step.is_new for step in again.steps] == [False] * 4
    # Each step shows its own commit and ledger, not those of whatever came last.
    assert [replace(step, is_new=True) for step in again.steps] == list(first.steps)
    assert all(text.endswith("as before") for text in ears.outcomes)
    assert exported(job) == written
    files = Store(job.store).fs.find(job.store)
    run(job)
    assert Store(job.store).fs.find(job.store) == files


def test_a_job_that_was_cut_short_goes_on(job: JobConfig, tmp_path: Path) -> None:
    """Whatever was done alone is found by the whole job, which ends like an uninterrupted one."""
    run(replace(job, label=(), policy="", export=(), report=None))
    run(replace(job, policy="", export=(), report=None))
    result = run(job)
    assert [step.is_new for step in result.steps] == [False, False, False, True]
    other = replace(job, store=str(tmp_path / "uninterrupted"))
    run(other)
    cells = [
        [(cell.shard, cell.layer, cell.object_id) for cell in Dataset.open(Store(url)).manifest]
        for url in (job.store, other.store)
    ]
    assert cells[0] == cells[1]


def test_in_memory(job: JobConfig) -> None:
    here = replace(job, store=f"memory://{uuid.uuid4().hex}")
    result = run(here)
    assert Dataset.open(Store(here.store)).commit_id == result.commit_id
    assert not any(step.is_new for step in run(here).steps)


def test_another_policy_later(job: JobConfig) -> None:
    first = run(job)
    strict = replace(BOXES, name="strict", rules={"min_area_px": 1000})
    second = run(replace(job, policy=strict))
    assert [step.is_new for step in second.steps] == [False, False, False, True]
    assert len(exported(job)["annotations"]) == 2
    assert second.commit_id != first.commit_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": (LabelSettings(teacher="boks"),)}, "did you mean 'box'"),
        ({"label": (LabelSettings(teacher="box", config={"x": 1}),)}, "has no setting 'x'"),
        ({"export": (ExportSettings(format="coko", target="x"),)}, "did you mean 'coco'"),
        ({"policy": "defualt"}, "did you mean 'default'"),
        ({"policy": Policy(teachers=("sam_vit_h",))}, "maskmill label sam_vit_h"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(
    job: JobConfig, change: dict[str, Any], message: str
) -> None:
    ears = Ears()
    with pytest.raises(InputError, match=message):
        run(replace(job, **change), ears)
    assert ears.steps == []
    source = replace(job.source[1], format="koko")
    with pytest.raises(InputError, match=r"source 'second': format.*known: coco"):
        run(replace(job, source=(job.source[0], source)), ears)
    assert ears.steps == []


def test_a_branch_that_is_not_there(job: JobConfig) -> None:
    with pytest.raises(RefError, match="nearest is 'main'"):
        run(replace(job, branch="mian"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without weights and without a way to get any."""
    for name in ("MASKMILL_WEIGHTS", "MASKMILL_CACHE"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")


@pytest.mark.usefixtures("no_weights")
def test_without_weights_another_teacher_steps_in_loudly(job: JobConfig) -> None:
    wanted = LabelSettings(teacher="sam_vit_b", config={"precision": "float32"})
    policy = replace(BOXES, teachers=("sam_vit_b",), rules={"min_predicted_iou": 0.9})
    ears = Ears()
    result = run(replace(job, label=(wanted,), policy=policy), ears)
    [warning] = ears.warnings
    assert "sam_vit_b is not available, using grabcut" in warning
    assert ears.steps[2] == "label grabcut"
    dataset = Dataset.open(Store(job.store))
    assert dataset.commit.operation.config["teachers"] == ["grabcut"]
    assert "masks/grabcut" in dataset.manifest.layers()
    assert result.steps[-1].ledger.totals()[0].inputs == 4


@pytest.mark.usefixtures("no_weights")
def test_without_weights_and_without_fallback_the_job_stops_at_once(job: JobConfig) -> None:
    ears = Ears()
    wanted = LabelSettings(teacher="sam_vit_b", fallback=False)
    with pytest.raises(WeightsError, match="sam_vit_b"):
        run(replace(job, label=(wanted,), policy=""), ears)
    assert ears.steps == []


def test_a_fallback_is_found_under_any_name_of_its_teacher(job: JobConfig) -> None:
    chosen = replace(job, policy=Policy(teachers=("sam_vit_t", "u2netp")))
    taken = policy_for(chosen, {"mobile_sam": "grabcut", "u2netp": "u2netp"})
    assert taken == Policy(teachers=("grabcut", "u2netp"))
    both = policy_for(chosen, {"mobile_sam": "grabcut", "u2netp": "grabcut"})
    assert both == Policy(teachers=("grabcut",))


def test_labelling_again_after_other_steps_shows_the_labels_own_ledger(job: JobConfig) -> None:
    first = run(job)
    store = Store(job.store)
    again = run_label(store, LabelConfig(teacher="box", pool=INLINE), Ears())
    assert (again.commit_id, again.is_new) == (first.steps[2].commit_id, False)
    assert [row.layer for row in again.ledger.totals()] == ["masks/box"]
    assert "as before" in outcome(again)


def test_rules_for_a_category_that_is_not_there_are_pointed_out(job: JobConfig) -> None:
    run(replace(job, policy="", export=(), report=None))
    ears = Ears()
    policy = replace(BOXES, categories={"shoes": {"min_area_px": 1}, "shoe": {"min_area_px": 2}})
    run_filter(Store(job.store), FilterConfig(policy=policy), ears)
    [warning] = ears.warnings
    assert "'shoes'" in warning
    assert "did you mean 'shoe'?" in warning


def test_a_store_that_is_there_is_used(job: JobConfig) -> None:
    store = Store(job.store)
    commit_id = init(store)
    run(replace(job, policy="", export=(), report=None))
    assert Dataset.open(store, "main~3").commit_id == commit_id
