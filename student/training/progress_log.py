"""How far a run is, on standard error: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from manifests.console import note

_LINE_EVERY_S = 30.0
_SHOWN = {"loss": "loss {:.3f}", "learning_rate": "rate {:.1e}", "images_per_s": "{:.1f} images/s"}


class ProgressLog:
    """See `RunLog`; to be told of every step. Pictures are not shown."""

    def __init__(
        self, name: str, *, first_step: int, last_step: int, is_quiet: bool = False
    ) -> None:
        self._name, self._first_step, self._last_step = name, first_step, last_step
        self._is_quiet = is_quiet
        self._started = self._line_written = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            disable=is_quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=last_step, completed=first_step, text="")
        self._bar.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `RunLog.scalars`; shows loss, learning rate and images/s, if they are among them."""
        now = time.monotonic()
        text = self._text(step, values, seconds=now - self._started)
        self._bar.update(self._task, completed=step, text=text)
        is_due = step == self._last_step or now - self._line_written >= _LINE_EVERY_S
        if is_due and self._bar.disable and not self._is_quiet:
            self._line_written = now
            note(f"{self._name}: {text}")

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """See `RunLog.picture`."""

    def close(self) -> None:
        """See `RunLog.close`; leaves the bar as it was last."""
        self._bar.stop()

    def _text(self, step: int, values: Mapping[str, float], *, seconds: float) -> str:
        words = [f"{step:,}/{self._last_step:,} steps"]
        words += [shown.format(values[name]) for name, shown in _SHOWN.items() if name in values]
        taken = step - self._first_step
        if taken > 0 and step < self._last_step:
            words.append(f"{_clock(seconds / taken * (self._last_step - step))} left")
        return "  ".join(words)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
