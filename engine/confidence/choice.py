"""Which output of a box is taken: the best teacher's own choice, unless another promises enough.

Whoever takes the highest of several estimates takes the one that errs upwards most, and with little
gold that costs more than it wins. So the teacher stays that is best on the gold as a whole, or the
one that is surely better for the box's category; and its own choice stays unless another output's
expected IoU is higher by a margin: the one whose gain on gold, out of fold, is surest to be one.

Legend: M boxes, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.confidence.outputs import Floats, Output

_MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
_MIN_BOXES, _SURE = 20, 1.5
"""Gold boxes of a category, and standard errors, that it takes to have a base of its own."""
NEVER = 1.0
"""No expected IoU is above another by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The rule.

    Attributes:
        base: the output that is taken as a rule.
        margin: by how much another's expected IoU must be higher, in [0, 1].
        bases: category -> the output that is taken there instead of `base`.
    """

    base: Output
    margin: float
    bases: Mapping[str, Output] = field(default_factory=dict)

    def __call__(
        self,
        outputs: Sequence[Output],
        values: Floats,
        categories: pa.DictionaryArray | None = None,
    ) -> NDArray[np.int64]:
        """[M] the column that is taken; where the base is not there, the highest.

        Args:
            outputs: the O outputs.
            values: [M, O] their expected IoU, NaN where one is not there; a row without any gives
                column 0.
            categories: [M] names, for `bases`.
        """
        if not len(outputs):
            return np.zeros(len(values), np.int64)
        filled = np.nan_to_num(values, nan=-np.inf)
        best: NDArray[np.int64] = filled.argmax(axis=1)
        base = self._base_columns(outputs, len(values), categories)
        rows = np.arange(len(values))
        stays = (base >= 0) & np.isfinite(values[rows, base]) & (
            filled[rows, best] <= filled[rows, base] + np.float32(self.margin)
        )  # fmt: skip
        return np.where(stays, base, best)

    def _base_columns(
        self, outputs: Sequence[Output], size: int, categories: pa.DictionaryArray | None
    ) -> NDArray[np.int64]:
        """[M] the column of each row's base; -1 where it is not among the outputs."""
        column = {output: number for number, output in enumerate(outputs)}
        usual = column.get(self.base, -1)
        if categories is None or not self.bases or not size:
            return np.full(size, usual, np.int64)
        words = categories.dictionary.to_pylist()
        # A policy may name some teachers alone: then the usual base is the next best.
        of_word = [column.get(self.bases.get(word, self.base), usual) for word in words]
        columns: NDArray[np.int64] = np.array(of_word, np.int64)[np.asarray(categories.indices)]
        return columns


def fit_choice(
    confidence: Mapping[Output, Floats],
    iou: Mapping[Output, Floats],
    categories: pa.DictionaryArray | None = None,
) -> Choice:
    """The rule for some gold.

    Args:
        confidence: output -> [M] expected IoU, out of fold.
        iou: output -> [M] true IoU.
        categories: [M] names; None: no category has a base of its own.
    """
    outputs = sorted(confidence)
    scores = np.stack([confidence[output] for output in outputs], axis=1)
    ious = np.stack([np.nan_to_num(iou[output]) for output in outputs], axis=1)
    own = [number for number, output in enumerate(outputs) if output.candidate == 0]
    base = max(own, key=lambda number: float(ious[:, number].mean()))
    usual = Choice(base=outputs[base], margin=NEVER)
    if categories is not None:
        drawn = np.stack([np.isfinite(iou[output]) for output in outputs], axis=1)
        better = _bases(ious, drawn, own, base, categories)
        usual = replace(usual, bases={name: outputs[column] for name, column in better.items()})
    rows = np.arange(len(scores))
    # Where the base is not there another is taken in any case: that is no gain of the margin.
    staying = ious[rows, usual(outputs, scores, categories)]
    surest, margin = 0.0, NEVER
    for tried in _MARGINS:
        choice = replace(usual, margin=tried)
        gains = ious[rows, choice(outputs, scores, categories)] - staying
        sure = float(gains.mean()) - float(gains.std()) / math.sqrt(len(gains))
        if sure > surest:
            surest, margin = sure, tried
    return replace(usual, margin=margin)


def _bases(
    ious: Floats,
    drawn: NDArray[np.bool_],
    own: Sequence[int],
    base: int,
    categories: pa.DictionaryArray,
) -> dict[str, int]:
    """Category -> column of the own choice that is surely better there than the base.

    One and a half standard errors of the paired difference. Some of many categories get there by
    chance, but only where two teachers are about as good, and then little is lost.
    """
    found: dict[str, int] = {}
    codes = np.asarray(categories.indices)
    for code, name in enumerate(categories.dictionary.to_pylist()):
        rows = np.flatnonzero((codes == code) & drawn[:, base])
        if len(rows) < _MIN_BOXES:
            continue
        surest = 0.0
        for column in own:
            gains = ious[rows, column] - ious[rows, base]
            sure = float(gains.mean()) - _SURE * float(gains.std()) / math.sqrt(len(gains))
            if sure > surest:
                surest, found[name] = sure, column
    return found
