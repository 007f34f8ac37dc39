"""Which categories are the texts of a step: a function of the step, the same on every rank."""

from __future__ import annotations

import numpy as np

from student.config import StudentConfig
from student.data.order import Ints, Order
from student.data.training_data import TrainingData

_TEXTS = 3  # see order: no two streams of random numbers are the same


class StepTexts:
    """All categories where they are few enough; else those of the step's images and others.

    Those present in any image of the whole batch are always in, so a target always has its text.
    Then come categories that are verified as absent in one of them: for images labelled in the
    federated way no others teach anything. The rest is drawn from all.

    No source gives referring phrases, so categories are all the texts of training.
    """

    def __init__(self, data: TrainingData, order: Order, config: StudentConfig) -> None:
        self._data, self._order = data, order
        self._batch, self._seed = config.train.batch, config.train.seed
        self._most = config.data.max_texts
        self._num = len(data.categories)

    def at(self, step: int) -> Ints:
        """[K] places in the data's categories, rising."""
        if self._num <= self._most:
            return np.arange(self._num)
        images = self._order.images(step * self._batch, (step + 1) * self._batch)
        present, absent = self._data.present(images)
        rng = np.random.default_rng(np.random.SeedSequence((self._seed, _TEXTS, step)))
        others = np.setdiff1d(np.arange(self._num), np.concatenate([present, absent]))
        candidates = np.concatenate([rng.permutation(absent), rng.permutation(others)])
        room = max(0, self._most - len(present))
        return np.sort(np.concatenate([present, candidates[:room]]))
