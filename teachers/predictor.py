"""The contract of whatever finds segments in plain photos, without boxes: the trained student.

The engine runs it on its workers; who makes one is told to it by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedSegment:
    """One thing that was found in a photo.

    Attributes:
        text: the category or phrase.
        score: in [0, 1].
        box_xyxy: absolute pixels of the upright photo.
        counts: COCO RLE in the photo's size.
        query: `learnable` or `conditional`, whichever kind of query found it; `several`.
    """

    text: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    counts: bytes
    query: str


class Predictor(Protocol):
    """Photos to segments; stateless, one per process."""

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[list[PredictedSegment]]:
        """For each photo, [H, W, 3] RGB uint8 of any size, its segments, best score first.

        Raises:
            MemoryError: too many at once; fewer may do.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSource:
    """How workers get their predictor.

    Attributes:
        identity: all that decides what it says of a photo, as JSON values; part of work keys.
        texts: what it may call a segment, in an order that stays.
        build: picklable; called once in each worker process.
    """

    identity: Mapping[str, str | int | float | bool | list[str]]
    texts: tuple[str, ...]
    build: Callable[[], Predictor]
