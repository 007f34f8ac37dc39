"""Which signals a calibrator goes by: how much worse it is when one is shuffled (Breiman 2001)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.confidence.calibrator import Head
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Floats

_MAX_ROWS = 20_000


def importance(heads: Mapping[str, Head], gold: GoldBoxes) -> dict[str, dict[str, float]]:
    """Teacher -> feature -> rise of the root mean squared error of expected IoU, largest first.

    Args:
        heads: by teacher.
        gold: boxes that the heads did not see, or the rises are too large.
    """
    return {name: _of_head(name, head, gold) for name, head in sorted(heads.items())}


def _of_head(teacher: str, head: Head, gold: GoldBoxes) -> dict[str, float]:
    outputs = sorted(output for output in gold.iou if output.teacher == teacher)
    there = {output: np.isfinite(gold.iou[output]) for output in outputs}
    nothing = np.zeros((0, len(head.features)), np.float32)
    values = np.concatenate([nothing, *(gold.features[o][there[o]] for o in outputs)])[:_MAX_ROWS]
    iou = np.concatenate([nothing[:, 0], *(gold.iou[o][there[o]] for o in outputs)])[:_MAX_ROWS]
    if not len(iou):
        return {}
    rng, before, rises = np.random.default_rng(0), _error(head, values, iou), {}
    for place, name in enumerate(head.features):
        shuffled = values.copy()
        shuffled[:, place] = rng.permutation(shuffled[:, place])
        rises[name] = round(_error(head, shuffled, iou) - before, 5)
    return dict(sorted(rises.items(), key=lambda item: (-item[1], item[0])))


def _error(head: Head, values: Floats, iou: Floats) -> float:
    expected = head.expected_iou(values, np.zeros(len(values), np.float32))
    return float(np.sqrt(np.square(expected - iou).mean()))
