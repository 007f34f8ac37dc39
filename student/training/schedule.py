"""The learning rate as a pure function of the step, so that a resumed run needs no state of it."""

from __future__ import annotations

import math

from student.config import TrainConfig

_STEP_FACTOR = 0.1


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """What the learning rates of a step, counted from 0, are multiplied by.

    Linear warm-up from 1 / warmup_steps to 1, then `cosine` down to 0 (Loshchilov and Hutter, SGDR,
    arXiv 1608.03983, equation 5, one cycle), `step` (a tenth after each milestone), or `constant`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return (1 + math.cos(math.pi * min(1.0, done))) / 2
    if config.schedule == "step":
        passed = sum(step >= share * config.steps for share in config.milestones)
        return float(_STEP_FACTOR**passed)
    return 1.0
