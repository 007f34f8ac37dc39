"""One optimiser step over the micro-batches of a worker, in concert with the other workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from manifests.errors import InputError
from student.config import TrainConfig
from student.data.order import World
from student.records import Batch
from student.training.bad_step import stop_if_bad
from student.training.optimizer import set_learning_rates
from student.training.taught import TaughtNetwork, generator_for, seed_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What came of one step.

    Attributes:
        step: counted from 0.
        loss: of the whole global batch; what the gradient is of.
        parts: the parts of this worker's loss.
        learning_rate: of the part without a factor.
        gradient_norm: before clipping, of the whole global batch.
        image_ids: of this worker, in the order of the micro-batches.
        num_targets: of the whole global batch.
        num_skipped: images of this worker that taught nothing, as something was not finite.
    """

    step: int
    loss: float
    parts: Mapping[str, float]
    learning_rate: float
    gradient_norm: float
    image_ids: tuple[str, ...]
    num_targets: int
    num_skipped: int


class Stepper:
    """Takes steps.

    Each worker adds up the gradients of its micro-batches; DDP exchanges them during the last one
    only, and divides by the number of workers. Losses are divided by the targets of the global
    batch over that number, so a step is the same however many workers and micro-batches there are.
    """

    def __init__(
        self,
        taught: TaughtNetwork,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        *,
        world: World,
        device: torch.device,
        run_folder: Path,
    ) -> None:
        """With more than one worker the process group must be there already."""
        self._optimizer, self._config = optimizer, config
        self._world, self._device, self._run_folder = world, device, run_folder
        self._module: nn.Module = taught
        if world.size > 1:
            # Which weights take part changes from batch to batch: one may have no targets.
            self._module = DistributedDataParallel(taught, find_unused_parameters=True)
        self._parameters = [p for p in taught.parameters() if p.requires_grad]

    def take(self, step: int, batches: Sequence[Batch]) -> StepOutcome:
        """Changes the weights by one step.

        Raises:
            InputError: there is no image in it.
            JobError: a loss or a gradient is not finite; the batch is in the run folder then.
        """
        if not batches:
            raise InputError(f"step {step}: expected a batch for each worker, got none")
        rate = set_learning_rates(self._optimizer, step, self._config)
        num_targets = self._sum(sum(len(t.labels) for batch in batches for t in batch.targets))
        torch.manual_seed(seed_of(self._config.seed, step, self._world.rank))  # dropout draws of it
        self._optimizer.zero_grad(set_to_none=True)
        losses, parts, num_skipped = self._backward(step, batches, num_targets)
        norm = float(
            nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm or torch.inf)
        )
        stop_if_bad(step, batches, losses, gradient_norm=norm, folder=self._run_folder,
                    world=self._world)  # fmt: skip
        self._optimizer.step()
        return StepOutcome(
            step=step, parts=parts, learning_rate=rate, gradient_norm=norm,
            loss=self._sum(sum(losses)) / self._world.size,
            image_ids=tuple(image_id for batch in batches for image_id in batch.image_ids),
            num_targets=round(num_targets), num_skipped=num_skipped,
        )  # fmt: skip

    def _backward(
        self, step: int, batches: Sequence[Batch], num_targets: float
    ) -> tuple[list[float], dict[str, float], int]:
        """Adds up gradients; the loss of each micro-batch, their parts, and images skipped."""
        share = max(1.0, num_targets) / self._world.size
        totals: list[Tensor] = []
        names: list[str] = []
        values: list[Tensor] = []
        num_skipped = 0
        for number, batch in enumerate(batches):
            words = (self._config.seed, step, self._world.rank, number)
            generator = generator_for(self._device, words=words)
            with self._exchange(is_last=number + 1 == len(batches)):
                loss, parts, skipped = self._module(batch.to(self._device), share, generator)
                loss.backward()
            totals.append(loss.detach())
            names += parts
            values += parts.values()
            num_skipped += skipped
        numbers = torch.stack([value.float() for value in (*totals, *values)]).tolist()  # waits
        summed: Counter[str] = Counter()
        for name, value in zip(names, numbers[len(totals) :], strict=True):
            summed[name] += value
        return numbers[: len(totals)], dict(summed), num_skipped

    def _exchange(self, *, is_last: bool) -> AbstractContextManager[None]:
        if isinstance(self._module, DistributedDataParallel) and not is_last:
            return self._module.no_sync()
        return nullcontext()

    def _sum(self, value: float) -> float:
        """Over all workers."""
        if self._world.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self._device)
        dist.all_reduce(summed)
        return float(summed)
