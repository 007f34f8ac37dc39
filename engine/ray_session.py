"""Starting, joining and leaving Ray; a local Ray stays on the loopback interface."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from manifests.errors import JobError

if TYPE_CHECKING:
    from engine.pool import PoolConfig

_LOCAL_ENVIRONMENT = {
    # Despite its name this is what binds every local service to 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A cut link would otherwise hang `get` for ever.
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
    "RAY_grpc_keepalive_time_ms": "2000",
    "RAY_grpc_keepalive_timeout_ms": "2000",
    # maskmill sets the thread counts itself.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_AUTHENTICATION_LOGGER = "ray._private.authentication.authentication_token_setup"


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out the line with which Ray says that its token authentication is on, as it should."""
    return "Token authentication is enabled" not in record.getMessage()


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """A connection to Ray: the one this process has, or the cluster at `address`, or a local one.

    A Ray that was started here is shut down at the end; one that was joined or was there is left.

    Raises:
        JobError: no cluster answers at `address`.
    """
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger(_AUTHENTICATION_LOGGER).addFilter(_is_news)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JobError(
            f"no Ray cluster at '{address or 'local'}': {first_line}; start one, or leave out "
            "--ray-address for a local Ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def sized_for(config: PoolConfig, *, default_cpus: int) -> tuple[PoolConfig, int]:
    """The configuration with its CPUs a worker filled in, and how many workers the cluster holds.

    Raises:
        JobError: no node of the cluster can hold one worker, and none is about to be added.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
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
