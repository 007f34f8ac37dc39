"""What can be measured of a photo without knowing what it shows: sharpness and exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LONG_SIDE = 512
_TILES = 8
_NEARLY_BLACK = 16
_NEARLY_WHITE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoMeasures:
    """Attributes:

    sharpness: 90th percentile over an 8 x 8 grid of the variance of the Laplacian of luma, at a
        long side of at most 512 pixels. Taking the sharp end of the tiles, not the mean, keeps a
        product on a plain background from looking blurry. About 0 for a blank image.
    brightness: mean luma, in [0, 255].
    dark_fraction, bright_fraction: share of pixels with luma < 16, > 250, in [0, 1].
    """

    sharpness: float
    brightness: float
    dark_fraction: float
    bright_fraction: float


def measure(rgb: NDArray[np.uint8]) -> PhotoMeasures:
    """Measures of an [H, W, 3] uint8 RGB image."""
    import cv2

    scale = _LONG_SIDE / max(rgb.shape[:2])
    if scale < 1:
        size_wh = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
        rgb = np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    edges = cv2.Laplacian(luma, cv2.CV_32F)
    bands = [band for band in np.array_split(edges, _TILES, axis=0) if band.size]
    variances = [
        float(tile.var()) for band in bands for tile in np.array_split(band, _TILES, 1) if tile.size
    ]
    return PhotoMeasures(
        sharpness=float(np.percentile(variances, 90)),
        brightness=float(luma.mean()),
        dark_fraction=float((luma < _NEARLY_BLACK).mean()),
        bright_fraction=float((luma > _NEARLY_WHITE).mean()),
    )
