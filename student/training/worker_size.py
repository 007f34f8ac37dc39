"""How many CPUs each training worker gets on a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from manifests.errors import JobError
from student.config import TrainConfig

log = logging.getLogger(__name__)

_ANY = 10**9


def cpus_per_worker(
    train: TrainConfig, nodes: Sequence[Mapping[str, float]], *, may_grow: bool
) -> float:
    """The CPUs of each worker: as configured, or as many as there are for each.

    Args:
        train: how many workers there are to be, and their GPUs.
        nodes: the resources of each node of the cluster.
        may_grow: wait for nodes to come if there are too few; otherwise workers share CPUs.

    Raises:
        JobError: no node can hold a single worker, or the workers do not fit and never will.
    """
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    wanted = [train.cpus_per_worker] if train.cpus_per_worker else range(max(1, most), 0, -1)
    for cpus in wanted:
        if _num_held(nodes, cpus, train.gpus_per_worker) >= train.workers:
            return cpus
    fewest = wanted[-1]
    what = f"workers of {fewest} CPUs and {train.gpus_per_worker:g} GPUs"
    held = _num_held(nodes, fewest, train.gpus_per_worker)
    if may_grow and held:
        log.warning("the cluster holds %d of %d %s; waiting for nodes", held, train.workers, what)
        return fewest
    if not train.cpus_per_worker and _num_held(nodes, 0, train.gpus_per_worker) >= train.workers:
        shared = sum(node.get("CPU", 0) for node in nodes) / train.workers
        log.warning("%d workers share CPUs: %.2f for each", train.workers, shared)
        return int(shared * 100) / 100
    raise JobError(
        f"train.workers: expected {train.workers} {what}, but Ray has room for {held}; lower "
        "train.workers, train.cpus_per_worker or train.gpus_per_worker, or join a larger cluster "
        "with --ray-address"
    )


def _num_held(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Workers that fit; what is 0 is not asked for."""
    return sum(
        min(_fitting(node.get("CPU", 0), cpus), _fitting(node.get("GPU", 0), gpus))
        for node in nodes
    )


def _fitting(there: float, each: float) -> int:
    return int(there / each) if each else _ANY
