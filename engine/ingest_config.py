"""Settings of an ingest step, and the policy that decides which photos teachers may see."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from engine.decode import DEFAULT_MAX_PIXELS
from engine.driver import DriverConfig
from engine.measure import PhotoMeasures
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.commit import Operation
from manifests.dataset import DEFAULT_BRANCH
from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """What is refused, and what is stored but quarantined: kept away from teachers and exports.

    Attributes:
        max_pixels: a larger image is failed before it is decoded (a decompression bomb).
        min_side_px: shorter sides are quarantined as `too_small`.
        min_sharpness: see `engine.measure`; less is quarantined as `blurry`. The default is
            below every photo measured of the development sets, and about where a Gaussian blur of
            8 px at a long side of 1,024 brings the middle one; see docs/ingest.md.
        max_dark_fraction, max_bright_fraction: more is quarantined as `too_dark`, `overexposed`.
        exif_frame: which pixel grid the boxes of a rotated photo are in: `upright` (as browsers
            show it), `raw` (as stored in the file), or `auto`: the one whose size the source
            declares, `upright` if it declares none or both fit.
        on_size_mismatch: `fail` an image whose declared size is neither, or `rescale` its boxes if
            the aspect ratio agrees to 1%.
        min_box_side_px: after clipping to the image, boxes with a shorter side are dropped.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    min_side_px: int = 32
    min_sharpness: float = 3.0
    max_dark_fraction: float = 0.98
    max_bright_fraction: float = 0.995
    exif_frame: Literal["auto", "upright", "raw"] = "auto"
    on_size_mismatch: Literal["fail", "rescale"] = "fail"
    min_box_side_px: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InputError(
                    f"image policy: {name}: expected a number of 0 or more, got {value!r}"
                )

    def quarantine(self, size_hw: tuple[int, int], measures: PhotoMeasures) -> str | None:
        """The reason for which this photo is quarantined, or None."""
        rules = {
            "too_small": min(size_hw) < self.min_side_px,
            "too_dark": measures.dark_fraction > self.max_dark_fraction,
            "overexposed": measures.bright_fraction > self.max_bright_fraction,
            "blurry": measures.sharpness < self.min_sharpness,
        }
        return next((reason for reason, is_broken in rules.items() if is_broken), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """Settings of one ingest step.

    Attributes:
        source: the external dataset.
        policy: see ImagePolicy.
        branch: the branch to add to.
        message: the commit's message; empty: one is made.
        shard_images, shard_bytes: a shard is full at whichever comes first.
        pool, driver: where the workers run, and how patient the job is.
    """

    source: SourceConfig
    policy: ImagePolicy = ImagePolicy()
    branch: str = DEFAULT_BRANCH
    message: str = ""
    shard_images: int = 1000
    shard_bytes: int = 256 * 2**20
    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()

    def __post_init__(self) -> None:
        if self.shard_images < 1 or self.shard_bytes < 1:
            raise InputError(
                "shards: expected shard_images and shard_bytes of at least 1, got "
                f"{self.shard_images} and {self.shard_bytes}"
            )

    def is_made_by(self, made: Operation) -> bool:
        """Whether an operation is an ingest of just this source."""
        return made.name == "ingest" and self.source.is_as_recorded(made.config.get("source"))
