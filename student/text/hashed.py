"""Texts to vectors by their letters alone: no weights, no meaning; for tests and dry runs.

Every character n-gram has a fixed pseudo-random vector, made from its digest, and a text is the sum
of its n-grams: the same on every machine and in every process. Texts that share letters are alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from student.config import TextConfig

_DIM = 128
_VERSION = 1
_LENGTHS = (2, 3, 4)  # of n-grams, in characters
_EDGE = "\x02"  # so that the beginning and the end of a text count


class HashedTextEncoder:
    """See `TextEncoder`."""

    def __init__(self, dim: int = _DIM) -> None:
        self._dim = dim

    @property
    def dim(self) -> int:
        """See `TextEncoder.dim`."""
        return self._dim

    @property
    def identity(self) -> Mapping[str, str]:
        """See `TextEncoder.identity`."""
        return {"encoder": "hashed", "version": str(_VERSION), "dim": str(self._dim)}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """See `TextEncoder.encode`."""
        sums = [self._sum_of_ngrams(text.lower()) for text in texts]
        stacked = np.stack(sums) if sums else np.empty((0, self._dim))
        # Halves of odd numbers add up exactly in float64: the order of n-grams cannot matter.
        return F.normalize(torch.from_numpy(stacked), dim=1).float()  # [N, dim]

    def _sum_of_ngrams(self, text: str) -> NDArray[np.float64]:
        framed = f"{_EDGE}{text}{_EDGE}"
        ngrams = [
            framed[start : start + length]
            for length in _LENGTHS
            for start in range(len(framed) - length + 1)
        ]
        total: NDArray[np.float64] = np.stack([_vector(ngram, self._dim) for ngram in ngrams]).sum(
            0
        )
        return total


def build(_config: TextConfig) -> HashedTextEncoder:
    """See `build_text_encoder`."""
    return HashedTextEncoder()


def _vector(ngram: str, dim: int) -> NDArray[np.float64]:
    """[dim] in [-127.5, 127.5], never 0."""
    digest = hashlib.shake_128(ngram.encode("utf-8", "surrogatepass")).digest(dim)
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float64) - 127.5
