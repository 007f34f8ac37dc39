"""The network and its losses as one module, so that DDP sees which weights a loss touched."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from student.config import TrainConfig
from student.losses.criterion import Criterion
from student.records import Batch


class TaughtNetwork(nn.Module):
    """From a batch to its losses.

    DDP looks for unused weights from what `forward` returns. Losses of a batch without masks, or
    without targets, touch fewer weights than the network's output does, so they must be inside.
    """

    def __init__(self, network: nn.Module, criterion: Criterion, config: TrainConfig) -> None:
        super().__init__()
        self.network, self._criterion = network, criterion
        self._is_bfloat16 = config.precision == "bfloat16"

    def forward(
        self, batch: Batch, num_targets: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The loss to go down (a scalar), its parts, and how many images taught nothing.

        The network runs in bfloat16 where configured; the criterion sees to it that it does not.
        """
        device = batch.images.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._is_bfloat16):
            output = self.network(
                batch.images, batch.padding, batch.texts, batch.targets, generator=generator
            )
        losses = self._criterion(output, batch, num_targets=num_targets, generator=generator)
        return losses.total, dict(losses.parts), losses.num_skipped


def generator_for(device: torch.device, *, words: tuple[int, ...]) -> torch.Generator:
    """A generator that depends on some numbers (seed, step, rank ...) and nothing else.

    Whatever is random in a step is drawn from such, so a resumed run needs no random state.
    """
    return torch.Generator(device).manual_seed(seed_of(*words))


def seed_of(*words: int) -> int:
    """One seed out of several numbers, well mixed."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
