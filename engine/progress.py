"""How far a job is, on standard error: a bar on a terminal, lines of text anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from engine.driver import JobProgress
from manifests.console import note, warn

_LINE_EVERY_S = 30.0


class Pace:
    """Speed and time left of one phase of a step, counting only what is done in it."""

    def __init__(self, first: JobProgress, *, started: float) -> None:
        """`first` is the phase's first progress, which may come when all is done already."""
        self._started = started
        is_all_found = first.num_tasks_done == first.num_tasks_found
        self._images = first.num_images_done if is_all_found else 0
        self._masks = first.num_masks_done if is_all_found else 0

    def text(self, progress: JobProgress, *, now: float) -> str:
        """Images/s, masks/s and time left; empty before anything was done."""
        images, masks = _done(progress)
        seconds = now - self._started
        if images <= self._images or seconds <= 0:
            return ""
        per_s = (images - self._images) / seconds
        words = [f"{per_s:.1f} images/s"]
        if masks > self._masks:
            words.append(f"{(masks - self._masks) / seconds:.1f} masks/s")
        if images < progress.num_images:
            words.append(f"{_clock((progress.num_images - images) / per_s)} left")
        return ", ".join(words)


def is_next_phase(before: JobProgress, now: JobProgress) -> bool:
    """Whether `now` is about other tasks: ingest reads all photos, then packs them."""
    is_other_work = (before.num_tasks, before.num_images) != (now.num_tasks, now.num_images)
    return is_other_work or now.num_tasks_done < before.num_tasks_done


class ProgressListener:
    """See `engine.run.Listener`. Quiet, it lets nothing but warnings through."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            disable=is_quiet or not sys.stderr.isatty(),
        )
        self._name = ""
        self._task: TaskID | None = None
        self._pace: Pace | None = None
        self._before: JobProgress | None = None
        self._step_started = self._line_written = 0.0

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
        """A step begins; until it tells how far it is, its bar only moves."""
        self._end_bar()
        self._name, self._pace, self._before = name, None, None
        self._step_started = self._line_written = time.monotonic()
        self._task = self._bar.add_task(name, total=None, text="")
        self._line(f"{name} ...")

    def progress(self, progress: JobProgress) -> None:
        """Moves the bar, or writes a line now and then."""
        now = time.monotonic()
        if self._pace is None or self._before is None:
            self._pace = Pace(progress, started=self._step_started)
        elif is_next_phase(self._before, progress):
            self._pace = Pace(progress, started=now)
        self._before = progress
        images, _ = _done(progress)
        text = f"{images:,}/{progress.num_images:,} images  {self._pace.text(progress, now=now)}"
        if self._task is not None:
            total = max(1, progress.num_images)
            self._bar.update(self._task, total=total, completed=images, text=text)
        if now - self._line_written >= _LINE_EVERY_S:
            self._line_written = now
            self._line(f"{self._name}: {text}")

    def done(self, text: str) -> None:
        """A step's outcome in one line, above the bars."""
        self._end_bar()
        if self._bar.disable:
            self._line(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """A warning, above the bars."""
        if self._bar.disable:
            warn(text)
        else:
            self._bar.console.print(f"WARNING: {text}", style="bold yellow", markup=False)

    def _end_bar(self) -> None:
        """A finished bar gives room to the next; `done` has said what came of it."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _line(self, text: str) -> None:
        if self._bar.disable and not self._is_quiet:
            note(text)


def _done(progress: JobProgress) -> tuple[int, int]:
    """Images and masks that are finished, those of tasks under way included."""
    running = progress.running
    images = progress.num_images_done + running.num_images
    return images, progress.num_masks_done + running.num_masks


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
