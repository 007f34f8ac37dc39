"""Instances of one image in its own pixels: what people marked, and what a student found.

Legend: N marked instances, M found ones, H and W the image's own height and width. Categories are
indices into one list of names that all images of an evaluation share. Boxes are absolute xyxy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from manifests.errors import InputError
from manifests.export_rows import rle_of_box

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueInstances:
    """What people marked; N may be 0.

    Attributes:
        size_hw: the image's own.
        categories: [N] int64.
        boxes_xyxy: [N, 4] float32.
        counts: N COCO RLEs; None: nobody drew the mask, and mask metrics ignore what lies there.
        is_crowd: [N] bool: a region of several; nothing has to be found there, all may be.
        unjudged: categories whose other objects nobody marked here (federated labels): what is
            found of them without a true partner is no error.
    """

    size_hw: tuple[int, int]
    categories: IntArray
    boxes_xyxy: NDArray[np.float32]
    counts: tuple[bytes | None, ...]
    is_crowd: NDArray[np.bool_]
    unjudged: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        num = len(self.categories)
        found = (*self.boxes_xyxy.shape, len(self.counts), len(self.is_crowd))
        _check_lengths("true instances", found, (num, 4, num, num))

    def __len__(self) -> int:
        return len(self.categories)

    def region(self, row: int) -> bytes:
        """RLE of the mask, or of the filled box where there is none."""
        found = self.counts[row]
        return rle_of_box(self.boxes_xyxy[row], size_hw=self.size_hw) if found is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundInstances:
    """What a student found, by falling score; M may be 0.

    Attributes:
        size_hw: the image's own.
        categories: [M] int64.
        scores: [M] float32 in [0, 1].
        boxes_xyxy: [M, 4] float32.
        counts: M COCO RLEs.
        queries: [M] int64, which query each came from; several may share one.
    """

    size_hw: tuple[int, int]
    categories: IntArray
    scores: NDArray[np.float32]
    boxes_xyxy: NDArray[np.float32]
    counts: tuple[bytes, ...]
    queries: IntArray

    def __post_init__(self) -> None:
        num = len(self.categories)
        found = (
            *self.boxes_xyxy.shape, len(self.counts), len(self.scores), len(self.queries)
        )  # fmt: skip
        _check_lengths("found instances", found, (num, 4, num, num, num))

    def __len__(self) -> int:
        return len(self.categories)


def whole_image(size_hw: tuple[int, int]) -> bytes:
    """RLE of every pixel."""
    return rle.encode(np.ones(size_hw, dtype=np.uint8))


def _check_lengths(what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(f"{what}: expected arrays of lengths {expected}, got {found}")
