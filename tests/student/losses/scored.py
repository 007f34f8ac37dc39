"""One call of the criterion on synthetic scenes, for the tests of what it says."""

from __future__ import annotations

from dataclasses import replace

from student.config import LossConfig
from student.losses.criterion import Criterion, Losses
from student.records import Batch, SegmenterOutput
from tests.student.losses.synthetic import CONFIG, make_denoised, make_output, seeded


def losses_of(
    output: SegmenterOutput, batch: Batch, config: LossConfig = CONFIG, *, num_targets: float = 4
) -> Losses:
    return Criterion(config)(output, batch, num_targets=num_targets, generator=seeded(7))


def everything() -> SegmenterOutput:
    """Three layers, proposals and noised queries of two images with 3 and 2 targets."""
    rows = [[0, 1, 2, 0, 1, 2], [0, 1, -1, 0, 1, -1]]
    return replace(
        make_output(2, num_layers=3),
        denoised=make_denoised(rows, [[True] * 3 + [False] * 3] * 2, num_layers=3),
    )
