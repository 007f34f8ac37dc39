"""Masks to polygons, without loss: rings along pixel edges, with holes cut open by bridges.

A pixel (row y, column x) is the square (x, y)-(x + 1, y + 1), so vertices are integers. Foreground
is 4-connected: parts that touch at a corner are separate rings, and no ring crosses itself. COCO
and YOLO know no holes, so a hole is tied to the ring around it by an edge that is walked there and
back; even-odd filling, which pycocotools uses, never sees it.

Legend: [K] horizontal boundary segments, each from corner to corner with foreground on its right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import rle

Points = NDArray[np.int64]
"""[N, 2] x, y; the last vertex is joined to the first."""


def polygons_from_rle(counts: bytes, *, size_hw: tuple[int, int]) -> list[Points]:
    """The rings of a mask, in image coordinates; see `polygons_from_mask`."""
    x0, y0, x1, y1 = rle.box_xyxy(counts, size_hw=size_hw).astype(np.int64).tolist()
    crop = rle.decode(counts, size_hw=size_hw)[y0:y1, x0:x1]
    return [points + np.array([x0, y0]) for points in polygons_from_mask(crop)]


def polygons_from_mask(mask: NDArray[np.uint8]) -> list[Points]:
    """One clockwise ring for each 4-connected part, its holes bridged in; [] for an empty mask.

    Args:
        mask: [H, W] of 0 and 1.

    Returns:
        Rings from top to bottom. Filled together by the even-odd rule they are the mask again.
    """
    padded = np.pad(mask.astype(np.int8), 1)
    segments = _horizontal_segments(padded)
    if not segments.row.size:
        return []
    rings = _cycles(_following(segments, padded))
    ring_of = np.zeros(segments.row.size, dtype=np.int64)
    for number, ring in enumerate(rings):
        ring_of[ring] = number
    areas = [_twice_area(segments.points(ring)) for ring in rings]
    holes = [number for number, area in enumerate(areas) if area < 0]
    splices = _splices(segments, padded, rings, holes) if holes else {}
    return [
        _without_repeats(_walk(segments, ring, splices))
        for ring, area in zip(rings, areas, strict=True)
        if area > 0
    ]


def join_rings(rings: list[Points]) -> Points:
    """All rings as one: from each to the next over a tie of no width, and the same way back.

    For formats with one ring an object (YOLO). Even-odd filling gives the same mask again.

    Raises:
        ValueError: there are no rings.
    """
    if not rings:
        raise ValueError("expected at least one ring, got none")
    way_out: list[Points] = []
    way_back: list[Points] = []
    entry = 0
    for ring, following in zip(rings, [*rings[1:], rings[-1]], strict=True):
        turned = np.roll(ring, -entry, axis=0)
        leave = _nearest(turned, following[0])
        entry = _nearest(following, turned[leave])
        way_out.append(turned[: leave + 1])
        way_back.append(np.concatenate([turned[leave:], turned[:1]]))
    return _without_repeats(np.concatenate([*way_out, *reversed(way_back)]))


def _nearest(points: Points, target: NDArray[np.int64]) -> int:
    return int(((points - target) ** 2).sum(axis=1).argmin())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segments:
    """[K] horizontal segments on line `row` from x `start` to x `end`, sorted by row, then x."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def points(self, ring: list[int]) -> Points:
        """[2N, 2] both ends of each segment, in the order of the ring."""
        x = np.stack([self.start[ring], self.end[ring]], axis=1).ravel()
        return np.stack([x, np.repeat(self.row[ring], 2)], axis=1)


def _horizontal_segments(padded: NDArray[np.int8]) -> _Segments:
    edges = np.diff(padded, axis=0)  # +1: foreground below, walked to the right; -1: to the left
    row, lo, hi, sign = _runs(edges)
    return _Segments(
        row=row, start=np.where(sign > 0, lo, hi) - 1, end=np.where(sign > 0, hi, lo) - 1
    )


def _runs(lines: NDArray[np.int8]) -> tuple[NDArray[np.int64], ...]:
    """Runs of one non-zero value along each line: (line, first, one past the last, value)."""
    change = np.diff(lines, axis=1, prepend=0, append=0) != 0
    row, at = np.nonzero(change)
    value = np.append(lines, np.zeros((lines.shape[0], 1), np.int8), axis=1)[row, at]
    first = np.flatnonzero(value)
    return row[first], at[first], at[first + 1], value[first].astype(np.int64)


def _following(segments: _Segments, padded: NDArray[np.int8]) -> NDArray[np.int64]:
    """[K] the horizontal segment that follows each one, over the vertical one between them.

    Where two parts touch at a corner, two ways lead on; the right turn stays on the same part.
    """
    edges = np.diff(padded, axis=1).T  # -1: foreground to the left, walked down; +1: up
    column, lo, hi, sign = _runs(np.ascontiguousarray(edges))
    down = sign < 0
    top, bottom = lo - 1, hi - 1
    v_start, v_end = np.where(down, top, bottom), np.where(down, bottom, top)
    corners = _Corners(padded)
    right = segments.end > segments.start
    leaving = corners.key(segments.end, segments.row, side=right)
    by_start = np.argsort(corners.key(column, v_start, side=down))
    arriving = corners.key(column, v_end, side=down)
    by_left = np.argsort(corners.key(segments.start, segments.row, side=~right))
    # Both sides list the same corners, so the n-th smallest key of one is that of the other.
    vertical = np.empty(leaving.size, dtype=np.int64)
    vertical[np.argsort(leaving)] = by_start
    after = np.empty(arriving.size, dtype=np.int64)
    after[np.argsort(arriving)] = by_left
    following: NDArray[np.int64] = after[vertical]
    return following


class _Corners:
    """Numbers for vertices; one that two parts share has a number for each `side`."""

    def __init__(self, padded: NDArray[np.int8]) -> None:
        diagonal = padded[:-1, :-1] == padded[1:, 1:]
        crossed = padded[:-1, 1:] == padded[1:, :-1]
        self._shared = diagonal & crossed & (padded[:-1, :-1] != padded[:-1, 1:])

    def key(
        self, x: NDArray[np.int64], y: NDArray[np.int64], *, side: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        number: NDArray[np.int64] = (y * self._shared.shape[1] + x) * 2
        shared: NDArray[np.bool_] = self._shared[y, x] & side
        return number + shared


def _cycles(following: NDArray[np.int64]) -> list[list[int]]:
    """The cycles of a permutation, by smallest member."""
    follow: list[int] = following.tolist()
    seen = bytearray(len(follow))
    cycles: list[list[int]] = []
    for first in range(len(follow)):
        if seen[first]:
            continue
        cycle, at = [], first
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = follow[at]
        cycles.append(cycle)
    return cycles


def _twice_area(points: Points) -> int:
    """Twice the enclosed area, positive for clockwise rings (y points down)."""
    x, y = points[:, 0], points[:, 1]
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


_Splices = dict[int, list[tuple[int, Points]]]
"""Segment -> (x, closed detour) for what hangs on it."""


def _splices(
    segments: _Segments, padded: NDArray[np.int8], rings: list[list[int]], holes: list[int]
) -> _Splices:
    """Ties each hole to the segment straight above its top left corner.

    Whatever is above a hole's top begins higher up, so ties never form a circle; from the lowest
    hole to the highest, each is complete when it is spliced into the next.
    """
    left = np.minimum(segments.start, segments.end)
    width = padded.shape[1]
    starts = np.array([rings[hole][0] for hole in holes])  # first by row, then x
    x, y = left[starts], segments.row[starts]
    ceiling = _ceilings(padded)[y, x + 1]  # the pixel above the vertex, in padded coordinates
    hit = np.searchsorted(segments.row * width + left, ceiling * width + x, side="right") - 1
    splices: _Splices = {}
    for n in np.lexsort((x, -y)).tolist():
        points = _walk(segments, rings[holes[n]], splices)
        corner = np.array([[x[n], y[n]]])
        first = int((points == corner).all(axis=1).argmax())
        top = np.array([[x[n], ceiling[n]]])
        detour = np.concatenate([top, points[first:], points[:first], corner, top])
        splices.setdefault(int(hit[n]), []).append((int(x[n]), detour))
    return splices


def _ceilings(padded: NDArray[np.int8]) -> NDArray[np.int64]:
    """For each foreground pixel of `padded`, the y of the line on top of its vertical run."""
    lines = np.arange(padded.shape[0], dtype=np.int64)[:, None]
    ceilings: NDArray[np.int64] = np.maximum.accumulate(np.where(padded == 0, lines, 0), axis=0)
    return ceilings


def _walk(segments: _Segments, ring: list[int], splices: _Splices) -> Points:
    """A ring's vertices with the detours that hang on its segments."""
    points = segments.points(ring)
    parts: list[Points] = []
    done = 0
    for position, segment in enumerate(ring):
        if segment not in splices:
            continue
        leftwards = bool(segments.end[segment] < segments.start[segment])
        hanging = sorted(splices[segment], key=lambda item: item[0], reverse=leftwards)
        middle = 2 * position + 1  # between the two ends of the segment
        parts += [points[done:middle], *(detour for _, detour in hanging)]
        done = middle
    return np.concatenate([*parts, points[done:]])


def _without_repeats(points: Points) -> Points:
    is_new: NDArray[np.bool_] = (points != np.roll(points, 1, axis=0)).any(axis=1)
    return points[is_new]
