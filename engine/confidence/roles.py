"""Which gold is for what: some images calibrate, the others certify, and none does both.

The role of an image is a function of its id, which is a digest of its bytes. So it never changes,
is the same on every machine, and whoever chooses images for people to draw can choose freely among
those that calibrate, while those that certify stay a random sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["calibrate", "certify"]
CALIBRATE: Role = "calibrate"
CERTIFY: Role = "certify"
DEFAULT_CERTIFY_SHARE = 0.5
# The last digits: the first ones already decide the order in which images are shown and exported.
_DIGITS = 8


def role_of(image_id: str, certify_share: float = DEFAULT_CERTIFY_SHARE) -> Role:
    """The role of an image.

    Args:
        image_id: its digest, as hex.
        certify_share: share of all images that certify, in [0, 1].
    """
    place = int(image_id[-_DIGITS:], 16) / 16**_DIGITS
    return CERTIFY if place < certify_share else CALIBRATE


def certifies(image_ids: Iterable[str], certify_share: float) -> NDArray[np.bool_]:
    """[N] whether each image certifies."""
    return np.array([role_of(name, certify_share) == CERTIFY for name in image_ids], dtype=bool)
