"""Masks against an independent decoder, and foreign input that must not end the process."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from manifests import rle
from manifests.errors import InputError

_SIZES = st.tuples(st.integers(1, 9), st.integers(1, 13))
_MASKS = _SIZES.flatmap(lambda size: hnp.arrays(np.bool_, size))


def _runs_of(mask: np.ndarray) -> list[int]:
    """Column by column, background first."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def _paint(runs: list[int], size_hw: tuple[int, int]) -> np.ndarray:
    flat = [index % 2 for index, run in enumerate(runs) for _ in range(run)]
    return np.array(flat, np.uint8).reshape(size_hw[1], size_hw[0]).T


def _number(value: int) -> bytes:
    """One number of a count string, written digit by digit."""
    chars = []
    while True:
        digit, value = value & 31, value >> 5
        last = value == (-1 if digit & 16 else 0)
        chars.append(48 + digit + (0 if last else 32))
        if last:
            return bytes(chars)


def _counts(runs: list[int]) -> bytes:
    deltas = [run - runs[index - 2] if index > 2 else run for index, run in enumerate(runs)]
    return b"".join(_number(delta) for delta in deltas)


def _grown(mask: np.ndarray) -> np.ndarray:
    """Every pixel that touches the mask, also at a corner."""
    rolled = [np.roll(mask, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.any(rolled, axis=0)


def _check_without_pixels() -> None:
    rle.check(b"06", size_hw=(0, 6))


def _from_endless_polygon() -> bytes | None:
    return rle.from_segmentation([[0, 0, 9e6, 9e6, 0, 9e6] * 200], size_hw=(2, 3))


class TestRoundTrip:
    @given(_MASKS)
    def test_encode_then_decode(self, mask: np.ndarray) -> None:
        counts = rle.encode(mask)
        size = mask.shape
        rle.check(counts, size_hw=size)
        assert np.array_equal(rle.decode(counts, size_hw=size), mask)
        assert rle.runs_from_counts(counts).tolist() == _runs_of(mask)
        assert counts == _counts(_runs_of(mask))
        assert rle.area(counts, size_hw=size) == mask.sum()
        assert rle.encode(np.asfortranarray(mask)) == rle.encode(mask.astype(np.int64)) == counts

    @given(_MASKS)
    def test_box_is_tight(self, mask: np.ndarray) -> None:
        box = rle.box_xyxy(rle.encode(mask), size_hw=mask.shape)
        ys, xs = np.nonzero(mask)
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert box.tolist() == expected

    def test_a_matrix_of_ious_is_made_of_pairs(self) -> None:
        rng = np.random.default_rng(4)
        masks = [rle.encode(rng.random((9, 7)) < share) for share in (0.0, 0.2, 0.5, 0.9)]
        found = rle.iou_matrix(masks, masks[1:], size_hw=(9, 7))
        for row, a in enumerate(masks):
            for column, b in enumerate(masks[1:]):
                assert found[row, column] == rle.paired_iou(a, b, size_hw=(9, 7))
        assert rle.iou_matrix([], masks, size_hw=(9, 7)).shape == (0, 4)

    @given(_SIZES.flatmap(lambda size: st.tuples(*[hnp.arrays(np.bool_, size)] * 2)))
    def test_paired_iou_counts_pixels(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        a, b = pair
        union = (a | b).sum()
        expected = (a & b).sum() / union if union else 0.0
        found = rle.paired_iou(rle.encode(a), rle.encode(b), size_hw=a.shape)
        assert found == pytest.approx(expected)

    def test_columns_come_first(self) -> None:
        mask = np.zeros((2, 3), np.uint8)
        mask[0, 1] = 1  # third pixel when read by columns, second when read by rows
        assert rle.runs_from_counts(rle.encode(mask)).tolist() == [2, 1, 3]

    @given(st.lists(st.integers(0, 2**31 - 1), max_size=12))
    @example([2**31 - 1, 0, 2**31 - 1, 0, 0])
    def test_runs_of_any_size(self, runs: list[int]) -> None:
        assert rle.runs_from_counts(_counts(runs)).tolist() == runs

    def test_large_mask(self) -> None:
        mask = np.zeros((3000, 4001), np.uint8)
        mask[5:2990, 7:3999] = 1
        counts = rle.encode(mask)
        rle.check(counts, size_hw=mask.shape)
        assert rle.area(counts, size_hw=mask.shape) == 2985 * 3992


class TestCheck:
    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            (b"", "covers 0 pixels, expected 2 x 3 = 6"),
            (_counts([5]), "covers 5 pixels"),
            (_counts([3, 4]), "covers 7 pixels"),
            (_counts([2, 1, 3, 6]), "covers 12 pixels"),
            (_counts([8, -2]), "negative run"),
            (_counts([1, 1, 1, 1]) + _number(-9), "negative run"),
            (_number(2**30), "covers 1073741824 pixels"),
            (_counts([2**32]), "covers 4294967296 pixels"),
            (_counts([2**32 + 6]), "covers 4294967302 pixels"),
            (_number(2**34 - 1) * 400, "covers"),
            (_number(2**36), "a number that no image needs"),
            (b"o" * 500 + b"0", "a number that no image needs"),
            (b"o", "ends in the middle of a number"),
            (_counts([6])[:-1] + b"o", "ends in the middle of a number"),
            (b"\x00", "outside COCO's alphabet"),
            (b"6 ", "outside COCO's alphabet"),
            (b"6\xff", "outside COCO's alphabet"),
            ("é".encode(), "outside COCO's alphabet"),
        ],
    )
    def test_refuses(self, counts: bytes, message: str) -> None:
        with pytest.raises(InputError, match=message):
            rle.check(counts, size_hw=(2, 3))

    @pytest.mark.parametrize("size_hw", [(0, 0), (0, 6), (6, 0), (-2, -3)])
    def test_refuses_an_image_without_pixels(self, size_hw: tuple[int, int]) -> None:
        with pytest.raises(InputError, match="expected an image with pixels"):
            rle.check(_counts([6]), size_hw=size_hw)

    @given(st.binary(max_size=40))
    def test_accepts_only_what_covers_the_image(self, counts: bytes) -> None:
        try:
            rle.check(counts, size_hw=(4, 5))
        except InputError:
            return
        runs = rle.runs_from_counts(counts)
        assert runs.min() >= 0
        assert np.array_equal(rle.decode(counts, size_hw=(4, 5)), _paint(runs.tolist(), (4, 5)))

    @given(st.binary(min_size=1, max_size=60).map(lambda raw: bytes(48 + c % 64 for c in raw)))
    def test_any_string_of_the_alphabet(self, counts: bytes) -> None:
        try:
            rle.check(counts, size_hw=(4, 5))
        except InputError as error:
            assert "mask RLE" in f"{error}"  # noqa: PT017

    @pytest.mark.parametrize(
        ("call", "use"),
        [
            ("toBbox({'size': [0, 6], 'counts': b'06'})", _check_without_pixels),
            ("frPyObjects([[0, 0, 9e6, 9e6, 0, 9e6] * 200], 2, 3)", _from_endless_polygon),
        ],
    )
    def test_what_ends_pycocotools_is_refused_first(
        self, call: str, use: Callable[[], object]
    ) -> None:
        """maskApi gets the same, in a process that may die and may not take all memory."""
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); "
            f"from pycocotools import mask; mask.{call}"
        )
        done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        assert done.returncode < 0, "pycocotools survives this now: the check may go"
        with pytest.raises(InputError):
            use()


class TestSegmentation:
    @pytest.mark.parametrize("nothing", [None, [], {}])
    def test_none(self, nothing: object) -> None:
        assert rle.from_segmentation(nothing, size_hw=(2, 3)) is None

    @given(_MASKS)
    def test_every_kind_of_rle(self, mask: np.ndarray) -> None:
        size, counts = [*mask.shape], rle.encode(mask)
        for given_counts in (_runs_of(mask), counts.decode()):
            segmentation = {"size": size, "counts": given_counts}
            assert rle.from_segmentation(segmentation, size_hw=mask.shape) == counts

    @given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
    def test_empty_runs_are_removed(self, runs: list[int]) -> None:
        """maskApi stops early at two empty runs and gives boxes of 2**32 pixels at others."""
        if not sum(runs):
            return
        size_hw = (1, sum(runs))
        mask = _paint(runs, size_hw)
        for counts in (runs, _counts(runs).decode()):
            found = rle.from_segmentation({"size": [*size_hw], "counts": counts}, size_hw=size_hw)
            assert found == rle.encode(mask)

    @pytest.mark.parametrize(
        ("segmentation", "message"),
        [
            (7, "expected polygons or RLE, got int"),
            ("text", "expected polygons or RLE, got str"),
            (True, "expected polygons or RLE, got bool"),
            ({"counts": [6]}, r"expected size \[2, 3\], got None"),
            ({"size": [3, 2], "counts": [6]}, r"expected size \[2, 3\], got \[3, 2\]"),
            ({"size": "23", "counts": [6]}, "expected size"),
            ({"size": [2, 3]}, "counts as list or string, got NoneType"),
            ({"size": [2, 3], "counts": 6}, "counts as list or string, got int"),
            ({"size": [2, 3], "counts": b"6"}, "counts as list or string, got bytes"),
            ({"size": [2, 3], "counts": []}, "covers 0 pixels, expected 2 x 3 = 6"),
            ({"size": [2, 3], "counts": [5]}, "covers 5 pixels"),
            ({"size": [2, 3], "counts": [6, 6]}, "covers 12 pixels"),
            ({"size": [2, 3], "counts": [-1, 7]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": [2.0, 4.0]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": [True, 5]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": [None]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": [10**400]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": [2**64 + 6]}, "integers from 0 to 6"),
            ({"size": [2, 3], "counts": "é6"}, "not ASCII"),
            ({"size": [2, 3], "counts": "\ud800"}, "not ASCII"),
            ({"size": [2, 3], "counts": ""}, "covers 0 pixels"),
            ([1, 2, 3, 4, 5, 6], "flat list of x, y pairs"),
            ([[]], "at least 3 points, got 0"),
            ([[0, 0, 1, 1]], "at least 3 points, got 2"),
            ([[0, 0, 1, 1, 2]], "flat list of x, y pairs"),
            ([[0, 0, 1, 1, 2, 0], {}], "flat list of x, y pairs"),
            ([["a", 0, 1, 1, 2, 0]], "expected numbers"),
            ([["1", "0", "1", "1", "2", "0"]], "expected numbers"),
            ([[None, 0, 1, 1, 2, 0]], "expected numbers"),
            ([[10**400, 0, 1, 1, 2, 0]], "expected finite numbers"),
            ([[[0, 0], [1, 1], [2, 2], [3, 3]]], "expected numbers"),
            ([[math.nan, 0, 1, 1, 2, 0]], "finite numbers"),
            ([[math.inf, 0, 1, 1, 2, 0]], "finite numbers"),
            ([[1e300, 0, 1, 1, 2, 0]], "an outline of at most"),
            ([[1e9, 1e9, 1e9, 1e9 + 1, 1e9 + 1, 1e9]], "an outline of at most"),
            ([[0, 0, 5000, 5000] * 1000], "an outline of at most"),
        ],
    )
    def test_refuses(self, segmentation: object, message: str) -> None:
        with pytest.raises(InputError, match=message):
            rle.from_segmentation(segmentation, size_hw=(2, 3))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=8)
                | st.fixed_dictionaries({"size": st.just([2, 3]), "counts": inner})
            ),
            max_leaves=12,
        )
    )
    def test_any_json_is_a_mask_or_an_error(self, segmentation: object) -> None:
        try:
            counts = rle.from_segmentation(segmentation, size_hw=(2, 3))
        except InputError:
            return
        if counts is not None:
            rle.check(counts, size_hw=(2, 3))

    @pytest.mark.parametrize(
        "points",
        [
            [(-10, 0), (10, 0), (10, 20)],
            [(-10, -10), (30, -10), (30, 30), (-10, 30)],
            [(7, -9), (25, 5), (7, 18), (-9, 5)],
            [(-15, 3), (30, 3), (30, 6), (-15, 6)],
            [(3, -15), (9, -15), (9, 30), (20, 30), (20, 4), (3, 4)],
        ],
    )
    def test_polygon_that_leaves_the_image_is_cut_there(
        self, points: list[tuple[int, int]]
    ) -> None:
        """As the same polygon amid a larger image, but for one pixel: maskApi rounds to zero."""
        height, width, margin = 10, 14, 20
        flat = [float(value) for point in points for value in point]
        counts = rle.from_segmentation([flat], size_hw=(height, width))
        moved = [value + margin for value in flat]
        (large,) = coco_mask.frPyObjects([moved], height + 2 * margin, width + 2 * margin)
        inside = coco_mask.decode(large).astype(bool)
        assert counts is not None
        rle.check(counts, size_hw=(height, width))
        found = rle.decode(counts, size_hw=(height, width)).astype(bool)
        assert not (found & ~_grown(inside)[margin:-margin, margin:-margin]).any()
        assert not (~found & ~_grown(~inside)[margin:-margin, margin:-margin]).any()

    def test_polygons_are_united(self) -> None:
        left, right = [0, 0, 4, 0, 4, 8, 0, 8], [6, 0, 10, 0, 10, 8, 6, 8]
        counts = rle.from_segmentation([left, right], size_hw=(8, 12))
        expected = np.zeros((8, 12), np.uint8)
        expected[:, 0:4] = expected[:, 6:10] = 1
        assert counts == rle.encode(expected)

    def test_polygon_outside_is_an_empty_mask(self) -> None:
        counts = rle.from_segmentation([[50, 50, 60, 50, 60, 60]], size_hw=(8, 12))
        assert counts is not None
        assert rle.area(counts, size_hw=(8, 12)) == 0
