"""The moving average of weights."""

from __future__ import annotations

import torch

from student.training.ema import MovingAverage
from tests.student.training.tiny import network


def test_equals_a_slow_average() -> None:
    net = network()
    average = MovingAverage(net, decay=0.5)
    expected = net.head.weight.detach().clone()
    for update in range(20):
        with torch.no_grad():
            net.head.weight += 0.1 * update
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * net.head.weight.detach()
    torch.testing.assert_close(average.tensors["head.weight"], expected)


def test_forgets_the_weights_it_began_with() -> None:
    net = network()
    before = net.head.weight.detach().clone()
    average = MovingAverage(net, decay=0.9998)
    with torch.no_grad():
        net.head.weight += 1
    for _ in range(30):
        average.update()
    # With a decay of 0.9998 from the start it would have moved by 0.6% of the way.
    assert (average.tensors["head.weight"] - before).min() > 0.999


def test_no_decay_is_the_newest_weights_and_counters_are_copied() -> None:
    net = network()
    average = MovingAverage(net, decay=0)
    slow = MovingAverage(net, decay=0.9)
    with torch.no_grad():
        net.head.weight += 1
        net.backbone[1].num_batches_tracked += 7
        net.backbone[1].running_mean += 1
    average.update()
    slow.update()
    assert torch.equal(average.tensors["head.weight"], net.head.weight)
    assert slow.tensors["backbone.1.num_batches_tracked"] == 7
    torch.testing.assert_close(slow.tensors["backbone.1.running_mean"], torch.full((8,), 0.9))


def test_weights_that_do_not_change_stay_as_they_are_bit_by_bit() -> None:
    net = network()
    average = MovingAverage(net, decay=0.999)
    for _ in range(50):
        average.update()
    assert all(
        torch.equal(average.tensors[name], value) for name, value in net.state_dict().items()
    )
