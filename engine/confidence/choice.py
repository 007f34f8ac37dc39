"""Which output of a box is taken: the best teacher's own choice, unless another promises enough.

Whoever takes the highest of several estimates takes the one that errs upwards most, and with little
gold that costs more than it wins. So the output that is best on the gold as a whole stays, unless
another's expected IoU is higher by a margin; the margin is the one whose gain on gold, out of fold,
is surest to be one.

Legend: M boxes, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.confidence.outputs import Floats, Output

_MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
NEVER = 1.0
"""No expected IoU is above another by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The rule.

    Attributes:
        base: the output that is taken as a rule.
        margin: by how much another's expected IoU must be higher, in [0, 1].
    """

    base: Output
    margin: float

    def __call__(self, outputs: Sequence[Output], values: Floats) -> NDArray[np.int64]:
        """[M] the column that is taken of [M, O] expected IoUs; NaN where an output is not there.

        Where the base is not there, the highest is taken; a row without any gives 0.
        """
        if not len(outputs):
            return np.zeros(len(values), np.int64)
        filled = np.nan_to_num(values, nan=-np.inf)
        best: NDArray[np.int64] = filled.argmax(axis=1)
        if self.base not in outputs:
            return best
        base = list(outputs).index(self.base)
        rows = np.arange(len(values))
        stays = np.isfinite(values[:, base]) & (
            filled[rows, best] <= filled[:, base] + np.float32(self.margin)
        )
        return np.where(stays, base, best)


def fit_choice(confidence: Mapping[Output, Floats], iou: Mapping[Output, Floats]) -> Choice:
    """The rule for some gold: [M] confidences out of fold and true IoUs of each output."""
    outputs = sorted(confidence)
    scores = np.stack([confidence[output] for output in outputs], axis=1)
    ious = np.stack([np.nan_to_num(iou[output]) for output in outputs], axis=1)
    own = [number for number, output in enumerate(outputs) if output.candidate == 0]
    base = max(own, key=lambda number: float(ious[:, number].mean()))
    rows = np.arange(len(scores))
    # Where the base is not there another is taken in any case: that is no gain of the margin.
    staying = ious[rows, Choice(base=outputs[base], margin=NEVER)(outputs, scores)]
    surest, margin = 0.0, NEVER
    for tried in _MARGINS:
        choice = Choice(base=outputs[base], margin=tried)
        gains = ious[rows, choice(outputs, scores)] - staying
        sure = float(gains.mean()) - float(gains.std()) / math.sqrt(len(gains))
        if sure > surest:
            surest, margin = sure, tried
    return Choice(base=outputs[base], margin=margin)
