"""A batch in a handful of tensors: each one that goes to another process costs a file descriptor.

Eight images with their targets are fifty tensors, and a process may have a thousand files open.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from student.records import Batch, Targets

_OF_TARGETS = tuple(entry.name for entry in fields(Targets))
_OF_BATCH = ("images", "padding", "texts", "is_judged", "sizes_hw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A batch on its way.

    Attributes:
        tensors: those of the batch, and those of all targets one behind the other.
        nums: how many targets each image has.
        names, image_ids: as in the batch.
    """

    tensors: dict[str, Tensor]
    nums: list[int]
    names: tuple[str, ...]
    image_ids: tuple[str, ...]


def packed(batch: Batch) -> Parcel:
    """Copies the targets; everything else is passed on."""
    tensors = {name: getattr(batch, name) for name in _OF_BATCH}
    for name in _OF_TARGETS:
        tensors[name] = torch.cat([getattr(one, name) for one in batch.targets])
    return Parcel(
        tensors=tensors,
        nums=[len(one.labels) for one in batch.targets],
        names=batch.names,
        image_ids=batch.image_ids,
    )


def unpacked(parcel: Parcel) -> Batch:
    """The batch that was packed; its targets are parts of common tensors."""
    parts = [torch.split(parcel.tensors[name], parcel.nums) for name in _OF_TARGETS]
    targets = tuple(
        Targets(**dict(zip(_OF_TARGETS, one, strict=True))) for one in zip(*parts, strict=True)
    )
    return Batch(
        **{name: parcel.tensors[name] for name in _OF_BATCH},
        targets=targets,
        names=parcel.names,
        image_ids=parcel.image_ids,
    )
