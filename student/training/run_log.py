"""Where the numbers and pictures of a run go: a protocol, JSON lines, and several logs at once.

A log is never worth a run: one that cannot be written to any more is left out with a warning. A
resumed run goes on in the same logs; what was logged after the step it goes on from is taken out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from student.config import StudentConfig
from student.new_folder import make_folder

_LOG = logging.getLogger(__name__)
FILE_NAME = "log.jsonl"


class RunLog(Protocol):
    """One place that is told how a run goes. Steps are counted as taken: the first is 1."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as `losses/boxes_l1`; they may be NaN or infinite."""

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """An image, [H, W, 3] RGB."""

    def close(self) -> None:
        """Writes what is left."""


def open_run_log(config: StudentConfig, *, folder: Path, run: str, first_step: int = 0) -> RunLog:
    """JSON lines in the run's folder, and what `log` of the configuration names.

    Args:
        config: of the run.
        folder: of the run; made if it is not there.
        run: what this run alone is called, by which a resumed one is known again.
        first_step: steps that were taken before; 0: a new run.

    Raises:
        InputError: a folder cannot be written; MLflow is asked for but not installed, or refuses.
    """
    logs: list[RunLog] = [JsonLines(folder, first_step=first_step)]
    if config.log.tensorboard:
        from student.training.tensorboard_log import TensorBoardLog

        place = Path(config.log.tensorboard).expanduser() / config.name
        make_folder(place, setting="log.tensorboard")
        logs.append(TensorBoardLog(place, first_step=first_step))
    if config.log.mlflow:
        from student.training.mlflow_log import open_mlflow_log

        logs.append(open_mlflow_log(config, run=run, first_step=first_step))
    return RunLogs(logs)


class RunLogs:
    """Several logs as one."""

    def __init__(self, logs: Sequence[RunLog]) -> None:
        self._logs = list(logs)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `RunLog.scalars`."""
        for log in tuple(self._logs):
            try:
                log.scalars(step, values)
            except OSError as error:
                self._leave_out(log, error)

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """See `RunLog.picture`."""
        for log in tuple(self._logs):
            try:
                log.picture(step, name, image)
            except OSError as error:
                self._leave_out(log, error)

    def close(self) -> None:
        """See `RunLog.close`."""
        for log in tuple(self._logs):
            try:
                log.close()
            except OSError as error:
                self._leave_out(log, error)

    def _leave_out(self, log: RunLog, error: OSError) -> None:
        _LOG.warning("%s is left out from now on: %s", type(log).__name__, error)
        self._logs.remove(log)


class JsonLines:
    """`log.jsonl`: an object a line, with step, time (seconds since 1970) and the numbers by name.

    JSON has neither NaN nor infinities: such a number is null. Pictures are `pictures/*.png`.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        _keep_up_to(path, first_step)
        self._stream = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `RunLog.scalars`."""
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "time": round(time.time(), 3), **numbers}
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()  # a line survives whatever becomes of the process

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """See `RunLog.picture`."""
        from PIL import Image

        path = self._folder / "pictures" / f"{step:08d}-{name.replace('/', '-')}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)

    def close(self) -> None:
        """See `RunLog.close`."""
        self._stream.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:  # Any: JSON
    """The lines of a `log.jsonl`, without one that was cut off when the process was killed."""
    lines: list[dict[str, Any]] = []  # Any: JSON
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            _LOG.warning("%s: skipping a line cut off after %d characters", path, len(line))
    return lines


def _keep_up_to(path: Path, step: int) -> None:
    """Takes out the lines after a step; readers see either the old file or the new one."""
    if not path.exists():
        return
    kept = [line for line in read_json_lines(path) if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
