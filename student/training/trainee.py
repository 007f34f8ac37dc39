"""All that changes in a run: weights, their average, optimiser, and how many steps were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from student.config import TrainConfig
from student.training.ema import MovingAverage
from student.training.optimizer import build_optimizer, trainable

_RAW, _OPTIMIZER = "raw/", "optimizer/"


@dataclass(slots=True, kw_only=True)
class Trainee:
    """A network in training.

    Attributes:
        steps: optimiser steps taken.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage
    steps: int = 0

    @staticmethod
    def new(network: nn.Module, config: TrainConfig) -> Trainee:
        """Before the first step."""
        return Trainee(
            network=network,
            optimizer=build_optimizer(network, config),
            average=MovingAverage(network, decay=config.ema),
        )

    def average_tensors(self) -> dict[str, Tensor]:
        """The averaged weights and buffers, by the names of the network's `state_dict`."""
        return self.average.tensors

    def state_tensors(self) -> dict[str, Tensor]:
        """What besides the average it takes to go on: the rest of the weights, the optimiser.

        Weights that are as their average, such as frozen ones, are left out.
        """
        tensors = {
            f"{_RAW}{name}": value.detach()
            for name, value in self.network.state_dict().items()
            if not torch.equal(value, self.average.tensors[name])
        }
        for name, parameter in trainable(self.network):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{_OPTIMIZER}{name}/{key}"] = value
        return tensors

    def restore(
        self, average: Mapping[str, Tensor], state: Mapping[str, Tensor], *, steps: int
    ) -> None:
        """Goes on from what the two methods above gave after so many steps.

        Raises:
            InputError: the tensors are those of another network.
        """
        raw = {name: state.get(f"{_RAW}{name}", value) for name, value in average.items()}
        load_weights(self.network, raw, whose=f"the checkpoint of step {steps}")
        for name, parameter in trainable(self.network):
            prefix = f"{_OPTIMIZER}{name}/"
            device = parameter.device
            found = {
                # AdamW counts its steps on the CPU.
                key.removeprefix(prefix): value.to(device if value.ndim else "cpu", copy=True)
                for key, value in state.items()
                if key.startswith(prefix)
            }
            if found:
                self.optimizer.state[parameter] = found
        self.average.restore(average, num_updates=steps)
        self.steps = steps


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], *, whose: str) -> None:
    """Fills a network with weights, all of them; `whose` they are is for the message.

    Raises:
        InputError: names or shapes are not the network's; says the first that differs.
    """
    wanted = network.state_dict()
    for name in [*wanted, *tensors]:
        want, got = wanted.get(name), tensors.get(name)
        if want is None or got is None or want.shape != got.shape:
            raise InputError(
                f"{whose}: expected weights '{name}' of shape {_shape(want)}, got {_shape(got)}: "
                "they are of another architecture, or of another version of maskmill; use the "
                "version that trained them, or train again"
            )
    network.load_state_dict(dict(tensors))


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(list(value.shape))
