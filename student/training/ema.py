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
        """
        Args:
            network: on the device where it stays; it is looked at in every update.
            decay: 0: the average is always the newest weights.
        """
        self.decay, self.num_updates = decay, 0
        newest = {name: value.detach() for name, value in network.state_dict().items()}
        self.tensors = {name: value.clone() for name, value in newest.items()}
        floats = [name for name, value in newest.items() if value.is_floating_point() and decay]
        self._averaged = [self.tensors[name] for name in floats], [newest[name] for name in floats]
        # Counters, such as a batch norm's, have no average.
        copied = [name for name in newest if name not in floats]
        self._copied = [(self.tensors[name], newest[name]) for name in copied]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network's weights as they are after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages, newest = self._averaged
        if averages:
            torch._foreach_lerp_(averages, newest, 1 - decay)
        for mine, theirs in self._copied:
            mine.copy_(theirs)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Goes on from averages under the same names."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
        self.num_updates = num_updates
