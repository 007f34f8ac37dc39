"""A trained student on the engine's workers: what it says is what the network says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.pool import PoolConfig
from engine.predict import PredictConfig, predict
from manifests import rle
from manifests.errors import InputError, RefError
from manifests.refs import Refs
from manifests.store import Store
from student.checkpoint import load_student
from student.predictor import PredictOptions, StudentPredictor, predictor_source
from tests.command_line import Maskmill
from tests.student.small_run import NAMES, trained_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the student `small`."""
    return trained_store(tmp_path_factory.mktemp("predictor"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (height, width) in enumerate([(40, 70), (90, 30), (64, 64)]):
        noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def test_together_and_alone_photos_have_the_same_segments(store: Store) -> None:
    student = load_student(store, "small")
    predictor = StudentPredictor(student, PredictOptions(top=5), device="cpu")
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (*hw, 3), dtype=np.uint8) for hw in ((40, 70), (90, 30))]
    together = predictor.predict(photos)
    for photo, found in zip(photos, together, strict=True):
        (alone,) = predictor.predict([photo])
        assert [(s.text, s.counts, s.query) for s in alone] == [
            (s.text, s.counts, s.query) for s in found
        ]
        assert 0 < len(found) <= 5
        assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
        assert {s.text for s in found} <= set(NAMES)
        assert {s.query for s in found} <= {"learnable", "conditional"}
        height, width = photo.shape[:2]
        for segment in found:
            x1, y1, x2, y2 = segment.box_xyxy
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height


def test_of_a_phrase_there_is_one_segment_at_most(store: Store) -> None:
    predictor = StudentPredictor(
        load_student(store, "small"), PredictOptions(texts=("red bag", "hat")), device="cpu"
    )
    (found,) = predictor.predict([np.full((50, 60, 3), 90, dtype=np.uint8)])
    assert len({segment.text for segment in found}) == len(found) <= 2


@pytest.mark.parametrize("task", ["panoptic", "semantic", "foreground"])
def test_segments_of_these_tasks_do_not_overlap(store: Store, task: str) -> None:
    options = PredictOptions(task=task, min_score=0.001)
    predictor = StudentPredictor(load_student(store, "small"), options, device="cpu")
    photo = np.random.default_rng(3).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    (found,) = predictor.predict([photo])
    masks = [rle.decode(segment.counts, size_hw=(50, 60)) for segment in found]
    assert all(mask.any() for mask in masks)
    if masks:
        assert np.sum(masks, axis=0).max() == 1
    if task == "foreground":
        assert [segment.text for segment in found] == ["foreground"]
    if task == "semantic":
        assert len({segment.text for segment in found}) == len(found)


def test_copies_of_an_instance_are_left_out(store: Store) -> None:
    student = load_student(store, "small")
    photo = np.random.default_rng(3).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    found = {
        overlap: StudentPredictor(
            student, PredictOptions(max_overlap=overlap), device="cpu"
        ).predict([photo])[0]
        for overlap in (0.3, 1.0)
    }
    assert 0 < len(found[0.3]) < len(found[1.0])
    assert {s.counts for s in found[0.3]} <= {s.counts for s in found[1.0]}
    assert [s.score for s in found[0.3]] == sorted((s.score for s in found[0.3]), reverse=True)
    for segment in found[1.0]:
        same = [one for one in found[0.3] if one.text == segment.text]
        alike = rle.iou_matrix([segment.counts], [s.counts for s in same], size_hw=(50, 60))
        is_kept = any(s.counts == segment.counts and s.score == segment.score for s in same)
        assert is_kept != bool((alike[0, [s.score > segment.score for s in same]] > 0.3).any())


def test_a_folder_goes_through_the_engine(store: Store, photos: Path) -> None:
    source = predictor_source(store, "small", PredictOptions(top=3))
    config = PredictConfig(images=(str(photos),), pool=PoolConfig(executor="inline"))
    (root,) = predict(store, source, config)
    assert root.rows["file_name"].to_pylist() == ["0.png", "1.png", "2.png"]
    assert root.rows["reason"].null_count == 3
    assert all(0 < len(segments) <= 3 for segments in root.rows["segments"].to_pylist())


def test_what_is_asked_for_is_part_of_the_work_key(store: Store) -> None:
    keys = [
        predictor_source(store, "small", options).identity
        for options in (PredictOptions(), PredictOptions(top=3), PredictOptions(texts=("a",)))
    ]
    assert len({str(key) for key in keys}) == 3


def test_a_phrase_that_is_given_twice_is_looked_for_once() -> None:
    assert PredictOptions(texts=("hat", "red bag", "hat")).texts == ("hat", "red bag")


def test_what_is_no_student_is_said(store: Store) -> None:
    with pytest.raises(RefError, match=r"is no checkpoint .* small; train one"):
        predictor_source(store, "photos", PredictOptions())
    with pytest.raises(RefError):
        predictor_source(store, "nobody", PredictOptions())
    with pytest.raises(InputError, match="top: expected at least 1"):
        PredictOptions(top=0)
    with pytest.raises(InputError, match="max_overlap: expected more than 0"):
        PredictOptions(max_overlap=0)
    with pytest.raises(InputError, match="did you mean 'panoptic'"):
        PredictOptions(task="panoptik")
    with pytest.raises(InputError, match="a blank one among 2; without --text"):
        PredictOptions(texts=("red bag", " _ "))
    assert "models/small" in Refs(store).branches()


def test_a_full_gpu_is_pythons_own_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the engine's worker answers by halving its batch."""
    source = predictor_source(store, "small", PredictOptions())
    predictor = source.build()

    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor._student.segmenter, "forward", full)  # type: ignore[attr-defined]
    with pytest.raises(MemoryError, match="the GPU is full: CUDA out of memory"):
        predictor.predict([np.zeros((40, 50, 3), np.uint8)])


def test_the_command(store: Store, photos: Path, tmp_path: Path, maskmill: Maskmill) -> None:
    out = tmp_path / "out"
    words = ("predict", photos, "--store", store.url, "--model", "small", "--out", out, "--inline")
    answer = maskmill(*words, "--min-score", "0", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["num_photos"] == 3
    assert answer.json["num_overlays"] == 3
    assert (out / "predictions.json").exists()
    (out / "overlays" / "000007-older.jpg").touch()
    (out / "overlays" / "mine.jpg").touch()
    shown = maskmill(*words, "--text", "red bag", "--min-score", "0", "--overlays", "1")
    assert "red bag" in shown.out
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        "000001-0.jpg", "mine.jpg",
    ]  # fmt: skip
    strict = maskmill(*words, "--min-score", "1")
    assert "no segment scored 1 or more, the best one 0." in strict.err
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no photo")
    hopeless = maskmill("predict", bad, *words[2:])
    assert hopeless.code == 8
    assert "none of 1 photos could be predicted: not_an_image 1" in hopeless.err
    missing = maskmill(*words[:5], "nobody", *words[6:])
    assert missing.code == 5
