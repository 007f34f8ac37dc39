"""The page of an evaluation: self-contained, with the right photos on it, safe against any name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manifests.dataset import Dataset
from manifests.errors import InputError
from student.checkpoint import Student
from student.evaluate import EvaluateOptions, evaluate
from student.evaluation.image_output import SegmentOptions
from student.evaluation.page import PageOptions, extremes, write_evaluation_page
from student.evaluation.result import Evaluation, ImageResult
from tests.student.evaluation.colours import Album, ColourSegmenter, student_that_sees

_EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Dataset, Evaluation]:
    folder = tmp_path_factory.mktemp("judged")
    album = Album(folder / "album")
    album.document["categories"][3]["name"] = _EVIL
    for place in range(3):
        album.add(("red", 8, 16, 40, 60), ("green", 96, 20, 48, 40 + 4 * place))
    album.add((_EVIL, 8, 16, 40, 60))
    dataset = album.ingested(str(folder / "store"))
    student = student_that_sees(ColourSegmenter())
    return student, dataset, evaluate(student, dataset, EvaluateOptions())


def _page(
    judged: tuple[Student, Dataset, Evaluation], target: Path, **options: int
) -> tuple[str, int]:
    student, dataset, found = judged
    size = write_evaluation_page(
        student, dataset, found, target,
        options=PageOptions(model="models/a", on="main", **options), segments=SegmentOptions(),
    )  # fmt: skip
    assert target.stat().st_size == size
    return target.read_text("utf-8"), size


def test_has_the_numbers_and_the_photos(
    judged: tuple[Student, Dataset, Evaluation], tmp_path: Path
) -> None:
    text, _ = _page(judged, tmp_path / "new" / "page.html")
    for value in (judged[2].mask_ap, judged[2].pq, judged[2].miou):
        assert f"{value:.3f}" in text
    assert text.count("data:image/jpeg") == 8  # four photos, truth and result
    assert text.index('id="worst"') < text.index("what people marked in 4.png")
    assert "not sure enough of anything" in text
    assert text.count("not taught") == 1


def test_fetches_and_runs_nothing(
    judged: tuple[Student, Dataset, Evaluation], tmp_path: Path
) -> None:
    text, _ = _page(judged, tmp_path / "page.html")
    assert _EVIL not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"<script|<link|(?:src|href)=\"(?!data:|#)|url\(|@import", text)


def test_is_no_larger_than_it_may_be(
    judged: tuple[Student, Dataset, Evaluation], tmp_path: Path
) -> None:
    _, whole = _page(judged, tmp_path / "page.html")
    text, size = _page(judged, tmp_path / "page.html", max_page_bytes=whole // 2)
    assert size <= whole // 2
    assert 0 <= text.count("data:image/jpeg") < 8
    text, _ = _page(judged, tmp_path / "page.html", max_pictures=0)
    assert "data:image" not in text


def _image(place: int, pq: float | None, foreground_iou: float = 0.5) -> ImageResult:
    return ImageResult(
        image_id=str(place), file_name=f"{place}.png", place=place, pq=pq,
        foreground_iou=foreground_iou, num_true=1, num_segments=1,
    )  # fmt: skip


def test_no_photo_is_worst_and_best() -> None:
    images = [_image(0, 0.9), _image(1, None), _image(2, 0.1), _image(3, 0.1, 0.2), _image(4, 0.5)]
    worst, best = extremes(images, 16)
    assert [image.place for image in worst] == [3, 2]
    assert [image.place for image in best] == [0, 4]
    worst, best = extremes(images, 3)
    assert [image.place for image in worst + best] == [3, 2, 0]
    assert extremes(images, 0) == ([], [])
    with pytest.raises(InputError, match="max_pictures of at least 0, got -1"):
        PageOptions(max_pictures=-1)
