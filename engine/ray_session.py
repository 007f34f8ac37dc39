"""Starting, joining and leaving Ray; a local Ray stays on the loopback interface."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from manifests.errors import JobError

if TYPE_CHECKING:
    from engine.pool import PoolConfig

# Despite its name this is what binds every service of a local Ray to 127.0.0.1.
LOOPBACK_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A cut link would otherwise hang `get` for ever.
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
    "RAY_grpc_keepalive_time_ms": "2000",
    "RAY_grpc_keepalive_timeout_ms": "2000",
    # maskmill sets the thread counts itself.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_ANSWER_WITHIN_S = 10.0
_AUTHENTICATION_LOGGER = "ray._private.authentication.authentication_token_setup"


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out the line with which Ray says that its token authentication is on, as it should."""
    return "Token authentication is enabled" not in record.getMessage()


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """A connection to Ray: the one this process has, or the cluster at `address`, or a local one.

    A Ray that was started here is shut down at the end; one that was joined or was there is left.

    Raises:
        JobError: no cluster answers at `address`, or a local one does not start.
    """
    for name, value in (ENVIRONMENT | ({} if address else LOOPBACK_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    logging.getLogger(_AUTHENTICATION_LOGGER).addFilter(_is_news)
    import ray

    if ray.is_initialized():
        yield
        return
    _check_answers(address)
    try:
        with _own_sigterm():
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                configure_logging=False,
            )
    except Exception as error:  # Ray raises a plain one where its processes are slow to start
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        if address:
            raise JobError(
                f"no Ray cluster at '{address}': {first_line}; start one, or leave out "
                "--ray-address for a local Ray"
            ) from error
        raise JobError(
            f"a local Ray did not start: {first_line}; run it again when the machine is less "
            "busy, or without Ray where the command has --inline"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray would answer SIGTERM itself, by leaving without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes for an address where nothing listens."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return  # empty, `auto`, or a name that Ray resolves by itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise JobError(
            f"no Ray cluster at '{address}': {error}; start one, or leave out --ray-address for a "
            "local Ray"
        ) from error


def sized_for(config: PoolConfig, *, default_cpus: int) -> tuple[PoolConfig, int]:
    """The configuration with its CPUs a worker filled in, and how many workers the cluster holds.

    Raises:
        JobError: no node of the cluster can hold one worker, and none is about to be added.
    """
    import ray

    nodes = [
        node["Resources"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no hints here
        if node["Alive"]
    ]
    most_cpus = int(max((node.get("CPU", 0) for node in nodes), default=0))
    cpus = config.cpus_per_worker or default_cpus or max(1, most_cpus)
    sized = replace(config, cpus_per_worker=cpus)
    fits = sum(_fitting(node, cpus, config.gpus_per_worker) for node in nodes)
    if config.workers:
        return sized, config.workers
    if not fits:
        raise JobError(
            f"no node of the Ray cluster has {cpus} CPUs and {config.gpus_per_worker:g} GPUs for "
            "a worker; lower cpus_per_worker or gpus_per_worker, or give the number of workers "
            "to wait for"
        )
    return sized, fits


def _fitting(resources: dict[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(resources.get("CPU", 0) // cpus)
    return min(by_cpu, int(resources.get("GPU", 0) / gpus)) if gpus else by_cpu
