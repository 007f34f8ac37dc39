"""Logits in the image's own size: the same as resizing everything at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from manifests.errors import InputError
from student.evaluation.full_size import Frame, FullSize

_sizes = st.tuples(st.integers(1, 50), st.integers(1, 50))
_contents = st.tuples(st.integers(1, 32), st.integers(1, 40))


def _at_once(logits: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Up to the canvas, cut, to the image: two whole resizes."""
    canvas = F.interpolate(logits[None], frame.canvas_hw, mode="bilinear", align_corners=False)
    cut = canvas[..., : frame.content_hw[0], : frame.content_hw[1]]
    return F.interpolate(cut, frame.size_hw, mode="bilinear", align_corners=False)[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), _sizes, _contents, st.integers(300, 9000))
def test_strips_equal_two_resizes(
    seed: int, size_hw: tuple[int, int], content_hw: tuple[int, int], max_pixels: int
) -> None:
    logits = torch.randn(3, 8, 10, generator=torch.Generator().manual_seed(seed))
    frame = Frame(canvas_hw=(32, 40), content_hw=content_hw, size_hw=size_hw)
    full = FullSize(frame, logits)
    strips = list(full.strips(num_masks=3, max_pixels=max_pixels))
    assert [top for top, _ in strips] == [0, *(bottom for _, bottom in strips[:-1])]
    assert strips[-1][1] == size_hw[0]
    made = torch.cat([full.rows(*strip) for strip in strips], dim=1)
    torch.testing.assert_close(made, _at_once(logits, frame), atol=1e-5, rtol=1e-5)
    for mask in range(3):
        _check_positive(full, mask, made[mask])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), _sizes, st.integers(0, 7), st.integers(0, 9), st.integers(1, 4))
def test_the_positive_part_is_all_that_is_positive(
    seed: int, size_hw: tuple[int, int], y: int, x: int, side: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = -torch.rand(1, 8, 10, generator=generator)
    logits[0, y : y + side, x : x + side] = torch.randn(1, generator=generator)
    frame = Frame(canvas_hw=(32, 40), content_hw=(21, 40), size_hw=size_hw)
    full = FullSize(frame, logits)
    _check_positive(full, 0, full.rows(0, size_hw[0])[0])


def _check_positive(full: FullSize, mask: int, whole: torch.Tensor) -> None:
    part = full.positive(mask)
    outside = whole.clone()
    if part is not None:
        rows, columns = part.logits.shape
        place = slice(part.top, part.top + rows), slice(part.left, part.left + columns)
        torch.testing.assert_close(part.logits, whole[place], atol=1e-5, rtol=1e-5)
        outside[place] = -1
    assert (outside <= 1e-6).all()


def test_the_positive_part_is_small() -> None:
    logits = torch.full((1, 8, 10), -1.0)
    logits[0, 3, 4] = 1.0
    frame = Frame(canvas_hw=(32, 40), content_hw=(32, 40), size_hw=(320, 400))
    part = FullSize(frame, logits).positive(0)
    assert part is not None
    assert max(part.logits.shape) <= 100  # a cell is 40 pixels wide, and has neighbours
    assert FullSize(frame, -torch.ones(1, 8, 10)).positive(0) is None


def test_a_strip_is_no_larger_than_it_may_be() -> None:
    frame = Frame(canvas_hw=(32, 40), content_hw=(32, 40), size_hw=(300, 200))
    full = FullSize(frame, torch.zeros(5, 8, 10))
    for top, bottom in full.strips(num_masks=5, max_pixels=10_000):
        assert 5 * (bottom - top) * 200 <= 10_000


def test_nothing_of_the_padding_comes_in() -> None:
    logits = torch.full((1, 8, 8), -1.0)
    logits[:, :, 4:] = 1.0
    frame = Frame(canvas_hw=(32, 32), content_hw=(32, 12), size_hw=(64, 24))
    assert (FullSize(frame, logits).rows(0, 64) == -1).all()


def test_refuses_an_image_outside_its_canvas() -> None:
    with pytest.raises(InputError, match=r"\(33, 5\) on \(32, 32\)"):
        Frame(canvas_hw=(32, 32), content_hw=(33, 5), size_hw=(10, 10))
    with pytest.raises(InputError, match="at least a pixel"):
        Frame(canvas_hw=(32, 32), content_hw=(32, 0), size_hw=(10, 10))
