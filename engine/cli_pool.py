"""The options that say where the workers of a command run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import note

if TYPE_CHECKING:
    from engine.pool import PoolConfig
    from manifests.store import Store

RayOption = Annotated[
    str,
    typer.Option(
        "--ray-address",
        envvar="MASKMILL_RAY_ADDRESS",
        metavar="ADDRESS",
        help="An existing cluster: auto, host:port or ray://host:port. Empty: a local Ray.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Workers; 0: as many as the cluster holds.")
]
CpusOption = Annotated[
    int, typer.Option(min=0, help="CPUs, and threads, of each worker; 0: automatic.")
]
GpusOption = Annotated[float, typer.Option(min=0, help="GPUs of each worker.")]
InlineOption = Annotated[
    bool, typer.Option("--inline", help="No Ray: work in this process (debugging, memory://).")
]


def pool_for(
    store: Store,
    *,
    inline: bool,
    ray_address: str = "",
    workers: int = 0,
    cpus_per_worker: int = 0,
    gpus_per_worker: float = 0.0,
) -> PoolConfig:
    """The pool that the options ask for; a store in memory is in this process only, and so is it.

    Raises:
        InputError: numbers below 0.
    """
    from engine.pool import PoolConfig

    if store.protocol == "memory" and not inline:
        note("a memory:// store lives in this process only, so the work is done here, without Ray")
    return PoolConfig(
        executor="inline" if inline or store.protocol == "memory" else "ray",
        ray_address=ray_address, workers=workers, cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )  # fmt: skip
