"""Predictions: every photo is answered for, work is found again, the file is true COCO."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from engine.driver import DriverConfig
from engine.pool import PoolConfig
from engine.predict import PredictConfig, predict
from engine.predict_images import find_photos
from engine.predict_output import OutputConfig, PredictSummary, write_predictions
from engine.predict_worker import PredictPayload, PredictWorker
from manifests import rle
from manifests.dataset import init
from manifests.errors import InputError
from manifests.results import find_result
from manifests.store import Store
from teachers.predictor import PredictedSegment, PredictorSource

INLINE = PoolConfig(executor="inline")
HASTE = DriverConfig(backoff_s=0.0)


class RedFinder:
    """Finds the red pixels of a photo; refuses photos that are wholly white."""

    def __init__(self, calls: Path | None = None) -> None:
        self._calls = calls

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[list[PredictedSegment]]:
        if self._calls:
            with self._calls.open("a") as file:
                file.write("".join("x" for _ in photos))
        if any(photo.min() == 255 for photo in photos):
            raise RuntimeError("blinded")
        return [self._segments(photo) for photo in photos]

    def _segments(self, photo: NDArray[np.uint8]) -> list[PredictedSegment]:
        mask = (photo[..., 0] > 200) & (photo[..., 1] < 60)
        if not mask.any():
            return []
        counts = rle.encode(mask.astype(np.uint8))
        x1, y1, x2, y2 = rle.box_xyxy(counts, size_hw=mask.shape).tolist()
        return [
            PredictedSegment(
                text="red thing", score=0.9, box_xyxy=(x1, y1, x2, y2), counts=counts,
                query="learnable",
            )
        ]  # fmt: skip


def source(calls: Path | None = None, name: str = "red") -> PredictorSource:
    return PredictorSource(
        identity={"student": name}, texts=("hat", "red thing"), build=partial(RedFinder, calls)
    )


def photo(red_xyxy: tuple[int, int, int, int] | None, *, size_hw: tuple[int, int] = (40, 60)):
    pixels = np.full((*size_hw, 3), 90, dtype=np.uint8)
    if red_xyxy:
        x1, y1, x2, y2 = red_xyxy
        pixels[y1:y2, x1:x2] = (250, 10, 10)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    photo((5, 10, 25, 20)).save(folder / "a.png")
    photo(None).save(folder / "deep" / "nothing.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    photo((0, 0, 30, 40)).save(folder / "deep" / "turned.png", exif=exif)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not much of a photo")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(str(tmp_path / "store"))
    init(opened)
    return opened


def write(
    store: Store, images: Sequence[object], out: str, made_by: PredictorSource | None = None
) -> PredictSummary:
    config = PredictConfig(
        images=tuple(map(str, images)), task_images=2, image_batch=2, pool=INLINE, driver=HASTE
    )
    made_by = made_by or source()
    found = predict(store, made_by, config)
    return write_predictions(
        found, OutputConfig(folder=out, texts=made_by.texts), made_by=made_by.identity
    )


def test_every_photo_is_answered_for_and_the_file_is_coco(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    summary = write(store, [photos], str(tmp_path / "out"))
    assert summary.num_photos == 5
    assert summary.failed == {"empty_file": 1, "undecodable": 1} or summary.failed == {
        "empty_file": 1,
        "not_an_image": 1,
    }
    assert (summary.num_segments, summary.by_text) == (2, {"red thing": 2})
    coco = COCO(summary.file)
    assert [(c["id"], c["name"]) for c in coco.cats.values()] == [(1, "hat"), (2, "red thing")]
    assert summary.best_score == pytest.approx(0.9)
    masks = {
        coco.imgs[record["image_id"]]["file_name"]: coco.annToMask(record)
        for record in coco.anns.values()
    }
    assert masks["a.png"].sum() == 200
    assert masks["a.png"][10:20, 5:25].all()
    # The photo as people see it: 60 high, 40 wide, red on the upper half.
    assert masks["deep/turned.png"].shape == (60, 40)
    assert masks["deep/turned.png"][:30].all()
    assert not masks["deep/turned.png"][30:].any()
    assert next(record["bbox"] for record in coco.anns.values()) == [5.0, 10.0, 20.0, 10.0]


def test_overlays_are_drawn_of_what_was_predicted(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    write(store, [photos], str(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir())
    assert [name.split("-", 1)[1] for name in names] == [
        "a.jpg", "deep_nothing.jpg", "deep_turned.jpg",
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "overlays" / names[2]) as drawn:
        assert drawn.height > drawn.width


def test_done_work_is_found_and_a_changed_photo_is_done_again(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    write(store, [photos], str(tmp_path / "out"), source(calls))
    once = len(calls.read_text())
    assert once == 3
    write(store, [photos], str(tmp_path / "again"), source(calls))
    assert len(calls.read_text()) == once
    photo((0, 0, 10, 10)).save(photos / "a.png")
    os.utime(photos / "a.png", ns=(1, 1))
    summary = write(store, [photos], str(tmp_path / "again"), source(calls))
    assert len(calls.read_text()) > once
    document = json.loads(Path(summary.file).read_text())
    assert document["annotations"][0]["area"] == 100


def test_another_student_is_another_answer(store: Store, photos: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    write(store, [photos / "a.png"], str(tmp_path / "out"), source(calls))
    write(store, [photos / "a.png"], str(tmp_path / "out"), source(calls, name="better"))
    assert calls.read_text() == "xx"


def test_the_one_photo_that_breaks_the_student_is_counted_and_the_others_are_done(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20), "white").save(photos / "blinding.png")
    summary = write(store, [photos], str(tmp_path / "out"))
    assert summary.failed["unexpected_error"] == 1
    assert summary.num_segments == 2


def test_files_and_folders_may_be_mixed_and_no_name_is_taken_twice(
    photos: Path,
) -> None:
    found = find_photos([str(photos / "deep"), str(photos / "a.png"), str(photos / "a.png")])
    assert [(Path(one.root).name, list(one.stamps)) for one in found] == [
        ("deep", ["nothing.png", "turned.png"]), ("photos", ["a.png"]),
    ]  # fmt: skip


def test_what_is_named_in_several_ways_is_one_photo(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    found = find_photos([str(photos), ".", f"{photos}/", "deep", "deep/nothing.png", "a.png"])
    assert [one.root for one in found] == [str(photos)]
    assert len(found[0].stamps) == 5


def test_roots_are_absolute_since_workers_may_stand_elsewhere(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    found = find_photos(["photos/a.png", "photos/deep"])
    assert [one.root for one in found] == [str(photos), str(photos / "deep")]


def test_earlier_pictures_are_no_photos(store: Store, photos: Path, tmp_path: Path) -> None:
    out = photos / "found"
    assert write(store, [photos], str(out)).num_overlays == 3
    assert "found/overlays/000001-a.jpg" in find_photos([str(photos)])[0].stamps
    found = find_photos([str(photos)], without=str(out / "overlays"))
    assert len(found[0].stamps) == 5


def test_a_name_that_is_not_utf8_is_counted(store: Store, photos: Path, tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(photos) + b"/bad\xff.png"))).write_bytes(b"a")
    summary = write(store, [photos], str(tmp_path / "out"))
    assert (summary.num_photos, summary.failed["missing_file"]) == (6, 1)


def test_what_could_not_be_read_for_a_passing_reason_is_tried_again(
    store: Store, photos: Path
) -> None:
    payload = PredictPayload(work_key="f" * 64, root=str(photos), names=("a.png", "later.png"))
    worker = PredictWorker(store, RedFinder(), image_batch=2)
    worker.run(payload)
    assert find_result(store, payload.work_key) is None
    photo((0, 0, 10, 10)).save(photos / "later.png")
    record = worker.run(payload)
    assert find_result(store, payload.work_key) == record


def test_what_is_not_there_is_said(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file or folder at .*nowhere"):
        find_photos([str(photos / "nowhere")])
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no image in"):
        find_photos([str(tmp_path / "bare")])


def test_photos_and_output_may_lie_in_a_bucket(store: Store, s3_url: str) -> None:
    files, folder = fsspec.core.url_to_fs(s3_url)
    buffer = io.BytesIO()
    photo((5, 10, 25, 20)).save(buffer, format="png")
    files.pipe_file(f"{folder}/in/x.png", buffer.getvalue())
    summary = write(store, [f"{s3_url}/in"], f"{s3_url}/out")
    document = json.loads(files.cat_file(f"{folder}/out/predictions.json"))
    assert (summary.num_segments, document["annotations"][0]["area"]) == (1, 200)
    assert len(files.ls(f"{folder}/out/overlays")) == 1


def test_segments_below_the_score_are_left_out(store: Store, photos: Path, tmp_path: Path) -> None:
    config = PredictConfig(images=(str(photos),), pool=INLINE)
    found = predict(store, source(), config)
    target = OutputConfig(folder=str(tmp_path / "out"), texts=("hat",), min_score=0.95)
    assert write_predictions(found, target, made_by={}).num_segments == 0
    laxer = replace(target, min_score=0.85, overlays=1)
    summary = write_predictions(found, laxer, made_by={})
    assert (summary.num_segments, summary.num_overlays) == (2, 1)
