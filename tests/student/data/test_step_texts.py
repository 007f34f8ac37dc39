"""Which texts a step has: the same on every rank, never without those of its targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from manifests.commit import Category
from student.data.loader import step_batches
from student.data.order import Order, World
from student.data.step_texts import StepTexts
from student.data.training_data import TrainingData
from tests.manifests.conftest import DatasetBuilder
from tests.student.data.conftest import BOX, config_of, hashed_texts, student_config

NAMES = tuple(f"thing {number}" for number in range(30))
Open = Callable[..., TrainingData]


def _data(builder: DatasetBuilder, opened: Open, *, negative: bool = False) -> TrainingData:
    """Image i shows things i and i + 1, and has i + 10 verified as absent."""
    for number in range(10):
        absent = [NAMES[number + 10]] if negative else []
        builder.image(f"{number}.jpg", size_hw=(24, 32), negative=absent)
        builder.box(NAMES[number], BOX)
        builder.box(NAMES[number + 1], BOX)
    builder.shard()
    return opened(builder.commit(tuple(Category(name=name) for name in NAMES)))


def test_few_categories_are_all_there(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = _data(builder, opened)
    config = student_config(config_of(tmp_path, max_texts=30))
    texts = StepTexts(data, Order(data.weights(), seed=1), config)
    assert texts.at(5).tolist() == list(range(30))


def test_those_present_in_the_whole_batch_and_a_sample(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = _data(builder, opened)
    config = student_config(config_of(tmp_path, max_texts=12), batch=4)
    order = Order(data.weights(), seed=1)
    texts = StepTexts(data, order, config)
    seen = set()
    for step in range(20):
        at = texts.at(step)
        present, _ = data.present(order.images(4 * step, 4 * step + 4))
        assert len(at) == 12
        assert set(present) <= set(at)
        assert (np.diff(at) > 0).all()
        seen |= set(at.tolist())
        again = StepTexts(data, Order(data.weights(), seed=1), config)
        assert at.tolist() == again.at(step).tolist()
    assert seen == set(range(30))  # the sample changes


def test_present_ones_are_never_left_out(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = _data(builder, opened)
    config = student_config(config_of(tmp_path, max_texts=3), batch=4)
    order = Order(data.weights(), seed=1)
    at = StepTexts(data, order, config).at(0)
    assert at.tolist() == data.present(order.images(0, 4))[0].tolist()
    assert len(at) > 3


def test_verified_absent_ones_come_before_others(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    """Nothing else can teach a federated image what is not in it."""
    data = _data(builder, opened, negative=True)
    config = student_config(config_of(tmp_path, max_texts=14), batch=4)
    order = Order(data.weights(), seed=1)
    for step in range(10):
        _, absent = data.present(order.images(4 * step, 4 * step + 4))
        assert set(absent) <= set(StepTexts(data, order, config).at(step).tolist())


def test_all_ranks_have_the_same_texts_and_every_target_its_own(
    builder: DatasetBuilder, opened: Open, tmp_path: Path
) -> None:
    data = _data(builder, opened)
    config = student_config(config_of(tmp_path, max_texts=12), batch=4, micro_batch=1)
    ranks = [
        list(
            step_batches(
                data,
                hashed_texts(),
                config,
                world=World(rank=rank, size=2),
                first_step=0,
                last_step=5,
            )
        )
        for rank in range(2)
    ]
    truth = {data.image(image).image_id: data.image(image).categories for image in range(10)}
    for steps in zip(*ranks, strict=True):
        batches = [batch for step in steps for batch in step]
        assert len({batch.names for batch in batches}) == 1
        for batch in batches:
            names = [batch.names[label] for label in batch.targets[0].labels.tolist()]
            assert names == [NAMES[number] for number in truth[batch.image_ids[0]]]
            assert batch.is_judged.shape == (1, 12)
            assert batch.texts.shape == (12, hashed_texts().dim)
