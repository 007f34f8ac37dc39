"""Who watches a run: nobody, or its logs and a progress bar, opened anew whenever it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from student.config import StudentConfig
from student.training.logged_run import LoggedRun
from student.training.progress_log import ProgressLog
from student.training.run_log import open_run_log

if TYPE_CHECKING:
    from student.checkpoint import Checkpoint
    from student.training.step import StepOutcome


class RunObserver(Protocol):
    """Is told how a run goes, by its first worker."""

    def started(self, *, first_step: int, last_step: int) -> None:
        """Before the first step of a process; again if a worker was lost and the rest goes on."""

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        """After each step, and how long it took, data included."""

    def wrote(self, checkpoint: Checkpoint) -> None:
        """After each checkpoint."""


class Silence:
    """Does not look."""

    def started(self, *, first_step: int, last_step: int) -> None:
        """See `RunObserver.started`."""

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        """See `RunObserver.took`."""

    def wrote(self, checkpoint: Checkpoint) -> None:
        """See `RunObserver.wrote`."""


class RunLogs:
    """The logs of a run, cut back to where it starts, and a progress bar."""

    def __init__(
        self, config: StudentConfig, *, folder: Path, run: str, is_quiet: bool = False
    ) -> None:
        self._config, self._folder, self._run, self._is_quiet = config, folder, run, is_quiet
        self._logged: LoggedRun | None = None

    def started(self, *, first_step: int, last_step: int) -> None:
        """See `RunObserver.started`."""
        self.close()
        log = open_run_log(self._config, folder=self._folder, run=self._run, first_step=first_step)
        progress = ProgressLog(
            self._config.name, first_step=first_step, last_step=last_step, is_quiet=self._is_quiet
        )
        train = self._config.train
        self._logged = LoggedRun(
            log, batch=train.batch, log_steps=train.log_steps, progress=progress
        )
        self._logged.started(first_step=first_step, last_step=last_step)

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        """See `RunObserver.took`."""
        if self._logged:
            self._logged.took(outcome, seconds=seconds)

    def wrote(self, checkpoint: Checkpoint) -> None:
        """See `RunObserver.wrote`."""
        if self._logged:
            self._logged.wrote(checkpoint)

    def close(self) -> None:
        """Writes what is left."""
        if self._logged:
            self._logged.close()
        self._logged = None
