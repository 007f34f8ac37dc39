"""What a policy chose for a shard, made by hand: for tests of tallies, plans and quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from engine.confidence.chosen import Chosen
from engine.confidence.outputs import Output

A = Output.of("a")


def chosen(
    confidence: Sequence[float],
    categories: Sequence[str] | None = None,
    *,
    is_human: Sequence[bool] | None = None,
    reason: Sequence[str | None] | None = None,
) -> Chosen:
    """Masks of teacher `a`; NaN: there is none. All of one category, and good, unless told."""
    size = len(confidence)
    values = np.array(confidence, np.float32)
    names = pa.array(categories or ["shoe"] * size, pa.string()).dictionary_encode()
    return Chosen(
        categories=names, is_human=np.array(is_human or [False] * size, dtype=bool),
        confidence=values, outputs=(A,),
        taken=np.where(np.isnan(values), -1, 0).astype(np.int64),
        reason=pa.array(reason or [None] * size, pa.string()),
    )  # fmt: skip
