"""Progress: speed and time left count only what the running phase has done itself."""

from __future__ import annotations

from typing import Any

import pytest

from engine.driver import JobProgress
from engine.progress import Pace, ProgressListener, is_next_phase
from engine.task import Progress


def at(images: int, *, total: int = 100, masks: int = 0, **fields: Any) -> JobProgress:
    given = {
        "num_tasks": 10, "num_tasks_done": 0, "num_tasks_found": 0, "num_images": total,
        "num_images_done": images, "num_masks_done": masks, "running": Progress(),
    }  # fmt: skip
    return JobProgress(**{**given, **fields})


def test_images_masks_and_time_left() -> None:
    pace = Pace(at(0), started=10.0)
    assert pace.text(at(0), now=12.0) == ""
    assert pace.text(at(20, masks=60), now=20.0) == "2.0 images/s, 6.0 masks/s, 0:40 left"
    running = at(10, running=Progress(num_images=10, num_masks=5))
    assert pace.text(running, now=20.0) == "2.0 images/s, 0.5 masks/s, 0:40 left"
    assert pace.text(at(100), now=20.0) == "10.0 images/s"
    assert pace.text(at(1), now=110.0).endswith("2:45:00 left")


def test_what_was_found_done_is_not_counted_as_speed() -> None:
    pace = Pace(at(50, masks=500, num_tasks_done=5, num_tasks_found=5), started=0.0)
    assert pace.text(at(60, masks=510), now=10.0) == "1.0 images/s, 1.0 masks/s, 0:40 left"


def test_a_task_that_is_done_before_the_first_look_is_counted() -> None:
    done = at(100, num_tasks_done=10)
    assert Pace(done, started=0.0).text(done, now=10.0) == "10.0 images/s"


def test_another_phase_begins_when_the_work_changes_or_starts_again() -> None:
    before = at(40, num_tasks_done=4)
    assert not is_next_phase(before, at(50, num_tasks_done=5))
    assert is_next_phase(before, at(0))
    assert is_next_phase(before, at(40, num_tasks_done=4, total=99))
    # A failed attempt takes back what was under way; that is the same phase.
    running = at(40, num_tasks_done=4, running=Progress(num_images=9))
    assert not is_next_phase(running, before)


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressListener(is_quiet=False) as listener:
        listener.step("label with [box]")
        listener.progress(at(10))
        listener.done("label with [box]: fine")
        listener.warn("[careful]")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "label with [box] ...\nlabel with [box]: fine\nWARNING: [careful]\n"


def test_quiet_lets_only_warnings_through(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressListener(is_quiet=True) as listener:
        listener.step("x")
        listener.progress(at(10))
        listener.done("x")
        listener.warn("careful")
    assert capsys.readouterr().err == "WARNING: careful\n"
