"""A run in TensorBoard: `tensorboard --logdir FOLDER` shows it while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

_FLUSH_S = 20


class TensorBoardLog:
    """See `RunLog`."""

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        """Hides what older event files in this folder say of steps after `first_step`."""
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1, flush_secs=_FLUSH_S)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `RunLog.scalars`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """See `RunLog.picture`."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """See `RunLog.close`."""
        self._writer.close()
