"""Polygons: whatever the mask, rasterising them gives it back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from scipy import ndimage

from manifests import rle
from manifests.polygons import join_rings, polygons_from_mask, polygons_from_rle

sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
masks = sizes.flatmap(lambda size_hw: arrays(np.uint8, size_hw, elements=st.integers(0, 1)))


def rasterised(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    if not rings:
        return np.zeros(size_hw, dtype=np.uint8)
    flat = [ring.ravel().astype(float).tolist() for ring in rings]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *size_hw)))


def even_odd(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """An independent filler: a pixel is in if a ray from its centre crosses an odd number."""
    x, y = np.meshgrid(np.arange(size_hw[1]) + 0.5, np.arange(size_hw[0]) + 0.5)
    inside = np.zeros(size_hw, dtype=np.uint8)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y > min(y0, y1)) & (y < max(y0, y1))
                inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


@given(masks)
@settings(max_examples=300, deadline=None)
def test_pycocotools_gives_the_mask_back(mask: np.ndarray) -> None:
    rings = polygons_from_rle(rle.encode(mask), size_hw=mask.shape)
    assert (rasterised(rings, mask.shape) == mask).all()
    assert (even_odd(rings, mask.shape) == mask).all()


@given(masks.filter(np.any))
@settings(max_examples=300, deadline=None)
def test_one_joined_ring_is_still_the_mask(mask: np.ndarray) -> None:
    ring = join_rings(polygons_from_mask(mask))
    assert (rasterised([ring], mask.shape) == mask).all()


@given(masks)
@settings(deadline=None)
def test_one_ring_for_each_part(mask: np.ndarray) -> None:
    parts, num_parts = ndimage.label(mask)  # 4-connected
    rings = polygons_from_mask(mask)
    assert len(rings) == num_parts
    areas = sorted(int(even_odd([ring], mask.shape).sum()) for ring in rings)
    assert areas == sorted(np.bincount(parts.ravel())[1:].tolist())


@given(masks)
@settings(deadline=None)
def test_vertices_are_corners_inside_the_image(mask: np.ndarray) -> None:
    height, width = mask.shape
    for ring in polygons_from_mask(mask):
        assert len(ring) >= 4
        assert (ring >= 0).all()
        assert (ring <= [width, height]).all()
        assert (ring != np.roll(ring, 1, axis=0)).any(axis=1).all()


def test_shapes_by_hand() -> None:
    full = np.ones((3, 5), dtype=np.uint8)
    assert polygons_from_mask(full)[0].tolist() == [[0, 0], [5, 0], [5, 3], [0, 3]]
    pixel = np.zeros((4, 7), dtype=np.uint8)
    pixel[2, 5] = 1
    assert polygons_from_mask(pixel)[0].tolist() == [[5, 2], [6, 2], [6, 3], [5, 3]]
    assert polygons_from_mask(np.zeros((4, 7), dtype=np.uint8)) == []
    diagonal = np.eye(3, dtype=np.uint8)
    assert len(polygons_from_mask(diagonal)) == 3


def test_a_hole_costs_no_ring_of_its_own() -> None:
    mask = np.ones((7, 9), dtype=np.uint8)
    mask[2:4, 3:6] = 0
    mask[5, 5] = 0
    rings = polygons_from_mask(mask)
    assert len(rings) == 1
    assert (rasterised(rings, mask.shape) == mask).all()


def test_nested_rings_and_stacked_holes() -> None:
    rows, columns = np.mgrid[:41, :61]
    target = np.maximum(abs(rows - 20), abs(columns - 30)) // 3 % 2
    stacked = np.ones((40, 12), dtype=np.int64)
    stacked[2:38:2, 4:7] = 0
    for mask in (target, stacked):
        rings = polygons_from_mask(mask.astype(np.uint8))
        assert (rasterised(rings, mask.shape) == mask).all()
        assert (rasterised([join_rings(rings)], mask.shape) == mask).all()


def test_large_noise_is_exact() -> None:
    mask = (np.random.default_rng(0).random((150, 210)) < 0.55).astype(np.uint8)
    rings = polygons_from_rle(rle.encode(mask), size_hw=mask.shape)
    assert (rasterised(rings, mask.shape) == mask).all()
    assert (rasterised([join_rings(rings)], mask.shape) == mask).all()


def test_joining_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one ring"):
        join_rings([])
