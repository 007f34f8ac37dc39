"""What is asked of a proposal of images to draw, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.confidence.roles import Role
from engine.confidence.telling_images import OpenImage
from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeConfig:
    """How many images to propose.

    Attributes:
        count: images.
        num_certify: how many of them certify; None: half.
        certify_share: share of all images that certify, as `calibrate` was told; None: as in the
            newest calibration, or 0.5 where there is none.
        seed: of the random order.
    """

    count: int = 50
    num_certify: int | None = None
    certify_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count: expected at least 1 image to propose, got {self.count}")
        if self.num_certify is not None and not 0 <= self.num_certify <= self.count:
            raise InputError(
                f"certify: expected from 0 to the {self.count} images of the proposal, got "
                f"{self.num_certify}"
            )
        if self.certify_share is not None and not 0 <= self.certify_share <= 1:
            raise InputError(f"certify_share: expected from 0 to 1, got {self.certify_share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedImage:
    """An image of a proposal: `why` is a sentence, `score` is None where chance decided."""

    image: OpenImage
    role: Role
    score: float | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is proposed, and from what it was chosen.

    Attributes:
        images: sorted by id, which says nothing about them: whoever stops early has drawn a random
            part of each role.
        num_open: images that could be asked for, by role.
        num_with_gold, num_quarantined, num_without_boxes: images that could not.
        has_confidence: whether expected IoU is calibrated; else it is what teachers say.
        bounds: the expected IoUs near which a decision is open.
        certify_share: by which roles were told.
    """

    images: tuple[ProposedImage, ...]
    num_open: Mapping[Role, int]
    num_with_gold: int
    num_quarantined: int
    num_without_boxes: int
    has_confidence: bool
    bounds: tuple[float, ...]
    certify_share: float
