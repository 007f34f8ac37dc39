"""Signals of a mask's shape: in range, nothing for an empty mask, and right where it is moved."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from scipy import ndimage

from teachers.signals import MaskSignals, measure_mask

_SIDES = st_numpy.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
_MASKS = st_numpy.arrays(np.uint8, _SIDES, elements=st.integers(0, 1))


@st.composite
def _mask_and_box(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    mask = draw(_MASKS)
    height, width = mask.shape
    x = sorted(draw(st.tuples(*[st.floats(0, width, width=32)] * 2)))
    y = sorted(draw(st.tuples(*[st.floats(0, height, width=32)] * 2)))
    box = np.array([x[0], y[0], max(x[1], x[0] + 0.01), max(y[1], y[0] + 0.01)])
    return mask, box.astype(np.float32)


def _fractions(signals: MaskSignals) -> list[float]:
    names = ("box_iou", "outside_fraction", "fill_ratio", "border_contact")
    return [getattr(signals, name) for name in names]


@given(_mask_and_box())
def test_every_fraction_is_between_0_and_1(
    given_pair: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> None:
    mask, box = given_pair
    signals = measure_mask(mask, box)
    assert all(0 <= value <= 1 for value in _fractions(signals))
    assert signals.area_px == mask.sum()
    x0, y0, x1, y1 = signals.mask_box_xyxy
    assert 0 <= x0 <= x1 <= mask.shape[1]
    assert 0 <= y0 <= y1 <= mask.shape[0]


@given(_mask_and_box())
def test_counts_are_those_of_a_plain_loop(
    given_pair: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> None:
    mask, box = given_pair
    signals = measure_mask(mask, box)
    _, expected = ndimage.label(mask, structure=np.ones((3, 3)))
    assert signals.num_components == expected
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = box
    inside = (xs + 0.5 >= x0) & (xs + 0.5 < x1) & (ys + 0.5 >= y0) & (ys + 0.5 < y1)
    if len(xs):
        assert signals.outside_fraction == (~inside).sum() / len(xs)
        tight = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert signals.mask_box_xyxy == tuple(map(float, tight))


@given(_mask_and_box())
def test_memory_order_does_not_matter(
    given_pair: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> None:
    mask, box = given_pair
    assert measure_mask(np.asfortranarray(mask), box) == measure_mask(mask, box)
    padded = np.zeros((mask.shape[0] * 2, mask.shape[1] * 2), dtype=np.uint8)
    padded[::2, ::2] = mask
    assert measure_mask(padded[::2, ::2], box) == measure_mask(mask, box)


@given(_mask_and_box(), st.integers(1, 9), st.integers(1, 9))
def test_a_mask_and_box_moved_together_keep_their_signals(
    given_pair: tuple[NDArray[np.uint8], NDArray[np.float32]], dx: int, dy: int
) -> None:
    mask, box = given_pair
    box = np.round(box * 4) / 4  # exact when moved
    if (box[2:] <= box[:2]).any():
        return
    framed = np.pad(mask, 1)
    before = measure_mask(framed, box + np.float32(1))
    moved_mask = np.pad(framed, ((dy, 3), (dx, 5)))
    after = measure_mask(moved_mask, box + np.array([dx + 1, dy + 1] * 2, dtype=np.float32))
    assert dataclasses.replace(after, mask_box_xyxy=before.mask_box_xyxy) == before


def test_an_empty_mask_has_no_signals() -> None:
    signals = measure_mask(np.zeros((5, 7), dtype=np.uint8), np.array([0, 0, 7, 5], np.float32))
    assert signals.area_px == signals.num_components == 0
    assert signals.mask_box_xyxy == (0.0, 0.0, 0.0, 0.0)
    assert _fractions(signals) == [0.0] * 4


def test_a_mask_that_fills_box_and_image() -> None:
    signals = measure_mask(np.ones((5, 7), dtype=np.uint8), np.array([0, 0, 7, 5], np.float32))
    assert signals.box_iou == signals.fill_ratio == signals.border_contact == 1.0
    assert signals.outside_fraction == 0.0
    assert signals.num_components == 1


def test_border_contact_is_the_share_of_the_outline_that_is_cut_off() -> None:
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[0:2, 4:6] = 1
    assert measure_mask(mask, np.array([4, 0, 6, 2], np.float32)).border_contact == 2 / 8
    assert measure_mask(np.roll(mask, 3, axis=0), np.array([4, 3, 6, 5], np.float32)).box_iou == 1
