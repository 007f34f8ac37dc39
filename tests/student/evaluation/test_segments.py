"""Segments of outputs whose right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from manifests import rle
from manifests.errors import InputError
from student.evaluation.full_size import Frame
from student.evaluation.image_output import SegmentOptions, image_output
from student.evaluation.panoptic_segments import panoptic
from student.evaluation.segment_map import NOTHING
from student.evaluation.segments import instances, pixels, referred
from tests.student.evaluation.outputs import image_of, output_of, part

_SIZE = (8, 10)
_LEFT, _RIGHT = part((0, 8), (0, 5), _SIZE), part((0, 8), (5, 10), _SIZE)
_TOP = part((0, 2), (0, 10), _SIZE)
_OPTIONS = SegmentOptions()


def _random(seed: int, num_queries: int = 6, num_texts: int = 3):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_queries, *_SIZE, generator=generator) * 3
    scores = torch.rand(num_queries, num_texts, generator=generator)
    frame = Frame(canvas_hw=(32, 40), content_hw=(30, 22), size_hw=(57, 41))
    return image_of(list(logits), scores.tolist(), frame=frame)


def test_instances_are_pairs_by_score_times_quality() -> None:
    unsure = torch.where(_RIGHT, 0.5, -5.0)
    found = instances(image_of([_LEFT, unsure], [[0.9, 0.2], [0.1, 0.8]]), _OPTIONS)
    assert found.categories.tolist() == [0, 1, 1, 0]
    assert found.queries.tolist() == [0, 1, 0, 1]
    assert found.scores[0] == pytest.approx(0.9, abs=0.01)
    assert found.scores[1] < 0.8 * 0.65  # the mean probability inside the mask is sigmoid(0.5)
    mask = rle.decode(found.counts[0], size_hw=found.size_hw)
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()


def test_only_so_many_instances_and_none_is_empty() -> None:
    image = image_of([_LEFT, _RIGHT, torch.zeros(_SIZE, dtype=torch.bool)], [[0.5], [0.6], [0.9]])
    assert instances(image, SegmentOptions(max_instances=2)).queries.tolist() == [1]
    assert instances(image, _OPTIONS).queries.tolist() == [1, 0]


def test_boxes_are_in_pixels_of_the_image_and_inside_it() -> None:
    frame = Frame(canvas_hw=(32, 40), content_hw=(16, 40), size_hw=(160, 400))
    # The upper half of the canvas is the image: the middle of the canvas is its lower edge.
    image = image_of(
        [part((0, 8), (0, 10), _SIZE)], [[1.0]], frame=frame, boxes_cxcywh=[[0.5, 0.5, 0.5, 0.25]]
    )
    assert instances(image, _OPTIONS).boxes_xyxy.tolist() == [[100, 120, 300, 160]]


@pytest.mark.parametrize("max_pixels", [1, 3000, 2**24])
def test_nothing_depends_on_how_much_fits_into_memory(max_pixels: int) -> None:
    image, few = _random(3), SegmentOptions(max_pixels=max_pixels, object_threshold=0.5)
    much = replace(few, max_pixels=2**26)
    for made in (instances, panoptic, pixels):
        one, other = made(image, few), made(image, much)  # type: ignore[operator]
        assert _plain(one) == _plain(other)


def _plain(value):  # type: ignore[no-untyped-def]
    if isinstance(value, np.ndarray):
        return np.round(value.astype(np.float64), 4).tolist()
    slots = getattr(value, "__slots__", ())
    return {name: _plain(getattr(value, name)) for name in slots} if slots else value


def test_one_of_a_batch_equals_one_alone() -> None:
    images = [_random(1), _random(2)]
    batch = output_of(images, num_learnable=2)
    for index, image in enumerate(images):
        found = image_output(batch, index, image.frame)
        torch.testing.assert_close(found.scores, image.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.mask_logits, image.mask_logits)
        assert _plain(panoptic(found, _OPTIONS)) == _plain(panoptic(image, _OPTIONS))


def test_a_pixel_has_the_text_with_most_votes() -> None:
    image = image_of([_LEFT, _LEFT, _LEFT, _RIGHT], [[0.6, 0], [0, 0.4], [0, 0.4], [0.3, 0]])
    found = pixels(image, _OPTIONS)
    assert (found.labels[:, :18] == 1).all()  # 0.8 against 0.6
    assert (found.labels[:, 22:] == 0).all()
    assert found.foreground[:, :18] == pytest.approx(0.6, abs=1e-4)
    assert found.foreground[:, 22:] == pytest.approx(0.3, abs=1e-4)


def test_hundreds_that_are_nothing_do_not_outvote_one() -> None:
    weak = [[0.01, 0.04]] * 300
    found = pixels(image_of([_LEFT] * 301, [[0.6, 0.0], *weak]), _OPTIONS)
    assert (found.labels[:, :18] == 0).all()
    assert (found.labels[:, 22:] == NOTHING).all()


def test_a_pixel_that_is_hardly_anything_is_nothing() -> None:
    image = image_of([_LEFT, _RIGHT], [[0.2], [0.3]])
    found = pixels(image, _OPTIONS)
    assert (found.labels[:, :18] == NOTHING).all()
    assert (found.labels[:, 22:] == 0).all()
    all_of = pixels(image, SegmentOptions(foreground_threshold=0))
    assert (all_of.labels == 0).all()


def test_panoptic_segments_share_no_pixel() -> None:
    found = panoptic(image_of([_LEFT, _RIGHT], [[0.9, 0.1], [0.2, 0.7]]), _OPTIONS)
    assert found.map.categories.tolist() == [0, 1]
    assert found.queries.tolist() == [0, 1]
    assert found.scores == pytest.approx([0.9, 0.7])
    assert (found.map.rows[:, :18] == 0).all()
    assert (found.map.rows[:, 22:] == 1).all()


def test_a_query_that_lost_most_of_its_mask_gives_no_segment() -> None:
    whole = part((0, 8), (0, 10), _SIZE)
    found = panoptic(image_of([_LEFT, whole], [[0.9, 0], [0, 0.8]]), _OPTIONS)
    assert found.queries.tolist() == [0]  # the other kept half of its own
    assert (found.map.rows[:, 22:] == NOTHING).all()
    kind = SegmentOptions(overlap_threshold=0.4)
    assert panoptic(image_of([_LEFT, whole], [[0.9, 0], [0, 0.8]]), kind).queries.tolist() == [0, 1]


def test_unsure_queries_give_no_segment() -> None:
    found = panoptic(image_of([_LEFT, _RIGHT], [[0.2], [0.1]]), _OPTIONS)
    assert len(found.queries) == 0
    assert (found.map.rows == NOTHING).all()


def test_merged_texts_have_one_segment() -> None:
    image = image_of([_LEFT, _RIGHT], [[0.6, 0], [0.7, 0]])
    assert len(panoptic(image, _OPTIONS).queries) == 2
    found = panoptic(image, SegmentOptions(merged=frozenset({0})))
    assert found.queries.tolist() == [1]
    assert (found.map.rows == 0).all()


def test_panoptic_equals_the_rule_on_whole_maps() -> None:
    """Mask2Former's rule, written for all pixels at once."""
    options = SegmentOptions(object_threshold=0.6, overlap_threshold=0.3)
    for seed in range(8):
        image = _random(seed, num_queries=12)
        found = panoptic(image, options)
        canvas = torch.nn.functional.interpolate(
            image.mask_logits[None], image.frame.canvas_hw, mode="bilinear"
        )
        cut = canvas[..., : image.frame.content_hw[0], : image.frame.content_hw[1]]
        own = torch.nn.functional.interpolate(cut, image.frame.size_hw, mode="bilinear")[0]
        inside, scores = own.sigmoid(), image.scores.amax(dim=1)
        kept = [q for q in scores.argsort(descending=True).tolist() if scores[q] > 0.6]
        owner = (inside[kept] * scores[kept, None, None]).argmax(dim=0)
        expected = {}
        for row, query in enumerate(kept):
            area = ((owner == row).sum() / (inside[query] >= 0.5).sum()).item()
            mask = (owner == row) & (inside[query] >= 0.5)
            if mask.any() and area >= 0.3:
                expected[query] = mask.numpy()
        assert found.queries.tolist() == list(expected)
        for row, mask in enumerate(expected.values()):
            assert ((found.map.rows == row) != mask).mean() < 1e-3


def test_a_phrase_has_the_mask_of_the_query_that_fits_it_best() -> None:
    image = image_of([_LEFT, _RIGHT], [[0.9, 0.1], [0.2, 0.15]])
    found = referred(image, 1)
    assert found.query == 1
    assert found.score == pytest.approx(0.15)
    assert rle.decode(found.counts, size_hw=image.frame.size_hw)[:, 22:].all()
    with pytest.raises(InputError, match="one of 2 texts, got 2"):
        referred(image, 2)


def test_without_texts_there_is_nothing() -> None:
    image = image_of([_LEFT, _RIGHT], [[], []])
    assert len(instances(image, _OPTIONS)) == 0
    assert (pixels(image, _OPTIONS).labels == NOTHING).all()
    assert len(panoptic(image, _OPTIONS).queries) == 0


def test_one_pixel_images() -> None:
    frame = Frame(canvas_hw=(32, 40), content_hw=(32, 32), size_hw=(1, 1))
    image = image_of([part((0, 8), (0, 10), _SIZE)], [[0.9]], frame=frame)
    assert instances(image, _OPTIONS).counts == (rle.encode(np.ones((1, 1))),)
    assert pixels(image, _OPTIONS).labels.tolist() == [[0]]
    assert panoptic(image, _OPTIONS).map.rows.tolist() == [[0]]


def test_refuses_no_instances() -> None:
    with pytest.raises(InputError, match="max_instances of at least 1"):
        SegmentOptions(max_instances=0)


def test_top_pairs_overlap_nothing_of_the_top_mask() -> None:
    """A wide mask over a part: instances may overlap, unlike panoptic segments."""
    found = instances(image_of([_LEFT, _TOP], [[0.9], [0.8]]), _OPTIONS)
    first, second = (rle.decode(one, size_hw=found.size_hw) for one in found.counts)
    assert (first & second).any()
