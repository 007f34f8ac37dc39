"""An exponential moving average of weights, which is what is evaluated and handed out.

As Polyak and Juditsky (1992) have it, an average of late iterates is better than the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Averages of a network's weights and buffers, under the names of its `state_dict`.

    Early on the decay is lower, min(decay, (1 + t) / (10 + t)) at update t from 0, so that the
    average forgets the weights it began with.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        """`decay` 0: the average is always the newest weights."""
        self.decay, self.num_updates = decay, 0
        self.tensors = {name: value.clone() for name, value in _state(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes in the weights as they are after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages, newest = [], []
        for name, value in _state(network).items():
            if value.is_floating_point() and decay:
                averages.append(self.tensors[name])
                newest.append(value)
            else:  # counters, such as a batch norm's
                self.tensors[name].copy_(value)
        if averages:
            torch._foreach_lerp_(averages, newest, 1 - decay)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Goes on from averages under the same names."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
        self.num_updates = num_updates


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.state_dict().items()}
