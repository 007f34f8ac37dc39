"""In which order images are seen: one endless stream, the same for any number of workers.

Epoch after epoch, each a permutation seeded by (seed, epoch) alone. Step s takes the positions
[s * batch, (s + 1) * batch) of it, and rank r every `size`-th of these from r on, so resuming is
just another first step, and another number of workers sees the same images in the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.errors import InputError

Ints = NDArray[np.int64]
_PERMUTATION, _PHASE = 1, 2  # so that no two streams of random numbers are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All training processes, and which one this is."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InputError(f"world: expected a rank from 0 to {self.size - 1}, got {self.rank}")

    def share(self, batch: int) -> int:
        """Images of one step that are this rank's.

        Raises:
            InputError: the batch cannot be shared equally.
        """
        if batch < 1 or batch % self.size:
            nearest = max(1, batch // self.size) * self.size
            raise InputError(
                f"train.batch: expected a multiple of the {self.size} training processes, got "
                f"{batch}; set train.batch={nearest} or train.workers to a divisor of {batch}"
            )
        return batch // self.size


class Order:
    """The endless stream. An image of weight 1 comes exactly once in every epoch.

    Weight 2.5 comes two or three times; over the epochs exactly 2.5 times on average, as close to
    it at any moment as whole numbers can be (systematic sampling: image i has come
    floor(weight * epochs + phase) times, with a phase of its own).
    """

    def __init__(self, weights: Sequence[float] | NDArray[np.float64], *, seed: int) -> None:
        """
        Args:
            weights: [N] times an epoch.
            seed: of phases and permutations.

        Raises:
            InputError: a weight is negative or not finite, or all are 0.
        """
        self._weights = np.asarray(weights, dtype=np.float64)
        self._seed = seed
        if not np.isfinite(self._weights).all() or (self._weights < 0).any():
            raise InputError("weights of images: expected finite numbers of at least 0")
        if not self._weights.any():
            raise InputError(
                "no image is left to train on: each has weight 0; see data.mix, "
                "data.human_weight and data.pseudo_weight"
            )
        self._phases = _generator(seed, _PHASE).random(len(self._weights))
        self._known: dict[int, Ints] = {}
        self._starts: dict[int, int] = {}

    def epoch_start(self, epoch: int) -> int:
        """The first position of an epoch."""
        if epoch not in self._starts:
            self._starts[epoch] = int(self._times_before(epoch).sum())
        return self._starts[epoch]

    def epoch_at(self, position: int) -> int:
        """The epoch that a position belongs to."""
        above = 1
        while self.epoch_start(above) <= position:
            above *= 2
        below = above // 2
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (
                (middle, above) if self.epoch_start(middle) <= position else (below, middle)
            )
        return below

    def permutation(self, epoch: int) -> Ints:
        """[L] images of an epoch, in order."""
        if epoch not in self._known:
            times = self._times_before(epoch + 1) - self._times_before(epoch)
            images = np.repeat(np.arange(len(times)), times)
            shuffled = _generator(self._seed, _PERMUTATION, epoch).permutation(images)
            self._known = dict([*self._known.items()][-1:])  # this epoch's and the last one's
            self._known[epoch] = shuffled
        return self._known[epoch]

    def images(self, start: int, stop: int) -> Ints:
        """[stop - start] images at these positions of the stream."""
        pieces = [np.zeros(0, np.int64)]
        epoch = self.epoch_at(start) if stop > start else 0
        at = self.epoch_start(epoch)
        while at < stop:
            images = self.permutation(epoch)
            pieces.append(images[max(start - at, 0) : stop - at])
            at += len(images)
            epoch += 1
        return np.concatenate(pieces)

    def _times_before(self, epoch: int) -> Ints:
        """[N] how often each image came before an epoch."""
        times: Ints = np.floor(self._weights * epoch + self._phases).astype(np.int64)
        return times


def rank_positions(step: int, *, batch: int, world: World) -> Ints:
    """[batch / size] positions in the stream that a rank takes in a step."""
    world.share(batch)
    return np.arange(step * batch + world.rank, (step + 1) * batch, world.size)


def _generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
