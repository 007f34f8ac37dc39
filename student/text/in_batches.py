"""Texts through a network in batches of like length, so that little time goes into padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BATCH = 64


def in_batches(
    texts: Sequence[str], encode: Callable[[Sequence[str]], Tensor], *, dim: int
) -> Tensor:
    """[N, dim] float32, in the order of `texts`, without gradients.

    `inference_mode` would not do: its tensors cannot be multiplied with what is being trained.
    """
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = torch.empty(len(texts), dim)
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            vectors[rows] = encode([texts[row] for row in rows]).float().cpu()
    return vectors
