"""The command evaluate on a student that was really trained, if only for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Maskmill, command_line
from tests.student.small_run import NAMES, trained_store


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the student `small` and the photos it was taught."""
    return trained_store(tmp_path_factory.mktemp("evaluate")).url


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], store_url: str) -> Maskmill:
    run = command_line(capsys)
    return lambda *words: run("evaluate", "--store", store_url, *words)


def test_json_has_every_number_and_the_page_is_written(evaluate: Maskmill, tmp_path: Path) -> None:
    page = tmp_path / "judged.html"
    words = ("models/small", "--on", "photos", "--html", page, "--max-pictures", 4, "--json")
    answer = evaluate(*words, "--skip-images", 3, "--max-images", 5)
    assert answer.code == 0, answer.err
    found = answer.json
    for name in ("mask_ap", "mask_ap50", "box_ap", "boundary_ap", "pq", "miou", "foreground_iou",
                 "phrase_iou"):  # fmt: skip
        assert 0 <= found[name] <= 1, name
    assert [image["place"] for image in found["images"]] == [3, 4, 5, 6, 7]
    assert found["num_taught"] == 5
    assert "was trained on 5 of these images" in page.read_text("utf-8")
    assert {row["category"]: row["is_taught"] for row in found["categories"]} == dict.fromkeys(
        NAMES, True
    )
    assert page.read_text("utf-8").count("data:image/jpeg") == 8
    assert f"wrote {page}" in answer.err


def test_people_get_tables(evaluate: Maskmill) -> None:
    answer = evaluate("small", "--on", "photos", "--max-images", 2, "--stuff", "bag")
    assert answer.code == 0, answer.err
    assert "2 images, 3 masks" in answer.out
    assert "trained on 2 of these 2 images" in answer.err
    assert "boundary AP" in answer.out
    assert all(name in answer.out for name in NAMES)


def test_wrong_words_are_refused_in_a_sentence(evaluate: Maskmill) -> None:
    assert evaluate("photos", "--on", "photos").code == 5  # no checkpoint
    unknown = evaluate("small", "--on", "photos", "--stuff", "bagg")
    assert (unknown.code, "did you mean 'bag'?" in unknown.err) == (3, True)
    nothing = evaluate("small", "--on", "photos", "--skip-images", 99)
    assert (nothing.code, "none of these images" in nothing.err) == (3, True)
    bare = evaluate("small", "--on", "main")  # the empty first commit
    assert (bare.code, "no human masks" in bare.err) == (3, True)
    device = evaluate("small", "--on", "photos", "--device", "abacus")
    assert (device.code, "abacus" in device.err) == (3, True)


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_judged(
    evaluate: Maskmill, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    answer = evaluate("nobody", "--html", tmp_path / "file" / "page.html")
    assert (answer.code, "cannot be written" in answer.err) == (3, True)
    assert evaluate("nobody", "--html", tmp_path / "page.html").code == 5
    assert not (tmp_path / "page.html").exists()
