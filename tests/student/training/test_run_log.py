"""Logs of a run: what is written can be read, a resumed run goes on, and a log never ends a run."""

from __future__ import annotations

import builtins
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from manifests.errors import InputError
from student.config import LogConfig, StudentConfig
from student.training.logged_run import LoggedRun
from student.training.mlflow_log import parameters_of
from student.training.progress_log import ProgressLog
from student.training.run_log import FILE_NAME, JsonLines, RunLogs, open_run_log, read_json_lines
from student.training.step import StepOutcome
from student.training.tensorboard_log import TensorBoardLog

_PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


class _Memory:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.is_closed = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        self.lines.append((step, {name: float(image.sum())}))

    def close(self) -> None:
        self.is_closed = True


class _Full(_Memory):
    """A log on a full disk."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        super().scalars(step, values)
        raise OSError(28, "no space left on device")


def _outcome(step: int, loss: float, **parts: float) -> StepOutcome:
    return StepOutcome(
        step=step, loss=loss, parts=parts, learning_rate=0.1, gradient_norm=2.0,
        image_ids=("a",), num_targets=3, num_skipped=0,
    )  # fmt: skip


def test_json_lines_come_back(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run")
    log.scalars(1, {"loss": 2.5, "losses/boxes_l1": 0.25})
    log.scalars(2, {"loss": math.nan, "gradient_norm": math.inf})
    log.picture(2, "overlay/first", _PICTURE)
    log.close()
    first, second = read_json_lines(tmp_path / "run" / FILE_NAME)
    assert (first["step"], first["loss"], first["losses/boxes_l1"]) == (1, 2.5, 0.25)
    assert (second["loss"], second["gradient_norm"]) == (None, None)
    saved = Image.open(tmp_path / "run" / "pictures" / "00000002-overlay-first.png")
    np.testing.assert_array_equal(np.asarray(saved), _PICTURE)


def test_a_line_is_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    log = JsonLines(tmp_path)
    log.scalars(1, {"loss": 1.0})
    assert len(read_json_lines(tmp_path / FILE_NAME)) == 1
    log.close()


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    killed = JsonLines(tmp_path)
    for step in (1, 2, 3, 4):
        killed.scalars(step, {"loss": step})
    killed.close()
    with (tmp_path / FILE_NAME).open("a") as stream:
        stream.write('{"step": 5, "lo')  # the moment it was killed
    resumed = JsonLines(tmp_path, first_step=2)
    resumed.scalars(3, {"loss": 30})
    resumed.close()
    lines = read_json_lines(tmp_path / FILE_NAME)
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1), (2, 2), (3, 30)]
    assert all(json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines())


def test_tensorboard_reads_what_was_written_and_forgets_what_was_taken_back(
    tmp_path: Path,
) -> None:
    killed = TensorBoardLog(tmp_path)
    for step in (1, 2, 3):
        killed.scalars(step, {"loss": step})
    killed.picture(1, "overlay", _PICTURE)
    killed.close()
    resumed = TensorBoardLog(tmp_path, first_step=2)
    resumed.scalars(3, {"loss": 30})
    resumed.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 1), (2, 2), (3, 30),
    ]  # fmt: skip
    assert (events.Images("overlay")[0].height, events.Images("overlay")[0].width) == (4, 6)


def test_all_logs_get_everything_and_a_broken_one_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, broken, last = _Memory(), _Full(), _Memory()
    logs = RunLogs([first, broken, last])
    logs.scalars(1, {"loss": 1.0})
    logs.scalars(2, {"loss": 2.0})
    logs.picture(2, "overlay", _PICTURE)
    logs.close()
    assert first.lines == last.lines
    assert [step for step, _ in first.lines] == [1, 2, 2]
    assert len(broken.lines) == 1
    assert (first.is_closed, broken.is_closed, last.is_closed) == (True, False, True)
    assert "_Full is left out from now on: [Errno 28] no space left" in caplog.text


def test_the_configuration_says_which_logs(tmp_path: Path) -> None:
    config = StudentConfig(name="bags", log=LogConfig(tensorboard=str(tmp_path / "board")))
    log = open_run_log(config, folder=tmp_path / "run", run="r1")
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert len(read_json_lines(tmp_path / "run" / FILE_NAME)) == 1
    events = EventAccumulator(str(tmp_path / "board" / "bags")).Reload()
    assert events.Scalars("loss")[0].value == 1.0


def test_means_over_log_steps_and_over_the_rest_at_the_end() -> None:
    log, progress = _Memory(), _Memory()
    run = LoggedRun(log, batch=8, log_steps=2, progress=progress)
    run.started(first_step=3, last_step=7)
    for step in (3, 4, 5, 6):
        parts = {"dice": 1.0} if step == 4 else {}
        run.took(_outcome(step, loss=step, **parts), seconds=0.5)
    assert [(step, values["loss"]) for step, values in log.lines] == [(4, 3.0), (6, 4.5), (7, 6.0)]
    assert log.lines[1][1]["losses/dice"] == 1.0
    assert "losses/dice" not in log.lines[2][1]
    assert {values["images_per_s"] for _, values in log.lines} == {16.0}
    assert [step for step, _ in progress.lines] == [4, 5, 6, 7]
    run.close()
    assert log.is_closed
    assert progress.is_closed


def test_progress_without_a_terminal_is_a_line_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = ProgressLog("bags", first_step=0, last_step=2)
    for step in (1, 2):
        log.scalars(step, {"loss": 0.5 / step, "learning_rate": 1e-4, "images_per_s": 12.0})
    log.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "bags: 2/2 steps  loss 0.250  rate 1.0e-04  12.0 images/s\n"


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = ProgressLog("bags", first_step=0, last_step=1, is_quiet=True)
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert capsys.readouterr() == ("", "")


# MLflow -------------------------------------------------------------------------------------------


@pytest.fixture
def mlflow_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StudentConfig:
    """A run logged into a folder, by MLflow's own file store."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    return StudentConfig(name="bags", log=LogConfig(mlflow=uri, experiment="catalog"))


def _client(config: StudentConfig) -> Any:  # Any: MLflow has no types to rely on
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=config.log.mlflow)


def test_mlflow_keeps_numbers_settings_and_pictures(
    mlflow_config: StudentConfig, tmp_path: Path
) -> None:
    log = open_run_log(mlflow_config, folder=tmp_path / "run", run="r1")
    log.scalars(1, {"loss": 2.0, "losses/boxes_l1": 0.5})
    log.scalars(2, {"loss": 1.0})
    log.picture(2, "overlay", _PICTURE)
    log.close()
    client = _client(mlflow_config)
    experiment = client.get_experiment_by_name("catalog")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 2.0), (2, 1.0)]
    assert run.data.metrics["losses/boxes_l1"] == 0.5
    assert run.info.run_name == "bags"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch"] == "16"
    assert run.data.params["model.transformer.learnable_queries"] == "100"
    assert client.list_artifacts(run.info.run_id)


def test_mlflow_goes_on_in_the_same_run(mlflow_config: StudentConfig, tmp_path: Path) -> None:
    for first_step, run in ((0, "r1"), (1, "r1"), (0, "r2")):
        log = open_run_log(mlflow_config, folder=tmp_path, run=run, first_step=first_step)
        log.scalars(first_step + 1, {"loss": 1.0})
        log.close()
    client = _client(mlflow_config)
    experiment = client.get_experiment_by_name("catalog")
    runs = client.search_runs([experiment.experiment_id])
    steps = [
        [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
        for run in sorted(runs, key=lambda run: str(run.data.tags["maskmill.run"]))
    ]
    assert list(map(sorted, steps)) == [[1, 2], [1]]


def test_a_server_out_of_reach_stops_a_new_run_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = StudentConfig(log=LogConfig(mlflow="http://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"log\.mlflow: expected a tracking server .*127\.0\.0\.1"):
        open_run_log(config, folder=tmp_path, run="r1")
    log = open_run_log(config, folder=tmp_path, run="r1", first_step=5)
    log.scalars(6, {"loss": 1.0})
    log.close()
    assert "the run goes on without MLflow" in caplog.text
    assert len(read_json_lines(tmp_path / FILE_NAME)) == 1


def test_without_mlflow_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:  # Any: as the function it stands for
        if name.partition(".")[0] == "mlflow":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    config = StudentConfig(log=LogConfig(mlflow="http://127.0.0.1:9"))
    with pytest.raises(InputError, match="expected the package mlflow-skinny, which is not"):
        open_run_log(config, folder=tmp_path, run="r1")


def test_credentials_are_refused_without_being_shown() -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        LogConfig(mlflow="https://somebody:secret@tracking.example")
    assert "secret" not in str(caught.value)


def test_parameters_have_no_credentials() -> None:
    from student.config import DataConfig, SourceConfig

    source = SourceConfig(store="s3://key:secret@bucket/photos")
    parameters = parameters_of(StudentConfig(data=DataConfig(mix=(source,))))
    assert "secret" not in str(parameters)
    assert "s3://***@bucket/photos" in parameters["data.mix"]


def test_what_did_not_arrive_is_told_at_the_end(
    mlflow_config: StudentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    log = open_run_log(mlflow_config, folder=tmp_path / "run", run="r1")
    log.scalars(1, {"loss": 1.0, "loss/of_a_number": 1.0})
    log.scalars(2, {"loss": 1.0})
    log.close()
    assert "MLflow did not take 1 of 2 lines" in caplog.text
