"""Steps of batches: the same for any number of workers, from any step on."""

from __future__ import annotations

import logging
import multiprocessing
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from manifests.dataset import init
from manifests.errors import InputError, JobError
from manifests.layout import object_path
from manifests.store import Store
from student.config import StudentConfig
from student.data.loader import step_batches
from student.data.order import World
from student.data.parcel import packed, unpacked
from student.data.training_data import TrainingData
from student.records import Batch
from tests.manifests.conftest import DatasetBuilder
from tests.student.data.conftest import config_of, hashed_texts, many_images, student_config
from tests.student.data.unsteady import UnsteadyStore

Open = Callable[..., TrainingData]
JITTER: dict[str, Any] = {"scale_min": 0.5, "scale_max": 2.0, "flip": 0.5}


def _steps(
    data: TrainingData, config: StudentConfig, first: int, last: int, world: World | None = None
) -> list[tuple[Batch, ...]]:
    found = step_batches(
        data, hashed_texts(), config, world=world or World(), first_step=first, last_step=last
    )
    return list(found)


def _ids(step: tuple[Batch, ...]) -> list[str]:
    return [image_id for batch in step for image_id in batch.image_ids]


def _dealt(shares: list[list[str]]) -> list[str]:
    """What the ranks have, dealt out one by one in turn."""
    return [image_id for turn in zip(*shares, strict=True) for image_id in turn]


def _assert_same(one: Batch, other: Batch) -> None:
    assert one.names == other.names
    assert one.image_ids == other.image_ids
    for name in ("images", "padding", "texts", "is_judged", "sizes_hw"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for a, b in zip(one.targets, other.targets, strict=True):
        for name in ("labels", "boxes_cxcywh", "masks", "has_mask", "weights"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_shapes_types_and_meaning(builder: DatasetBuilder, opened: Open, tmp_path: Path) -> None:
    data = opened(many_images(builder, 6))
    config = student_config(config_of(tmp_path), batch=3, micro_batch=2)
    (step,) = _steps(data, config, 0, 1)
    assert [len(batch.targets) for batch in step] == [2, 1]
    batch = step[0]
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.float32
    assert batch.padding.shape == (2, 64, 64)
    assert batch.sizes_hw.tolist() == [[48, 64], [48, 64]]  # 24 x 32, scaled to the canvas
    assert not batch.padding[:, :48].any()
    assert batch.padding[:, 48:].all()
    assert batch.names == ("bag", "hat", "shoe")
    assert torch.equal(batch.texts, hashed_texts().vectors(batch.names))
    assert batch.is_judged.all()
    for target in batch.targets:
        assert target.labels.dtype == torch.int64
        assert target.masks.dtype == torch.uint8
        assert target.masks.shape[1:] == (64, 64)
        assert target.boxes_cxcywh.dtype == torch.float32
        boxes = (target.boxes_cxcywh * 64).tolist()
        for mask, (cx, cy, w, h) in zip(target.masks, boxes, strict=True):
            assert int(mask.sum()) == pytest.approx(w * h, rel=0.1)
            assert mask[int(cy), int(cx)] == 1


def test_ranks_share_what_one_worker_sees(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = opened(many_images(builder, 11))
    config = student_config(config_of(tmp_path, **JITTER))
    alone = _steps(data, config, 0, 6)
    for size in (2, 4):
        ranks = [_steps(data, config, 0, 6, World(rank=rank, size=size)) for rank in range(size)]
        for step in range(6):
            shares = [_ids(rank[step]) for rank in ranks]
            assert _dealt(shares) == _ids(alone[step])
            images = {}
            for rank in ranks:
                for batch in rank[step]:
                    images |= dict(zip(batch.image_ids, batch.images, strict=True))
            for batch in alone[step]:  # augmented in the same way as well
                for image_id, image in zip(batch.image_ids, batch.images, strict=True):
                    assert torch.equal(images[image_id], image)


def test_resuming_is_another_first_step(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path, **JITTER))
    whole = _steps(data, config, 0, 8)
    for first in (3, 5):
        for step, again in zip(whole[first:], _steps(data, config, first, 8), strict=True):
            for one, other in zip(step, again, strict=True):
                _assert_same(one, other)


def test_resuming_with_another_number_of_workers(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """Killed after three steps on one worker, gone on with on two: the ids are the same."""
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path))
    whole = [_ids(step) for step in _steps(data, config, 0, 7)]
    ranks = [_steps(data, config, 3, 7, World(rank=rank, size=2)) for rank in range(2)]
    resumed = [_dealt([_ids(a), _ids(b)]) for a, b in zip(*ranks, strict=True)]
    assert whole[3:] == resumed
    assert sorted(chain(*whole)) == sorted(_epoch(data) * 4)  # 28 images are 4 epochs of 7


def _epoch(data: TrainingData) -> list[str]:
    return [data.image(image).image_id for image in range(data.num_images)]


def test_the_micro_batch_does_not_matter(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path, **JITTER), micro_batch=4)
    small = student_config(config_of(tmp_path, **JITTER), micro_batch=1)
    for whole, parts in zip(_steps(data, config, 0, 3), _steps(data, small, 0, 3), strict=True):
        assert len(parts) == 4
        assert torch.equal(whole[0].images, torch.cat([part.images for part in parts]))


def test_no_two_images_are_jittered_alike(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """Nor is one in two epochs."""
    data = opened(many_images(builder, 8))
    config = student_config(config_of(tmp_path, **JITTER), batch=8)
    sizes = [
        size for step in _steps(data, config, 0, 4) for batch in step
        for size in map(tuple, batch.sizes_hw.tolist()) if max(size) < 64
    ]  # fmt: skip
    assert len(set(sizes)) > 5


def test_seeds_differ(builder: DatasetBuilder, opened: Open, tmp_path: Path) -> None:
    data = opened(many_images(builder, 9))
    orders = {
        tuple(_ids(_steps(data, student_config(config_of(tmp_path), seed=seed), 0, 1)[0]))
        for seed in range(4)
    }
    assert len(orders) > 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_make_the_same(
    builder: DatasetBuilder, opened: Open, tmp_path: Path, workers: int
) -> None:
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path, **JITTER))
    many = replace(config, data=replace(config.data, workers=workers))
    before = torch.random.get_rng_state()
    for step, other in zip(_steps(data, config, 2, 6), _steps(data, many, 2, 6), strict=True):
        for one, same in zip(step, other, strict=True):
            _assert_same(one, same)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_a_lost_process_is_told(builder: DatasetBuilder, opened: Open, tmp_path: Path) -> None:
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path, workers=1))
    steps = step_batches(data, hashed_texts(), config, world=World(), first_step=0, last_step=10**9)
    next(steps)
    (process,) = multiprocessing.active_children()
    process.kill()
    with pytest.raises(JobError, match=r"loader process was lost.*lower data\.workers"):
        list(steps)


@pytest.mark.slow
def test_processes_on_s3_make_the_same_as_on_a_disk(
    builder: DatasetBuilder, opened: Open, tmp_path: Path, s3_url: str
) -> None:
    """Cells and images through the cache, from a real server."""
    far = Store(s3_url)
    init(far)
    there = many_images(DatasetBuilder(far), 7)
    here = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path, workers=1, **JITTER))
    data = TrainingData.open(far, there.commit_id, config.data)
    for step, other in zip(_steps(here, config, 0, 4), _steps(data, config, 0, 4), strict=True):
        for one, same in zip(step, other, strict=True):
            _assert_same(one, same)


def test_a_parcel_holds_a_batch(builder: DatasetBuilder, opened: Open, tmp_path: Path) -> None:
    data = opened(many_images(builder, 7))
    for step in _steps(data, student_config(config_of(tmp_path)), 0, 3):
        for batch in step:
            parcel = packed(batch)
            assert len(parcel.tensors) == 10
            _assert_same(unpacked(parcel), batch)


def test_leaving_early_stops_the_work(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = opened(many_images(builder, 7))
    config = student_config(config_of(tmp_path))
    steps = step_batches(data, hashed_texts(), config, world=World(), first_step=0, last_step=10**9)
    assert len(next(iter(steps))) == 2
    steps.close()  # type: ignore[attr-defined]  # it is a generator
    assert list(steps) == []


def test_what_cannot_be_shared_is_refused(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = opened(many_images(builder, 4))
    with pytest.raises(InputError, match="multiple of the 3 training processes, got 4"):
        _steps(data, student_config(config_of(tmp_path)), 0, 1, World(rank=0, size=3))


# -- stores ----------------------------------------------------------------------------------------


def test_one_damaged_image_does_not_stop_the_training(
    builder: DatasetBuilder, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = many_images(builder, 4, shard=4)
    data = opened(dataset)
    path = Path(builder.store.path(object_path(dataset.manifest.shards()[0])))
    stored = bytearray(path.read_bytes())
    stored[600:604] = b"\0\0\0\0"
    path.write_bytes(stored)
    spoilt = data.image(0).image_id
    with caplog.at_level(logging.WARNING):
        steps = _steps(data, student_config(config_of(tmp_path)), 0, 3)
    assert caplog.text.count(spoilt) == 1  # seen three times, told once
    for step in steps:
        for batch in step:
            for row, image_id in enumerate(batch.image_ids):
                assert bool(len(batch.targets[row].labels)) == (image_id != spoilt)
                assert bool(batch.is_judged[row].any()) == (image_id != spoilt)
                assert not batch.padding[row].all()


def test_a_store_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Through the cache of a store that is not on this disk."""
    store = UnsteadyStore(f"memory://{uuid.uuid4().hex}")
    init(store)
    dataset = many_images(DatasetBuilder(store), 6)
    config = student_config(config_of(tmp_path))
    data = TrainingData.open(store, dataset.commit_id, config.data)
    steps = step_batches(data, hashed_texts(), config, world=World(), first_step=0, last_step=6)
    ids = [_ids(next(steps))]
    store.failures = 1  # for a second
    ids += [_ids(step) for step in steps]
    assert store.failures == 0
    assert sorted(chain(*ids)) == sorted(_epoch(data) * 4)


def test_a_store_in_memory_cannot_go_to_processes(tmp_path: Path) -> None:
    store = UnsteadyStore(f"memory://{uuid.uuid4().hex}")
    init(store)
    dataset = many_images(DatasetBuilder(store), 4)
    config = student_config(config_of(tmp_path, workers=1))
    data = TrainingData.open(store, dataset.commit_id, config.data)
    with pytest.raises(InputError, match="expected 0 for a store in memory, got 1"):
        _steps(data, config, 0, 1)
