"""What thresholds would keep: counts of masks by category and confidence, in flat memory.

Confidence is counted in thousandths, and a threshold is one of them, so that whatever is counted
here and judged later is cut at the same place.

Legend: C categories, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.confidence.chosen import Chosen
from engine.confidence.outputs import Bools, Floats
from engine.policy import Floor

NUM_BINS = 1001
# Rounded like confidence itself: 0.7 as float32 is not less than 0.7, whoever asks.
_EDGES = (np.arange(NUM_BINS) / 1000).astype(np.float32)

Ints = NDArray[np.int64]


def bins_of(confidence: Floats) -> Ints:
    """[N] the bin of each confidence in [0, 1]; -1 for NaN."""
    places = np.searchsorted(_EDGES, np.nan_to_num(confidence, nan=-1.0), side="right")
    return places.astype(np.int64) - 1


@dataclass(slots=True)
class Tally:
    """Masks without a human one beside them that break no rule; grows shard by shard.

    Attributes:
        categories: names of the C categories seen so far.
        counts: [C, B]
        sums: [C, B] of their confidence.
        num_scored: boxes that have a confidence and no human mask, whatever the rules say.
        num_rows: [C] of those.
    """

    categories: dict[str, int] = field(default_factory=dict)
    counts: Ints = field(default_factory=lambda: np.zeros((0, NUM_BINS), np.int64))
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, NUM_BINS)))
    num_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, chosen: Chosen) -> None:
        """Counts a shard."""
        names = chosen.categories.dictionary.to_pylist()
        for name in names:
            self.categories.setdefault(name, len(self.categories))
        self._grow()
        numbers = np.array([self.categories[name] for name in names], np.int64)
        codes = numbers[np.asarray(chosen.categories.indices)] if len(names) else numbers
        is_scored = np.isfinite(chosen.confidence) & ~chosen.is_human
        self.num_rows += np.bincount(codes[is_scored], minlength=len(self.categories))
        mine = chosen.passes & ~chosen.is_human
        size = len(self.categories) * NUM_BINS
        places = codes[mine] * NUM_BINS + bins_of(chosen.confidence[mine])
        self.counts += np.bincount(places, minlength=size).reshape(-1, NUM_BINS)
        weights = chosen.confidence[mine].astype(np.float64)
        self.sums += np.bincount(places, weights, minlength=size).reshape(-1, NUM_BINS)

    def _grow(self) -> None:
        more = len(self.categories) - len(self.counts)
        if more:
            self.counts = np.concatenate([self.counts, np.zeros((more, NUM_BINS), np.int64)])
            self.sums = np.concatenate([self.sums, np.zeros((more, NUM_BINS))])
            self.num_rows = np.concatenate([self.num_rows, np.zeros(more, np.int64)])

    def floors(self, floor: Floor | None) -> Ints:
        """[C] the bin from which a category's masks stay in any case; B where there is no floor."""
        if floor is None:
            return np.full(len(self.counts), NUM_BINS, np.int64)
        total = self.counts.sum(axis=1)
        wanted = np.maximum(np.ceil(floor.min_share * total - 1e-9), floor.min_masks)
        wanted = np.minimum(wanted, total)
        above = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]  # [C, B] in that bin or higher
        reached = above >= wanted[:, None]
        last = NUM_BINS - 1 - np.argmax(reached[:, ::-1], axis=1)
        return np.where(wanted > 0, last, NUM_BINS).astype(np.int64)

    def kept(self, floors: Ints) -> tuple[Ints, NDArray[np.float64]]:
        """[B] masks and their sum of confidence, for each threshold that one might set."""
        above = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]
        above_sums = np.cumsum(self.sums[:, ::-1], axis=1)[:, ::-1]
        cut = np.minimum(np.arange(NUM_BINS)[None, :], floors[:, None])  # [C, B]
        cut = np.minimum(cut, NUM_BINS - 1)
        rows = np.arange(len(above))[:, None]
        return above[rows, cut].sum(axis=0), above_sums[rows, cut].sum(axis=0)


def is_kept(bins: Ints, codes: Ints, threshold: int, floors: Ints) -> Bools:
    """[M] whether masks of these bins and categories are kept."""
    kept: Bools = (bins >= 0) & (bins >= np.minimum(threshold, floors[codes]))
    return kept


def thresholds_to_test(kept: Ints, num_levels: int) -> Sequence[int]:
    """Thresholds, strict to lax, that keep about equally more masks each; from [B] kept masks."""
    total = int(kept[0]) if len(kept) else 0
    wanted = total * np.arange(1, num_levels + 1) / num_levels
    # `kept` falls with the threshold: the strictest that keeps at least so many.
    places = [int(np.flatnonzero(kept >= count)[-1]) for count in wanted if total]
    return list(dict.fromkeys(places))
