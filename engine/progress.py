"""The progress bar of a job: images/s, masks/s and time left, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from engine.driver import JobProgress
from manifests.console import warn


class ProgressListener:
    """See `engine.run.Listener`. Without a terminal it prints a line a step and nothing else."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} images"),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=is_quiet or not sys.stderr.isatty(),
            transient=False,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._started = 0.0
        self._found_images = 0
        self._found_masks = 0

    def __enter__(self) -> ProgressListener:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, name: str) -> None:
        """A step begins: its bar appears with the first progress."""
        self._task, self._name = None, name
        if not self._is_quiet and self._bar.disable:
            sys.stderr.write(f"{name}\n")

    def progress(self, progress: JobProgress) -> None:
        """Moves the bar; rates count only what was done since the step began."""
        images = progress.num_images_done + progress.running.num_images
        masks = progress.num_masks_done + progress.running.num_masks
        if self._task is None or self._bar.tasks[self._task].total != progress.num_images:
            self._task = self._bar.add_task(self._name, total=progress.num_images, rates="")
            self._started = time.monotonic()
            self._found_images, self._found_masks = (
                progress.num_images_done,
                (progress.num_masks_done),
            )
        seconds = max(time.monotonic() - self._started, 1e-3)
        rates = f"{(images - self._found_images) / seconds:.1f} images/s"
        if masks:
            rates += f"  {(masks - self._found_masks) / seconds:.1f} masks/s"
        self._bar.update(self._task, completed=images, rates=rates)

    def warn(self, text: str) -> None:
        """A warning, above the bar."""
        warn(text)
