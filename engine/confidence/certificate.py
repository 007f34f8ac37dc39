"""Certificates: at most so many of the kept masks are bad, with so much confidence.

Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052): every threshold is a hypothesis "too
many of what it keeps are bad", which gold can reject; fixed-sequence testing from strict to lax
controls the chance that any of the rejected ones was true.

What is certified are the kept masks of this dataset that have no human mask, a finite number. If
gold images are a random sample of the dataset's, the bad ones among the kept gold are a draw
without replacement, and the p-value is a hypergeometric tail (Clopper & Pearson's argument for a
finite population); for many kept masks it becomes the binomial one. Masks of one image are alike,
so gold counts as fewer than it is: by the design effect of Rao & Scott (1992). Few bad masks cannot
tell how alike those of an image are, so all gold together has a say in that. That correction is
estimated and makes the bound an approximate one; everything else is exact for a
finite sample.

Legend: n kept gold masks, k bad ones among them, m kept masks without gold, G thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.confidence.outputs import Bools

Ints = NDArray[np.int64]

_BLIND_STARTS = (0.0, 0.4, 0.7)
"""Where sequences begin if no other gold says where: as shares of the way from strict to lax. One
that begins at the strictest stops at a single unlucky mask; each of these has a third of delta."""
_BISECTIONS = 40
_WORTH_IMAGES = 5
"""How many images with bad masks it takes at a threshold to count as much as all gold together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldKept:
    """What gold says of one threshold: n kept masks, k bad ones, how many masks each is worth."""

    num_kept: int
    num_bad: int
    num_images: int
    design_effect: float

    @property
    def effective(self) -> tuple[int, int]:
        """(n, k) as if masks of one image were independent: fewer masks, no fewer bad ones."""
        n = math.floor(self.num_kept / self.design_effect)
        return n, min(n, math.ceil(self.num_bad / self.design_effect))


def gold_kept(is_kept: Bools, is_bad: Bools, images: Ints, *, likeness: float) -> GoldKept:
    """Counts of [M] gold masks.

    Args:
        likeness: of masks of one image, see `likeness_of`; without any bad mask kept, nothing else
            says that ten masks of one image are not worth ten.
    """
    bad, place, sizes = _by_image(is_bad[is_kept], images[is_kept])
    alike = _likeness(bad, place, sizes, before=likeness, worth_images=_WORTH_IMAGES)
    return GoldKept(
        num_kept=len(bad), num_bad=int(bad.sum()), num_images=len(sizes),
        design_effect=max(_design_effect(bad, place), 1 + alike * (_mean_size(sizes) - 1)),
    )  # fmt: skip


def likeness_of(is_bad: Bools, images: Ints) -> float:
    """How alike [M] gold masks of one image are in being bad: from 0, not at all, to 1, wholly.

    The intraclass correlation that the design effect implies (Kish 1965), as if one more image
    with bad masks had been seen, whose masks were all alike: what few bad masks say is little.
    """
    return _likeness(*_by_image(is_bad, images), before=1.0, worth_images=1)


def _likeness(
    bad: NDArray[np.float64], place: Ints, sizes: Ints, *, before: float, worth_images: int
) -> float:
    """What was thought before, and the more of what is seen the more images have bad masks."""
    mean_size = _mean_size(sizes)
    if mean_size <= 1:
        return before
    seen = min(1.0, (_design_effect(bad, place) - 1) / (mean_size - 1))
    num_images = int(np.count_nonzero(np.bincount(place, bad)))
    return (num_images * seen + worth_images * before) / (num_images + worth_images)


def _by_image(is_bad: Bools, images: Ints) -> tuple[NDArray[np.float64], Ints, Ints]:
    """[M] bad as numbers, [M] places of the images, [I] how many masks each image has."""
    _, place, sizes = np.unique(images, return_inverse=True, return_counts=True)
    return is_bad.astype(np.float64), place, sizes


def _mean_size(sizes: Ints) -> float:
    """Masks in the image of a mean mask."""
    return float(np.square(sizes).sum() / sizes.sum()) if len(sizes) else 1.0


def _design_effect(bad: NDArray[np.float64], place: Ints) -> float:
    """Variance of the share of bad masks when whole images are drawn, over that when masks are.

    At least 1, and 1 where too few are bad to tell.
    """
    n, k, num_images = len(bad), int(bad.sum()), int(place.max(initial=-1) + 1)
    if k <= 1 or k == n or num_images == 1:
        return 1.0
    share = k / n
    residuals = np.bincount(place, bad - share)
    clustered = num_images / (num_images - 1) * float(np.square(residuals).sum()) / n**2
    return max(1.0, clustered / (share * (1 - share) / (n - 1)))


def p_value(n: int, k: int, *, max_risk: float, population: int) -> float:
    """Chance of at most k bad among n gold masks, if more than allowed of the others were bad.

    Args:
        n, k: gold masks and bad ones among them.
        max_risk: the share of the others that may be bad, in (0, 1).
        population: how many others there are; 0: no end of them (binomial).
    """
    from scipy.stats import binom, hypergeom

    if n == 0:
        return 1.0
    if population == 0:
        return float(binom.cdf(k, n, max_risk))
    fewest_too_many = math.floor(max_risk * population + 1e-9) + 1
    if fewest_too_many > population:
        return 0.0
    # Given j bad gold masks, j + fewest_too_many of all are bad; the tail is largest for j = k.
    return float(hypergeom.cdf(k, n + population, fewest_too_many + k, n))


def upper_bound(n: int, k: int, *, delta: float, population: int) -> float:
    """Smallest share of bad masks that the gold refutes, with confidence 1 - delta; 1 if none."""
    low, high = k / n if n else 0.0, 1.0
    if p_value(n, k, max_risk=1 - 1e-9, population=population) > delta:
        return 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if p_value(n, k, max_risk=middle, population=population) <= delta:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One threshold and what came of it.

    Attributes:
        threshold: masks of at least this confidence are kept.
        population: kept masks without gold.
        gold: see GoldKept.
        level: the part of delta that it was tested with.
        holds: whether it is certified.
    """

    threshold: float
    population: int
    gold: GoldKept
    level: float
    holds: bool

    @property
    def upper_bound(self) -> float:
        """Of the share of bad masks, with confidence 1 - level."""
        return upper_bound(*self.gold.effective, delta=self.level, population=self.population)


def tested_thresholds(
    thresholds: Sequence[float],
    golds: Sequence[GoldKept],
    populations: Sequence[int],
    *,
    max_risk: float,
    delta: float,
    starts: Sequence[int],
) -> list[Tested]:
    """Fixed-sequence tests of [G] thresholds, strict to lax, that this gold's IoUs did not choose.

    Every start has its share of delta and goes on until a threshold is not rejected. With
    probability at least 1 - delta no certified threshold keeps too many bad masks.

    Args:
        thresholds: falling.
        golds, populations: of each threshold, see Tested.
        starts: places in `thresholds` where a sequence begins, see `starts_of`.
    """
    level = delta / len(starts)
    pairs = [(gold.effective, size) for gold, size in zip(golds, populations, strict=True)]
    values = [p_value(*ends, max_risk=max_risk, population=size) for ends, size in pairs]
    holds = np.zeros(len(thresholds), dtype=bool)
    for start in starts:
        for place in range(start, len(thresholds)):
            if values[place] > level:
                break
            holds[place] = True
    return [
        Tested(
            threshold=threshold, population=size, gold=gold, level=level, holds=bool(held)
        )
        for threshold, gold, size, held in zip(thresholds, golds, populations, holds, strict=True)
    ]  # fmt: skip


def starts_of(others: Sequence[GoldKept], num_thresholds: int, *, max_risk: float) -> list[int]:
    """Where sequences of tests begin.

    Gold that calibrates may say where most is to be won: its IoUs are not used again ("split
    fixed-sequence testing", arXiv 2110.01052). Without any, sequences begin in several places.

    Args:
        others: [G] what the other gold says of each threshold; empty: there is none.
        num_thresholds: G, at least 1.
    """
    if not others:
        return sorted({int(share * num_thresholds) for share in _BLIND_STARTS})
    values = [p_value(*gold.effective, max_risk=max_risk, population=0) for gold in others]
    return [int(np.argmin(values))]


def least_gold(max_risk: float, delta: float) -> int:
    """Gold masks that certify a risk if none of them is bad: fewer never do."""
    return math.ceil(math.log(delta) / math.log(1 - max_risk))
