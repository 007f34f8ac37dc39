"""The whole of an evaluation, with a student that sees colours: what it finds is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.console import _plain
from manifests.errors import InputError
from student.evaluate import EvaluateOptions, evaluate
from tests.student.evaluation.colours import Album, ColourSegmenter, student_that_sees

# Bilinear masks lack the corners of rectangles.
_NEARLY = pytest.approx(1, abs=0.01)
_LEFT, _RIGHT = ("red", 8, 16, 40, 60), ("green", 96, 20, 48, 40)


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path / "album")


def test_a_student_that_finds_all_is_perfect(album: Album, tmp_path: Path) -> None:
    for _ in range(5):
        album.add(_LEFT, _RIGHT)
    album.add(("red", 8, 16, 40, 60), ("red", 96, 20, 48, 40), ("blue", 60, 80, 16, 20))
    dataset = album.ingested(str(tmp_path / "store"))
    segmenter, seen = ColourSegmenter(), []
    found = evaluate(
        student_that_sees(segmenter), dataset, EvaluateOptions(batch=4), on_image=seen.append
    )
    assert segmenter.batches == [4, 2]
    assert seen == [1, 2, 3, 4, 5, 6]
    for name in ("mask_ap", "box_ap", "boundary_ap", "pq", "sq", "rq", "miou", "pixel_accuracy",
                 "foreground_iou", "foreground_mean_iou", "phrase_iou", "phrase_precision_50",
                 "mask_recall"):  # fmt: skip
        assert getattr(found, name) == _NEARLY, name
    assert (found.num_images, found.num_true, found.num_phrases) == (6, 13, 11)
    assert found.learnable.segments == pytest.approx(6 / 13 + 1 / 13)
    assert [row.category for row in found.categories] == ["red", "green", "blue", "invisible"]
    assert [row.is_taught for row in found.categories] == [True, True, False, False]
    assert [row.num_true for row in found.categories] == [7, 5, 1, 0]
    assert found.categories[3].mask_ap is None
    assert all(image.pq == _NEARLY and image.foreground_iou == _NEARLY for image in found.images)
    assert found.student == "5" * 64
    assert found.data == dataset.commit_id


def test_a_blind_student_is_worth_nothing(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT, _RIGHT)
    album.add(_LEFT)
    dataset = album.ingested(str(tmp_path / "store"))
    found = evaluate(student_that_sees(ColourSegmenter(blind=True)), dataset, EvaluateOptions())
    for name in ("mask_ap", "box_ap", "boundary_ap", "pq", "miou", "foreground_iou", "phrase_iou"):
        assert getattr(found, name) == 0, name
    assert found.learnable.segments is None
    assert [image.num_segments for image in found.images] == [0, 0]


def test_what_it_misses_and_mistakes_is_counted_by_category(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT, ("invisible", 96, 20, 48, 40))
    album.add(_LEFT, _RIGHT)
    del album.document["annotations"][3]  # the green one is there, and nobody marked it
    found = evaluate(
        student_that_sees(ColourSegmenter()),
        album.ingested(str(tmp_path / "store")),
        EvaluateOptions(),
    )
    red, green, _, invisible = found.categories
    assert (red.mask_ap, red.pq, red.iou) == (_NEARLY, _NEARLY, _NEARLY)
    assert (green.mask_ap, green.pq, green.iou) == (None, None, None)
    assert (invisible.mask_ap, invisible.pq, invisible.iou) == (0, 0, 0)
    for name in ("mask_ap", "pq", "miou"):
        assert getattr(found, name) == pytest.approx(0.5, abs=0.01), name
    assert found.images[0].pq == found.images[1].pq == pytest.approx(1 / 1.5, abs=0.01)


def test_images_are_counted_as_for_training(album: Album, tmp_path: Path) -> None:
    """In the commit's order, without quarantined ones; those without masks count."""
    for masks in (True, False, True, True, True, True, True):
        album.add(_LEFT, masks=masks)
    album.document["images"][3] |= {"file_name": "dark.png"}
    dataset = album.ingested(str(tmp_path / "store"))
    student = student_that_sees(ColourSegmenter())
    everything = evaluate(student, dataset, EvaluateOptions())
    names = [image.file_name for image in everything.images]
    places = [image.place for image in everything.images]
    assert everything.left_out.without_masks == 1
    some = evaluate(student, dataset, EvaluateOptions(skip_images=2, max_images=3))
    wanted = [name for name, place in zip(names, places, strict=True) if 2 <= place < 5]
    assert [image.file_name for image in some.images] == wanted
    assert len(wanted) >= 2


def test_left_out_is_counted(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT, _RIGHT)
    album.add(_LEFT, _RIGHT, crowds=1)
    album.add(_LEFT, masks=False)
    album.without_mask(1)
    found = evaluate(
        student_that_sees(ColourSegmenter()),
        album.ingested(str(tmp_path / "store")),
        EvaluateOptions(),
    )
    assert found.left_out.without_masks == 1
    assert found.left_out.boxes_without_mask == 1
    assert found.left_out.crowds == 1
    assert found.num_true == 2
    for name in ("mask_ap", "box_ap", "pq", "miou", "foreground_iou"):
        assert getattr(found, name) == _NEARLY, name


def test_federated_labels_judge_only_what_was_looked_for(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT, _RIGHT, not_exhaustive_category_ids=[2])
    album.add(_LEFT, ("green", 96, 20, 48, 40), ("blue", 60, 80, 16, 20))
    album.document["annotations"].pop()  # blue: nobody looked for it
    album.document["annotations"].pop(1)  # green: not exhaustive
    found = evaluate(
        student_that_sees(ColourSegmenter()),
        album.ingested(str(tmp_path / "store")),
        EvaluateOptions(),
    )
    for name in ("mask_ap", "box_ap", "pq", "miou", "foreground_iou"):
        assert getattr(found, name) == _NEARLY, name
    assert [image.pq for image in found.images] == [_NEARLY, _NEARLY]


def test_stuff_is_one_segment_of_an_image(album: Album, tmp_path: Path) -> None:
    album.add(("red", 8, 16, 40, 60), ("red", 96, 20, 48, 40))
    dataset = album.ingested(str(tmp_path / "store"))
    student = student_that_sees(ColourSegmenter())
    assert evaluate(student, dataset, EvaluateOptions()).images[0].num_segments == 2
    merged = evaluate(student, dataset, EvaluateOptions(stuff=("red",)))
    assert merged.images[0].num_segments == 1
    with pytest.raises(InputError, match="'rd' is no category; did you mean 'red'"):
        evaluate(student, dataset, EvaluateOptions(stuff=("rd",)))


def test_the_batch_changes_nothing(album: Album, tmp_path: Path) -> None:
    for width in (20, 40, 60):
        album.add(("red", 8, 16, width, 60))
    dataset = album.ingested(str(tmp_path / "store"))
    student = student_that_sees(ColourSegmenter())
    one, three = (evaluate(student, dataset, EvaluateOptions(batch=n)) for n in (1, 3))
    assert one == three


def test_goes_into_json(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT)
    dataset = album.ingested(str(tmp_path / "store"))
    found = evaluate(student_that_sees(ColourSegmenter()), dataset, EvaluateOptions())
    read = json.loads(json.dumps(found, default=_plain))
    assert read["mask_ap"] == 1
    assert read["categories"][0]["category"] == "red"


def test_says_why_nothing_can_be_judged(album: Album, tmp_path: Path) -> None:
    album.add(_LEFT, masks=False)
    album.add(_RIGHT)
    dataset = album.ingested(str(tmp_path / "store"))
    student = student_that_sees(ColourSegmenter())
    with pytest.raises(InputError, match=r"none of these images .* has a human mask"):
        evaluate(student, dataset, EvaluateOptions(skip_images=2))
    bare = Album(tmp_path / "bare")
    bare.add(_LEFT, masks=False)
    with pytest.raises(InputError, match="has no human masks to judge by; ingest a source"):
        evaluate(student, bare.ingested(str(tmp_path / "other")), EvaluateOptions())
    with pytest.raises(InputError, match="batch of at least 1, got 0"):
        EvaluateOptions(batch=0)
