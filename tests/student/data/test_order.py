"""The stream is the same for any number of workers, and any step can be the first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import InputError
from student.data.order import Order, World, rank_positions


def _of_rank(order: Order, steps: range, batch: int, world: World) -> list[list[int]]:
    """Images of a rank, step by step."""
    positions = [rank_positions(step, batch=batch, world=world) for step in steps]
    return [[int(order.images(p, p + 1)[0]) for p in step.tolist()] for step in positions]


@settings(deadline=None, max_examples=40)
@given(
    num_images=st.integers(1, 40),
    share=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    first=st.integers(0, 30),
    seed=st.integers(0, 5),
)
def test_any_number_of_workers_sees_the_same_and_any_step_may_be_the_first(
    num_images: int, share: int, sizes: tuple[int, int], first: int, seed: int
) -> None:
    batch = share * int(np.lcm(*sizes))
    weights = np.ones(num_images)
    whole = Order(weights, seed=seed).images(0, (first + 2) * batch).tolist()
    for size in sizes:
        order = Order(weights, seed=seed)  # nothing is left of the steps before
        ranks = [
            _of_rank(order, range(first, first + 2), batch, World(rank=rank, size=size))
            for rank in range(size)
        ]
        assert {len(step) for rank in ranks for step in rank} == {batch // size}
        together = [
            image for step in range(2) for place in zip(*(r[step] for r in ranks), strict=True)
            for image in place
        ]  # fmt: skip
        assert together == whole[first * batch :]


@given(num_images=st.integers(1, 60), seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_every_image_exactly_once_an_epoch(num_images: int, seed: int, epoch: int) -> None:
    order = Order(np.ones(num_images), seed=seed)
    assert order.epoch_start(epoch) == epoch * num_images
    epoch_images = order.images(epoch * num_images, (epoch + 1) * num_images)
    assert sorted(epoch_images.tolist()) == list(range(num_images))


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(0, 3), min_size=1, max_size=20).filter(lambda w: max(w) > 0.05),
    seed=st.integers(0, 9),
)
def test_weights_are_kept_at_every_moment(weights: list[float], seed: int) -> None:
    order = Order(weights, seed=seed)
    num_epochs = 12
    counts = np.zeros(len(weights))
    for epoch in range(num_epochs):
        images = order.permutation(epoch)
        assert order.epoch_start(epoch + 1) - order.epoch_start(epoch) == len(images)
        counts += np.bincount(images, minlength=len(weights))
        # Never further from what is due than a whole image.
        assert (np.abs(counts - np.array(weights) * (epoch + 1)) < 1 + 1e-9).all()


def test_half_a_weight_is_every_second_epoch() -> None:
    order = Order(np.full(1000, 0.5), seed=3)
    first, second = order.permutation(0), order.permutation(1)
    assert sorted([*first, *second]) == list(range(1000))
    assert 400 < len(first) < 600  # not all of them in the same one


def test_positions_find_their_epoch() -> None:
    order = Order([0.3, 1.7, 0.0, 2.2], seed=1)
    epochs = np.concatenate([order.permutation(epoch) for epoch in range(50)])
    assert order.images(0, len(epochs)).tolist() == epochs.tolist()
    for position in range(0, len(epochs), 7):
        epoch = order.epoch_at(position)
        assert order.epoch_start(epoch) <= position < order.epoch_start(epoch + 1)
    assert 2 not in epochs


def test_epochs_and_seeds_differ() -> None:
    order = Order(np.ones(100), seed=0)
    assert order.permutation(0).tolist() != order.permutation(1).tolist()
    other = Order(np.ones(100), seed=1)
    assert order.permutation(0).tolist() != other.permutation(0).tolist()


def test_an_unequal_batch_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of the 3 training processes, got 8.*batch=6"):
        rank_positions(0, batch=8, world=World(rank=0, size=3))
    with pytest.raises(InputError, match="rank from 0 to 1, got 2"):
        World(rank=2, size=2)


@pytest.mark.parametrize("weights", [[1.0, -0.5], [1.0, float("nan")], [0.0, 0.0], []])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="weight"):
        Order(weights, seed=0)
