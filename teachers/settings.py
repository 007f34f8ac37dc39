"""What can be set for each teacher: plain data, checked when built, free of heavy imports.

Fields made by `_runtime` change speed or memory, never the masks, and stay out of work keys.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from manifests.errors import InputError

_RUNTIME = "runtime"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_MOST_JITTER = 0.25
_PRECISIONS = ("float32", "bfloat16", "float16")


def _runtime(default: Any) -> Any:  # dataclasses.field is typed this way too
    return field(default=default, metadata={_RUNTIME: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Nothing to set; the others add fields to this."""

    def changing_output(self) -> dict[str, str | int | float | bool]:
        """The settings that belong into a teacher's identity."""
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if not entry.metadata.get(_RUNTIME)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SamSettings(Settings):
    """For every SAM.

    Attributes:
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        num_threads: of torch on the CPU; 0 leaves torch's own number.
        image_batch: images in one encoder call; 0: 1 on the CPU, 8 on CUDA.
        box_batch: boxes in one decoder call; 0: 2 on the CPU, 64 on CUDA.
        mask_bytes: most bytes of full-size masks in one chunk (one box always goes).
        precision: float32, or bfloat16 / float16 autocast (CUDA only).
        cut_to_box: pixels outside the box are taken away from every mask. The box is the label: on
            photos of COCO, street fashion and balloons with exact boxes this gains 0.013, 0.010 and
            0.002 mean IoU; for boxes that are a few per cent too small, set it to false.
        jitter: each box is decoded once more, moved by this share of its size, for the signal
            `jitter_iou`; 0: it is not, which saves up to a third of the time of small images.
    """

    device: str = _runtime("auto")
    num_threads: int = _runtime(0)
    image_batch: int = _runtime(0)
    box_batch: int = _runtime(0)
    mask_bytes: int = _runtime(256 * 2**20)
    precision: str = "float32"
    cut_to_box: bool = True
    jitter: float = 0.08

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise InputError(f"device: expected auto, cpu, cuda or cuda:N, got '{self.device}'")
        if self.precision not in _PRECISIONS:
            known = ", ".join(_PRECISIONS)
            raise InputError(f"precision: expected one of {known}, got '{self.precision}'")
        if self.precision != "float32" and self.device == "cpu":
            raise InputError(f"precision {self.precision} needs CUDA; use float32 on the CPU")
        _at_least(self, 0, "num_threads", "image_batch", "box_batch")
        _at_least(self, 1, "mask_bytes")
        if not 0 <= self.jitter <= _MOST_JITTER:
            raise InputError(f"jitter: expected from 0 to {_MOST_JITTER}, got {self.jitter!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrabCutSettings(Settings):
    """For GrabCut.

    Attributes:
        margin: the crop reaches this share of the box's size beyond each of its sides.
        max_side: longer crops are shrunk to this many pixels.
        iterations: of GrabCut; more change little.
    """

    margin: float = 0.25
    max_side: int = 192
    iterations: int = 2

    def __post_init__(self) -> None:
        _at_least(self, 0, "margin")
        _at_least(self, 16, "max_side")
        _at_least(self, 1, "iterations")


@dataclass(frozen=True, slots=True, kw_only=True)
class U2NetpSettings(Settings):
    """For U-2-Netp.

    Attributes:
        num_threads: of onnxruntime; 0: one a core.
        margin: the crop reaches this share of the box's size beyond each of its sides.
        threshold: saliency, stretched to [0, 1], above which a pixel is foreground.
    """

    num_threads: int = _runtime(0)
    margin: float = 0.15
    threshold: float = 0.3

    def __post_init__(self) -> None:
        _at_least(self, 0, "num_threads", "margin")
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold: expected between 0 and 1, got {self.threshold!r}")


def _at_least(settings: Settings, least: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not least <= value < math.inf:
            raise InputError(f"{name}: expected at least {least:g}, got {value!r}")
