"""Full-size masks from low-resolution logits: upstream's two interpolations, where it counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manifests import rle
from teachers.sam_frame import Frame, Upsampler
from teachers.sam_masks import full_size
from tests.teachers.conftest import CPU

_SIZES = [(480, 640), (640, 480), (1500, 1100), (7, 200), (1024, 1024), (3, 3), (1, 1)]


def _blob(x: float, y: float, radius: float) -> Tensor:
    """[256, 256] logits, rows then columns: positive in a disc, steep at its edge."""
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    return ((radius - torch.hypot(columns - x, rows - y)) * 4).clamp(-20, 20)


def _logits() -> Tensor:
    """[5, 1, 256, 256]: usual, in the corner, two far apart, a speck, nothing."""
    usual, corner = _blob(90, 60, 30), _blob(0, 0, 12)
    apart = torch.maximum(_blob(20, 20, 5), _blob(120, 30, 9))
    speck = torch.full((256, 256), -20.0)
    speck[40, 50] = 20
    return torch.stack([usual, corner, apart, speck, torch.full((256, 256), -3.0)])[:, None]


def _reference(logits: Tensor, frame: Frame) -> Tensor:
    """What `Sam.postprocess_masks` says."""
    square = F.interpolate(logits, (1024, 1024), mode="bilinear", align_corners=False)
    inner = square[..., : frame.inner_hw[0], : frame.inner_hw[1]]
    return F.interpolate(inner, frame.size_hw, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size_hw", _SIZES)
def test_masks_signals_and_boxes_are_those_of_the_whole_map(size_hw: tuple[int, int]) -> None:
    frame = Frame.of(size_hw)
    logits = _logits()
    full = full_size(logits.transpose(2, 3), Upsampler.of(frame, CPU))
    maps = _reference(logits, frame)
    expected = maps > 0
    got = full.masks.transpose(2, 3).bool()
    assert (got != expected).sum() <= max(1, got.numel() * 1e-6)
    inside = expected.sum(dim=(2, 3)).clamp(min=1)
    stability = (maps > 1).sum(dim=(2, 3)) / (maps > -1).sum(dim=(2, 3)).clamp(min=1)
    torch.testing.assert_close(full.stability, stability, atol=0.01, rtol=0)
    mean = (maps.sigmoid() * expected).sum(dim=(2, 3)) / inside
    torch.testing.assert_close(full.mean_foreground, mean, atol=0.01, rtol=0)
    for mask, tight in zip(got[:, 0].numpy(), full.tight_xyxy[:, 0].numpy(), strict=True):
        plane = np.asfortranarray(mask, dtype=np.uint8)
        box = rle.box_xyxy(rle.encode(plane), size_hw=size_hw)
        np.testing.assert_array_equal(tight, box)


def test_an_empty_mask_has_zero_signals() -> None:
    frame = Frame.of((30, 40))
    full = full_size(torch.full((1, 1, 256, 256), -9.0), Upsampler.of(frame, CPU))
    assert not full.masks.any()
    assert full.stability == full.mean_foreground == 0
    assert not full.tight_xyxy.any()
