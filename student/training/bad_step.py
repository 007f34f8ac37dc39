"""A step whose loss or gradient is not finite stops the run, and what it was given is kept."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from manifests.errors import JobError
from student.data.order import World
from student.records import Batch

_SHOWN_IDS = 4


def stop_if_bad(
    step: int,
    batches: Sequence[Batch],
    losses: Sequence[float],
    *,
    gradient_norm: float,
    folder: Path,
    world: World,
) -> None:
    """Saves a step's micro-batches and raises, if a loss or the gradient is not finite.

    A loss that is not finite on one worker makes the exchanged gradient so on all of them: each
    saves its own and stops.

    Raises:
        JobError: names the step, the images and the folder.
    """
    bad = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
    if not bad and math.isfinite(gradient_norm):
        return
    place = folder / f"bad-step-{step:08d}-worker-{world.rank}"
    for number, batch in enumerate(batches):
        save_batch(batch, place / f"batch-{number}.safetensors")
    suspects = [batches[number] for number in bad] or batches
    ids = [image_id for batch in suspects for image_id in batch.image_ids]
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    what = f"a loss of {losses[bad[0]]}" if bad else f"a gradient of norm {gradient_norm}"
    where = f"{place} on {socket.gethostname()}" if world.size > 1 else str(place)
    raise JobError(
        f"step {step}: expected finite numbers, got {what} from images "
        f"{', '.join(ids[:_SHOWN_IDS])}{more}; the batch is in {where}; look at "
        "them, then go on from the last checkpoint with the same command, or begin anew with a "
        "lower train.learning_rate or train.precision=float32 and another --name"
    )


def save_batch(batch: Batch, path: Path) -> None:
    """One file with every tensor of a batch, and ids and texts in its header as JSON."""
    tensors = {
        entry.name: value
        for entry in fields(batch)
        if isinstance(value := getattr(batch, entry.name), Tensor)
    }
    for number, targets in enumerate(batch.targets):
        tensors |= {
            f"targets.{number}.{entry.name}": getattr(targets, entry.name)
            for entry in fields(targets)
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    words = json.dumps({"image_ids": batch.image_ids, "names": batch.names})
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        path, metadata={"batch": words},
    )  # fmt: skip
