"""A training image and its targets, cut and scaled together; damaged and empty ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.boxes import cxcywh_to_xyxy
from manifests.layout import object_path
from student.data.sample import Sample, training_sample
from student.data.training_data import TrainingData
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.student.data.conftest import categories, config_of

SIZE = (48, 64)
Open = Callable[..., TrainingData]


def _sample(data: TrainingData, folder: Path, seed: int = 0, **values: Any) -> Sample:
    return training_sample(data, 0, config_of(folder, **values), np.random.default_rng(seed))


def _boxes(sample: Sample) -> np.ndarray:
    return cxcywh_to_xyxy(sample.boxes_cxcywh * sample.masks.shape[-1])


def _one(builder: DatasetBuilder, *boxes: tuple[float, ...], **more: Any) -> Any:
    builder.image("a.jpg", size_hw=SIZE)
    for box in boxes:
        builder.box("bag", box, **more)
    builder.shard()
    return builder.commit(categories())


def test_a_whole_view_shows_masks_and_true_boxes(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    box = (4.5, 3.25, 28.5, 21.75)  # finer than pixels, as annotators draw them
    sample = _sample(opened(_one(builder, box)), tmp_path)
    assert sample.side == 64
    assert sample.pixels.shape == (*SIZE, 3)
    np.testing.assert_allclose(_boxes(sample), [box], atol=1e-4)
    assert sample.masks.shape == (1, 64, 64)
    assert sample.masks[0].sum() == 24 * 18
    assert sample.masks[0, 3:21, 4:28].all()
    assert sample.has_mask.tolist() == [True]
    assert sample.judged.tolist() == [True, True, True]


def test_boxes_of_cut_objects_are_those_of_what_is_seen(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """An L: where its foot is cut off the box shrinks to the stem; without a mask it is cut."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:44, 4:14] = 1
    mask[34:44, 4:60] = 1
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", (4.0, 4.0, 60.0, 44.0), mask=mask)
    builder.box("hat", (4.0, 4.0, 60.0, 44.0), keep=False)
    builder.shard()
    data = opened(builder.commit(categories()))
    num_cut = 0
    for seed in range(40):
        sample = _sample(data, tmp_path, seed, scale_min=1.2, scale_max=3.0, flip=0.5)
        boxes = _boxes(sample)
        for place, category in enumerate(sample.categories.tolist()):
            x0, y0, x1, y1 = boxes[place]
            assert 0 <= x0 < x1 <= 64
            assert 0 <= y0 < y1 <= 64
            if category == 1:
                assert not sample.has_mask[place]
                assert not sample.masks[place].any()
                continue
            shown = sample.masks[place]
            rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose([x0, y0, x1, y1], tight, atol=1.6)
            num_cut += len(boxes) == 2 and bool(np.abs(boxes[0] - boxes[1]).max() > 5)
    assert num_cut > 5


def test_what_has_no_pixel_left_vanishes(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """One-pixel masks and boxes of less than a pixel, at an eighth of the size."""
    speck = np.zeros(SIZE, np.uint8)
    speck[20, 20] = 1
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", (20.0, 20.0, 21.0, 21.0), mask=speck)
    builder.box("hat", (2.0, 2.0, 5.0, 5.0), keep=False)
    builder.box("shoe", (0.0, 0.0, 40.0, 40.0))
    builder.shard()
    data = opened(builder.commit(categories()))
    assert _sample(data, tmp_path).categories.tolist() == [0, 1, 2]
    small = _sample(data, tmp_path, scale_min=0.125, scale_max=0.125)
    assert small.categories.tolist() == [2]
    assert small.pixels.shape == (6, 8, 3)
    assert small.judged.all()


def test_a_mask_too_thin_for_a_small_photo_leaves_its_box(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """A chain a pixel wide, at an eighth of the size: it is still no background."""
    chain = np.zeros(SIZE, np.uint8)
    chain[4:44, 9] = chain[9, 4:60] = 1
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", (4.0, 4.0, 60.0, 44.0), mask=chain)
    builder.shard()
    data = opened(builder.commit(categories()))
    for seed in range(8):
        small = _sample(data, tmp_path, seed, scale_min=0.1, scale_max=0.15)
        assert small.categories.tolist() == [0]
        assert small.has_mask.tolist() == [bool(small.masks.any())]


def test_an_image_without_objects_is_a_sample(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.image("b.jpg", size_hw=SIZE)
    builder.box("bag", (0.0, 0.0, 40.0, 40.0))
    builder.shard()
    sample = _sample(opened(builder.commit(categories())), tmp_path)
    assert sample.masks.shape == (0, 64, 64)
    assert sample.boxes_cxcywh.shape == (0, 4)
    assert sample.judged.all()


def test_of_many_targets_some_are_drawn_and_the_rest_is_not_judged(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    for place in range(12):
        builder.box(("bag", "hat", "shoe")[place % 3], (place, 0.0, place + 20.0, 30.0))
    builder.shard()
    data = opened(builder.commit(categories()))
    drawn = [_sample(data, tmp_path, seed, max_targets=2) for seed in range(20)]
    assert {len(sample.categories) for sample in drawn} == {2}
    assert len({tuple(sample.categories.tolist()) for sample in drawn}) > 3
    assert not any(sample.judged.any() for sample in drawn)  # of each some are left out
    assert _sample(data, tmp_path, max_targets=12).judged.all()


def _spoil(builder: DatasetBuilder, dataset: Any, at: int) -> None:
    object_id = dataset.manifest.of_layer("images")[0].object_id
    path = Path(builder.store.path(object_path(object_id)))
    stored = bytearray(path.read_bytes())
    stored[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(stored)


def test_a_damaged_image_teaches_nothing(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    dataset = _one(builder, (0.0, 0.0, 40.0, 40.0))
    data = opened(dataset)
    image = data.image(0)
    _spoil(builder, dataset, 900)
    sample = _sample(data, tmp_path)
    assert sample.masks.shape == (0, 64, 64)
    assert not sample.judged.any()
    assert sample.pixels.shape == (*SIZE, 3)
    assert not sample.pixels.any()
    (complaint,) = sample.complaints
    assert image.image_id in complaint
    assert image.shard[:12] in complaint


def test_of_a_damaged_mask_the_box_is_left(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    box = (0.0, 0.0, 40.0, 40.0)
    row = mask_row(np.ones(SIZE, np.uint8), SIZE) | {"counts": b"5"}
    builder.box("hat", box, layers={"masks/mobile_sam": row})
    builder.box("bag", box)
    builder.shard()
    sample = _sample(opened(builder.commit(categories())), tmp_path)
    assert sample.has_mask.tolist() == [False, True]
    np.testing.assert_allclose(_boxes(sample), [box, box], atol=1e-4)
    (complaint,) = sample.complaints
    assert "does not cover its image's pixels" in complaint


@pytest.mark.parametrize("seed", range(3))
def test_samples_depend_on_their_generator_alone(
    builder: DatasetBuilder, opened: Open, tmp_path: Path, seed: int
) -> None:
    data = opened(_one(builder, (0.0, 0.0, 40.0, 40.0), (20.0, 10.0, 60.0, 40.0)))
    jitter = {"scale_min": 0.5, "scale_max": 2.0, "flip": 0.5}
    first, second = (_sample(data, tmp_path, seed, **jitter) for _ in range(2))
    for name in ("categories", "boxes_cxcywh", "masks", "weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.pixels, second.pixels)
