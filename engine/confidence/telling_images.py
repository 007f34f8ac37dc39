"""Which images would teach a calibrator most: what a box is worth, and a choice without twins.

Legend: N boxes, M boxes of one image.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.confidence.open_images import Ints
from engine.confidence.outputs import Floats

_REACH = 0.3
"""An expected IoU this far from every bound is no open question any more."""
_LEAST = 0.05
"""What a box counts that is no open question, or has a place of its own: never nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImage:
    """An image that can be asked for, with its M boxes.

    Attributes:
        categories, cells, expected: [M] see `open_images.OpenImages`.
        worth: [M] what each box would teach, but for its category.
    """

    image_id: str
    shard: str
    categories: Sequence[str]
    cells: Sequence[int]
    expected: Floats
    worth: Floats


def openness(expected: Floats, bounds: Sequence[float]) -> Floats:
    """[N] from 1 at a bound down to little far from all of them; 1 where nothing is known."""
    distance = np.min([np.abs(expected - bound) for bound in bounds], axis=0)
    clipped: Floats = np.clip(1 - distance / _REACH, _LEAST, 1).astype(np.float32)
    return np.where(np.isnan(expected), np.float32(1), clipped)


def typicality(boxes_of_cell: Ints) -> Floats:
    """For each cell of the grid: 1 where most boxes are, by the root of their number elsewhere."""
    most = max(1, int(boxes_of_cell.max(initial=0)))
    typical: Floats = np.maximum(np.sqrt(boxes_of_cell / most), _LEAST).astype(np.float32)
    return typical


def rarity(num_gold: int) -> float:
    """What a category with so many gold boxes counts: an error falls with the root of their number.

    1 without any.
    """
    return float((1 + num_gold) ** -0.5)


def image_worth(
    image: OpenImage, gold: Mapping[str, int], alike: Mapping[tuple[str, int], int] | None = None
) -> float:
    """What the boxes would teach together, by the root of their number.

    People need a time for each image and a time for each box: by the mean, images with one box
    would always win, and by the sum those with most.

    Args:
        gold: category -> gold boxes.
        alike: (category, cell) -> boxes that were taken already.
    """
    taken = alike or {}
    factors = [
        rarity(gold.get(name, 0)) / (1 + taken.get((name, cell), 0))
        for name, cell in zip(image.categories, image.cells, strict=True)
    ]
    return float(np.sum(image.worth * np.array(factors)) / len(factors) ** 0.5)


def spread(pool: Iterable[OpenImage], gold: Mapping[str, int], count: int) -> list[OpenImage]:
    """Takes the best image, then the best of the others given that one, and so on.

    What is taken can only lower the worth of others, so one whose worth is still the highest when
    it is looked at again is the best of all: nothing else needs looking at.
    """
    taken, alike = Counter(gold), Counter[tuple[str, int]]()
    heap = [(-image_worth(image, taken), image.image_id, image) for image in pool]
    heapq.heapify(heap)
    chosen: list[OpenImage] = []
    while heap and len(chosen) < count:
        _, image_id, image = heapq.heappop(heap)
        now = -image_worth(image, taken, alike)
        if heap and (now, image_id) > heap[0][:2]:
            heapq.heappush(heap, (now, image_id, image))
            continue
        chosen.append(image)
        taken.update(image.categories)
        alike.update(zip(image.categories, image.cells, strict=True))
    return chosen


class Pool:
    """The images with the highest keys, in bounded memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, str, OpenImage]] = []
        self._ids: set[str] = set()

    def offer(self, key: float, image_id: str, make: Callable[[], OpenImage]) -> None:
        """Takes an image if its key is high enough. A picture that is in two shards comes once."""
        if not self._size or image_id in self._ids:
            return
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, image_id, make()))
        elif (key, image_id) > self._heap[0][:2]:
            _, gone, _ = heapq.heapreplace(self._heap, (key, image_id, make()))
            self._ids.discard(gone)
        else:
            return
        self._ids.add(image_id)

    def images(self) -> list[OpenImage]:
        """The highest first."""
        return [image for _, _, image in sorted(self._heap, key=lambda item: item[:2])[::-1]]
