"""The curve: one student a size, each on the first images only, resumed for nothing when done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manifests.errors import InputError
from manifests.refs import Refs
from student.checkpoint import read_checkpoint
from student.curve import CurvePoint, CurveRun, curve_page, draw_curve
from student.evaluate import EvaluateOptions
from student.train import TrainOptions
from tests.command_line import Maskmill
from tests.student.small_run import small_config, small_store


def a_run(folder: Path, sizes: tuple[int, ...]) -> CurveRun:
    store, dataset = small_store(folder)
    return CurveRun(
        store=store, ref="photos", sizes=sizes, judge=dataset,
        evaluation=EvaluateOptions(skip_images=8),
        training=TrainOptions(inline=True, run_folder=str(folder / "run")),
    )  # fmt: skip


def test_each_size_is_a_student_of_its_own_on_the_first_images(tmp_path: Path) -> None:
    run = a_run(tmp_path, (6, 3))
    config = small_config(tmp_path, "train.steps=2", "name=c")
    seen: list[CurvePoint] = []
    curve = draw_curve(run, config, on_point=seen.append)
    assert [point.images for point in curve.points] == [3, 6]
    assert list(curve.points) == seen
    assert sorted(Refs(run.store).branches())[1:3] == ["models/c-3", "models/c-6"]
    for point in curve.points:
        made = read_checkpoint(run.store, point.trained.branch)
        assert made.config.data.mix[0].max_images == point.images
        assert made.lineage.data[0].commit == curve.ref
        assert point.evaluation.num_images == 2
    again = draw_curve(run, config)
    assert [point.trained.steps_now for point in again.points] == [0, 0]
    assert [point.evaluation for point in again.points] == [p.evaluation for p in curve.points]
    page = curve_page(curve).decode()
    assert "models/c-3" in page
    assert "<svg" in page
    assert "mask AP" in page


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, (3, 11))
    with pytest.raises(InputError, match="has 10 images to train on, got 11"):
        draw_curve(run, small_config(tmp_path))
    with pytest.raises(InputError, match="expected different numbers"):
        a_run(tmp_path / "twice", (3, 3))
    with pytest.raises(InputError, match="expected different numbers"):
        a_run(tmp_path / "none", (0,))


def test_a_mix_of_ones_own_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path, 'data.mix=[{ref="photos"}]')
    with pytest.raises(InputError, match=r"expected no data\.mix, which --sizes makes, got 1"):
        draw_curve(a_run(tmp_path, (3,)), config)


def test_judging_on_what_was_trained_on_is_said(tmp_path: Path) -> None:
    run = replace(a_run(tmp_path, (3,)), evaluation=EvaluateOptions(skip_images=1, max_images=4))
    curve = draw_curve(run, small_config(tmp_path, "train.steps=2"))
    assert curve.points[0].evaluation.num_taught == 2
    assert "Up to 2 of the judged images" in curve_page(curve).decode()


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_trained(
    tmp_path: Path, maskmill: Maskmill
) -> None:
    store, _ = small_store(tmp_path)
    answer = maskmill(
        "curve", "photos", "--store", store.url, "--sizes", "3", "--html", tmp_path, "--inline"
    )
    assert (answer.code, "the curve cannot be written" in answer.err) == (3, True)
    assert not [name for name in Refs(store).branches() if name.startswith("models/")]
