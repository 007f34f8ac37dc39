"""Columns of mask pairs say what pycocotools says one by one, and never trust their bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import paired_rle, rle
from manifests.errors import InputError
from manifests.paired_rle import paired_areas

Pair = tuple[bytes, bytes, tuple[int, int]]


def column(values: list[bytes]) -> pa.ChunkedArray:
    """The values in two chunks, the second with an offset of its own."""
    half = len(values) // 2
    second = pa.array([b"before", *values[half:]], pa.binary()).slice(1)
    return pa.chunked_array([pa.array(values[:half], pa.binary()), second])


def areas_of(pairs: list[Pair]) -> paired_rle.PairedAreas:
    before, after, sizes = zip(*pairs, strict=True) if pairs else ((), (), ())
    sizes_hw = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return paired_areas(column(list(before)), column(list(after)), sizes_hw=sizes_hw)


def mask_of(seed: int, size_hw: tuple[int, int], density: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(size_hw) < density).astype(np.uint8)


densities = st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
pairs_of_masks = st.builds(
    lambda seed, size, a, b: (mask_of(seed, size, a), mask_of(seed + 1, size, b)),
    st.integers(0, 2**32), sizes, densities, densities,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(pairs_of_masks, max_size=12), st.sampled_from([1, 7, 2**18]))
def test_equals_counting_pixels(masks: list[tuple[np.ndarray, np.ndarray]], batch: int) -> None:
    pairs = [(rle.encode(a), rle.encode(b), a.shape) for a, b in masks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired_rle, "_BATCH_CHARS", batch)
        found = areas_of(pairs)
    assert found.intersection.tolist() == [int((a & b).sum()) for a, b in masks]
    assert found.union.tolist() == [int((a | b).sum()) for a, b in masks]
    expected = [rle.paired_iou(a, b, size_hw=size) for a, b, size in pairs]
    np.testing.assert_allclose(found.iou, expected, atol=1e-12)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.binary(max_size=12), min_size=1, max_size=3),
    st.lists(st.text("0123456789:;<=>?@PQRSTUVWXYZ_`abcdmno", max_size=9), max_size=2),
    sizes,
)
def test_refuses_exactly_what_the_check_of_single_masks_refuses(
    raw: list[bytes], texts: list[str], size_hw: tuple[int, int]
) -> None:
    sound = rle.encode(np.ones(size_hw, np.uint8))
    counts = [*raw, *(text.encode() for text in texts), sound]
    verdicts = [_refusal(one, size_hw) for one in counts]
    first = next((n for n, verdict in enumerate(verdicts) if verdict), None)
    pairs = [(sound, one, size_hw) for one in counts]
    if first is None:
        areas_of(pairs)
        return
    with pytest.raises(InputError) as caught:
        areas_of(pairs)
    assert str(caught.value) == f"row {first}, after: {verdicts[first]}"


def _refusal(counts: bytes, size_hw: tuple[int, int]) -> str | None:
    try:
        rle.check(counts, size_hw=size_hw)
    except InputError as error:
        return str(error)
    return None


def test_runs_without_pixels_are_nothing() -> None:
    """Legal, but maskApi's own overlap goes wrong on them."""
    with_empty_runs = b"2010204"  # runs of 2, 0, 1, 0, 3, 0 and 7 pixels
    runs = rle.runs_from_counts(with_empty_runs)
    size_hw = (int(runs.sum()), 1)
    mask = np.repeat(np.arange(len(runs)) % 2, runs)
    found = areas_of([(with_empty_runs, rle.encode(np.ones(size_hw, np.uint8)), size_hw)])
    assert (runs[1:] == 0).any()
    assert found.intersection.tolist() == [int(mask.sum())]
    assert found.union.tolist() == [size_hw[0]]


def test_large_images_side_by_side() -> None:
    """Far more pixels together than 32 bits can count."""
    size_hw = (60_000, 60_000)
    full, empty = b"".join([b"0", _number(3_600_000_000)]), _number(3_600_000_000)
    found = areas_of([(full, full, size_hw), (full, empty, size_hw)] * 3)
    assert found.iou.tolist() == [1.0, 0.0] * 3


def _number(value: int) -> bytes:
    """As maskApi writes one."""
    chars = []
    while True:
        five, value = value & 31, value >> 5
        is_last = value == (-1 if five & 16 else 0)
        chars.append((five | (0 if is_last else 32)) + 48)
        if is_last:
            return bytes(chars)


@pytest.mark.parametrize("size_hw", [(0, 5), (-2, -3), (2**31 - 1, 2**31 - 1), (70_000, 70_000)])
def test_refuses_impossible_sizes(size_hw: tuple[int, int]) -> None:
    counts = _number(max(0, size_hw[0] * size_hw[1]) & (2**34 - 1))
    with pytest.raises(InputError, match="row 0, before: "):
        areas_of([(counts, counts, size_hw)])


def test_names_the_row_in_a_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_rle, "_BATCH_CHARS", 4)
    sound = rle.encode(np.ones((3, 3), np.uint8))
    pairs = [(sound, sound, (3, 3))] * 20 + [(sound, sound + b"1", (3, 3))]
    with pytest.raises(
        InputError, match="row 20, after: mask RLE covers 10 pixels, expected 3 x 3 = 9"
    ):
        areas_of(pairs)


def test_nothing_to_compare() -> None:
    assert areas_of([]).iou.shape == (0,)
