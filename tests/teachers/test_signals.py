"""Signals of a mask's shape: in range, nothing for an empty mask, and right where it is moved."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from scipy import ndimage

from teachers.signals import Gradient, MaskSignals, measure_mask

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
    # Background that cannot reach the outside of the image by its 4 neighbours.
    framed = np.pad(1 - mask, 1, constant_values=1)
    assert signals.num_holes == (ndimage.label(framed)[1] - 1 if mask.any() else 0)
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


def test_holes_are_counted() -> None:
    ring = np.zeros((9, 12), dtype=np.uint8)
    ring[1:8, 1:8] = 1
    box = np.array([1, 1, 8, 8], np.float32)
    assert measure_mask(ring, box).num_holes == 0
    ring[3, 3] = ring[5, 5] = 0
    assert measure_mask(ring, box).num_holes == 2
    ring[4, 4] = 0  # touches both by its corners alone
    assert measure_mask(ring, box).num_holes == 3
    ring[3, 4] = ring[5, 4] = 0  # joins them
    assert measure_mask(ring, box).num_holes == 1
    ring[5, 0:5] = 0  # opens it
    assert measure_mask(ring, box).num_holes == 0


def _two_halves(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """[H, W, 3] black to the left, white to the right."""
    photo = np.zeros((height, width, 3), dtype=np.uint8)
    photo[:, width // 2 :] = 255
    return photo


def _alignment(mask: NDArray[np.uint8], photo: NDArray[np.uint8]) -> float:
    box = np.array([0, 0, mask.shape[1], mask.shape[0]], np.float32)
    found = measure_mask(mask, box, Gradient.of(photo)).edge_alignment
    assert found is not None
    return found


def test_a_gradient_is_strong_at_an_edge_and_nowhere_else() -> None:
    gradient = Gradient.of(_two_halves())
    assert gradient.strength.shape == (40, 60)
    assert gradient.strength.dtype == np.float32
    assert np.flatnonzero(gradient.strength.any(axis=0)).tolist() == [29, 30]
    assert gradient.mean == gradient.strength.mean()


def test_an_outline_on_an_edge_is_aligned_and_one_beside_it_is_not() -> None:
    photo = _two_halves()
    on_edge, beside = np.zeros((2, 40, 60), dtype=np.uint8)
    on_edge[:, 30:], beside[:, 45:] = 1, 1
    assert _alignment(on_edge, photo) > 0.95
    assert _alignment(beside, photo) == 0
    assert _alignment(np.ones((40, 60), np.uint8), photo) == 0.5  # it has no outline
    assert _alignment(on_edge, np.full((40, 60, 3), 7, np.uint8)) == 0.5  # nothing to follow


@given(_mask_and_box(), st.integers(0, 2**32 - 1))
def test_alignment_is_a_share_and_the_mean_over_the_outline(
    given_pair: tuple[NDArray[np.uint8], NDArray[np.float32]], seed: int
) -> None:
    mask, box = given_pair
    photo = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    gradient = Gradient.of(photo)
    found = measure_mask(mask, box, gradient).edge_alignment
    if not mask.any():
        assert found is None
        return
    assert found is not None
    grown = ndimage.maximum_filter(mask, 3, mode="constant")
    outline = grown != ndimage.minimum_filter(mask, 3, mode="constant", cval=1)
    mean = gradient.strength[outline].mean() if outline.any() else gradient.mean
    both = mean + gradient.mean
    assert 0 <= found <= 1
    np.testing.assert_allclose(found, mean / both if both else 0.5, rtol=1e-4)


def test_without_a_photo_nothing_is_said_of_edges() -> None:
    mask = np.ones((5, 7), dtype=np.uint8)
    assert measure_mask(mask, np.array([0, 0, 7, 5], np.float32)).edge_alignment is None


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
