"""A small SAM that needs no weights, and the official ones where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from teachers import sam_build, weights
from teachers.protocol import TeacherIdentity
from teachers.sam import SamTeacher
from teachers.sam_build import SamParts
from teachers.sam_decoder import SamDecoder
from teachers.settings import SamSettings

CPU = torch.device("cpu")
IDENTITY = TeacherIdentity(name="sam_vit_t", version=1)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def weights_given(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The official weights in $MASKMILL_WEIGHTS, an empty cache."""
    monkeypatch.setenv("MASKMILL_WEIGHTS", str(shared / "weights"))
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path))


class SmallEncoder(nn.Module):
    """Stands for an image encoder: averages 16 x 16 pixels and mixes the colours."""

    img_size = 1024

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 256, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        mixed: Tensor = self.mix(F.avg_pool2d(pixels, 16))
        return mixed


class SmallSam:
    """The same random weights behind our teacher and behind upstream's predictor."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        modules = sam_build.prompt_encoder_and_decoder().eval().requires_grad_(False)
        self._encoder = SmallEncoder().requires_grad_(False)
        self._modules = modules
        with torch.inference_mode():
            decoder = SamDecoder(modules["prompt_encoder"], modules["mask_decoder"])
        self.parts = SamParts(encoder=self._encoder, decoder=decoder)

    def teacher(self, **settings: float | str) -> SamTeacher:
        """Ours, with settings."""
        chosen = SamSettings(**settings)  # type: ignore[arg-type]  # a test gives right types
        return SamTeacher(identity=IDENTITY, settings=chosen, parts=self.parts, device=CPU)

    def predictor(self) -> SamPredictor:
        """Upstream's, by which ours is judged."""
        sam = Sam(
            image_encoder=self._encoder,
            prompt_encoder=self._modules["prompt_encoder"],
            mask_decoder=self._modules["mask_decoder"],
        )
        return SamPredictor(sam.eval())


@pytest.fixture(scope="session")
def small_sam() -> SmallSam:
    """A SAM that answers in milliseconds; its masks mean nothing."""
    return SmallSam()


@pytest.fixture(scope="session")
def mobile_sam(shared: Path) -> SamTeacher:
    """MobileSAM with its official weights."""
    path = shared / "weights" / weights.TABLE["mobile_sam"].file_name
    parts = sam_build.load_parts("sam_vit_t", path, CPU)
    settings = SamSettings(device="cpu")
    return SamTeacher(identity=IDENTITY, settings=settings, parts=parts, device=CPU)


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """[H, W, 3] smooth colours with a disc in the middle, different for every seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(random.uniform(3, 9) * x + random.uniform(3, 9) * y) for _ in range(3)]
    image = np.stack(waves, axis=2) * 60 + 128
    inside = np.hypot(x - x.mean(), y - y.mean()) < min(height, width) / max(height, width) / 4
    image[inside] = random.integers(0, 255, 3)
    return image.astype(np.uint8)
