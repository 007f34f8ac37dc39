"""A run in MLflow, if the package mlflow-skinny (or mlflow) is installed.

Numbers are sent by MLflow's own thread: a slow server holds no step up. User and password are
MLflow's environment variables; they are neither read nor logged here, and messages of MLflow, which
may quote an address, are shown without them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError
from student.config import StudentConfig
from student.config_files import config_values
from teachers.weights_sources import without_credentials

if TYPE_CHECKING:
    from student.training.run_log import RunLog

_LOG = logging.getLogger(__name__)
_TAG = "maskmill.run"
_MAX_PARAMETERS = 100  # of one request, by MLflow's REST API
_MAX_CHARACTERS = 500  # of a parameter's value; older servers take no more


class MLflowLog:
    """See `RunLog`."""

    def __init__(self, client: Any, run_id: str) -> None:  # Any: MLflow ships no types to rely on
        self._client, self._run_id = client, run_id
        self._sent: list[Any] = []  # Any: MLflow's RunOperations

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `RunLog.scalars`."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now_ms, step) for name, value in values.items()]
        self._sent.append(self._client.log_batch(self._run_id, metrics, synchronous=False))

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """See `RunLog.picture`."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_image(self._run_id, image, key=name, step=step, synchronous=False)
        except MlflowException as error:
            raise OSError(_first_line(error)) from error

    def close(self) -> None:
        """See `RunLog.close`; waits for what is under way, and tells what did not arrive."""
        from mlflow.exceptions import MlflowException

        failures: list[str] = []
        for operation in self._sent:
            try:
                operation.wait()
            except MlflowException as error:
                failures.append(_first_line(error))
        if failures:
            _LOG.warning(
                "MLflow did not take %d of %d lines: %s",
                len(failures),
                len(self._sent),
                failures[-1],
            )
        try:
            self._client.set_terminated(self._run_id)
        except MlflowException as error:
            raise OSError(_first_line(error)) from error


def open_mlflow_log(config: StudentConfig, *, run: str, first_step: int) -> RunLog:
    """The run's log: the old one if there is one with this `run`, otherwise a new one.

    Raises:
        InputError: MLflow is not installed, or refuses to begin a new run. One that goes on goes on
            without MLflow then.
    """
    try:
        # MLflow tells its makers how it is used unless told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError(
            "log.mlflow: expected the package mlflow-skinny, which is not installed; install it or "
            'leave log.mlflow empty ("")'
        ) from error
    try:
        client = MlflowClient(tracking_uri=config.log.mlflow)
        return MLflowLog(client, _run_id(client, config, run))
    except MlflowException as error:
        message = (
            f"log.mlflow: expected a tracking server or database at "
            f"{without_credentials(config.log.mlflow)}, got: {_first_line(error)}"
        )
        if first_step == 0:
            raise InputError(message) from error
        from student.training.run_log import RunLogs

        _LOG.warning("the run goes on without MLflow; %s", message)
        return RunLogs(())


def _run_id(client: Any, config: StudentConfig, run: str) -> str:  # Any: see MLflowLog
    experiment = client.get_experiment_by_name(config.log.experiment)
    number = (
        experiment.experiment_id if experiment else client.create_experiment(config.log.experiment)
    )
    for found in client.search_runs([number], f"tags.`{_TAG}` = '{run}'", max_results=1):
        client.update_run(found.info.run_id, status="RUNNING")
        return str(found.info.run_id)
    made = client.create_run(number, run_name=config.name, tags={_TAG: run})
    parameters = list(parameters_of(config).items())
    from mlflow.entities import Param

    for first in range(0, len(parameters), _MAX_PARAMETERS):
        some = parameters[first : first + _MAX_PARAMETERS]
        client.log_batch(made.info.run_id, params=[Param(name, value) for name, value in some])
    return str(made.info.run_id)


def parameters_of(config: StudentConfig) -> dict[str, str]:
    """The configuration as flat names and words, without credentials in addresses."""
    return {
        name: without_credentials(str(value))[:_MAX_CHARACTERS]
        for name, value in _flat(config_values(config))
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:  # Any: JSON
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _first_line(error: Exception) -> str:
    return without_credentials((str(error).strip() or type(error).__name__).splitlines()[0])
