"""From a worker's steps to the lines of a log: means over `log_steps`, and speed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from student.training.run_log import RunLog

if TYPE_CHECKING:
    from student.checkpoint import Checkpoint
    from student.training.step import StepOutcome


class LoggedRun:
    """A `RunObserver` (student/training/worker.py) that writes into logs."""

    def __init__(
        self, log: RunLog, *, batch: int, log_steps: int, progress: RunLog | None = None
    ) -> None:
        """
        Args:
            log: gets the means of every `log_steps` steps, and of the last ones.
            batch: images of a step, over all workers.
            log_steps: see `log`.
            progress: gets every step.
        """
        self._log, self._progress = log, progress
        self._batch, self._log_steps = batch, log_steps
        self._last_step = 0
        self._seen: dict[str, list[float]] = defaultdict(list)

    def started(self, *, first_step: int, last_step: int) -> None:
        """See `RunObserver.started`."""
        self._last_step = last_step

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        """See `RunObserver.took`."""
        step = outcome.step + 1
        values = {**values_of(outcome), "seconds": seconds}
        if self._progress:
            self._progress.scalars(step, {**values, "images_per_s": self._speed(seconds)})
        for name, value in values.items():
            self._seen[name].append(value)
        if step % self._log_steps == 0 or step == self._last_step:
            means = {name: sum(seen) / len(seen) for name, seen in self._seen.items()}
            self._log.scalars(step, {**means, "images_per_s": self._speed(means["seconds"])})
            self._seen.clear()

    def wrote(self, checkpoint: Checkpoint) -> None:
        """See `RunObserver.wrote`."""

    def _speed(self, seconds: float) -> float:
        return self._batch / max(seconds, 1e-9)

    def close(self) -> None:
        """Closes its logs."""
        for log in (self._log, self._progress):
            if log:
                log.close()


def values_of(outcome: StepOutcome) -> Mapping[str, float]:
    """The numbers of one step by the names they are logged under.

    Parts are `losses/...` and not `loss/...`: some logs make a folder of the one, a file of `loss`.
    """
    return {
        "loss": outcome.loss,
        "learning_rate": outcome.learning_rate,
        "gradient_norm": outcome.gradient_norm,
        "num_targets": outcome.num_targets,
        "num_skipped": outcome.num_skipped,
        **{f"losses/{name}": value for name, value in outcome.parts.items()},
    }
