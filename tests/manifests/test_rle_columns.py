"""Whole columns of RLE masks must be judged as one mask after the other is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import rle, rle_columns
from manifests.errors import InputError
from manifests.rle_columns import RleMeasures, measure
from manifests.rle_runs import FAULTS

_SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def _measured(counts: list[bytes], sizes_hw: list[tuple[int, int]]) -> RleMeasures:
    heights, widths = np.array(sizes_hw, dtype=np.int64).reshape(-1, 2).T
    return measure(pa.array(counts, pa.binary()), heights=heights, widths=widths)


def _is_valid(counts: bytes, size_hw: tuple[int, int]) -> bool:
    try:
        rle.check(counts, size_hw=size_hw)
    except InputError:
        return False
    return True


def _masks(data: st.DataObject, number: int) -> list[np.ndarray]:
    sizes = [data.draw(_SIZES) for _ in range(number)]
    seed = data.draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    density = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return [(generator.random(size) < density).astype(np.uint8) for size in sizes]


@given(data=st.data(), number=st.integers(0, 20))
def test_valid_masks_as_one_by_one(data: st.DataObject, number: int) -> None:
    masks = _masks(data, number)
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    found = _measured([rle.encode(mask) for mask in masks], sizes)
    assert not found.faults.any()
    assert found.area_px.tolist() == [int(mask.sum()) for mask in masks]
    for mask, size_hw, box in zip(masks, sizes, found.box_xyxy, strict=True):
        np.testing.assert_array_equal(box, rle.box_xyxy(rle.encode(mask), size_hw=size_hw))


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(max_size=12),
                st.text("0123456789:;<=>?@PQRSTUVWXYZ`abcno", max_size=12).map(str.encode),
            ),
            st.tuples(st.integers(-1, 6), st.integers(-1, 6)),
        ),
        max_size=30,
    )
)
@settings(max_examples=500)
def test_any_bytes_are_judged_as_one_by_one(masks: list[tuple[bytes, tuple[int, int]]]) -> None:
    found = _measured([counts for counts, _ in masks], [size for _, size in masks])
    assert [fault == 0 for fault in found.faults] == [_is_valid(*mask) for mask in masks]
    for (counts, size_hw), fault, area in zip(masks, found.faults, found.area_px, strict=True):
        assert area == (0 if fault else rle.area(counts, size_hw=size_hw))


@given(data=st.data())
def test_a_damaged_neighbour_changes_nothing(data: st.DataObject) -> None:
    masks = _masks(data, 3)
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    counts = [rle.encode(mask) for mask in masks]
    counts[1] = data.draw(st.binary(max_size=20))
    found = _measured(counts, sizes)
    assert found.faults[[0, 2]].tolist() == [0, 0]
    assert found.area_px[[0, 2]].tolist() == [int(masks[0].sum()), int(masks[2].sum())]


def test_long_columns_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [np.random.default_rng(n).integers(0, 2, (8, 9), dtype=np.uint8) for n in range(50)]
    counts = [rle.encode(mask) for mask in masks]
    whole = _measured(counts, [(8, 9)] * 50)
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(rle_columns, "_CHUNK_CHARS", size)
        parts = _measured(counts, [(8, 9)] * 50)
        np.testing.assert_array_equal(parts.area_px, whole.area_px)
        np.testing.assert_array_equal(parts.box_xyxy, whole.box_xyxy)
        assert not parts.faults.any()


def test_a_slice_of_a_column() -> None:
    mask = np.ones((2, 3), np.uint8)
    column = pa.array([b"junk", rle.encode(mask), b"junk"], pa.binary()).slice(1, 1)
    found = measure(column, heights=np.array([2]), widths=np.array([3]))
    assert found.area_px.tolist() == [6]


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        (b" 3", "alphabet"),
        (b"6P", "middle of a number"),
        (b"PPPPPPPP0", "no image needs"),
        (b"6", ""),
        (b"7", "does not cover"),
        (b"", "does not cover"),
        (b"4N4", "negative run"),
    ],
)
def test_faults_are_named(counts: bytes, fault: str) -> None:
    found = _measured([counts], [(2, 3)])
    assert fault in FAULTS[found.faults[0]]
    assert bool(fault) == bool(found.faults[0])


def test_absurd_sizes() -> None:
    found = _measured([b"6", b"6", b"6"], [(0, 6), (2**31 - 1, 2**31 - 1), (-2, -3)])
    assert [FAULTS[fault] for fault in found.faults] == ["is of an image of an impossible size"] * 3
