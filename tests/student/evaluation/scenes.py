"""Random images with marked and found instances, for tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manifests import rle
from student.evaluation.instances import FoundInstances, TrueInstances

Masks = NDArray[np.bool_]


def true_of(
    masks: Sequence[Masks | None],
    categories: Sequence[int],
    *,
    is_crowd: Sequence[bool] | None = None,
    unjudged: frozenset[int] = frozenset(),
    size_hw: tuple[int, int] = (0, 0),
    boxes_xyxy: Sequence[Sequence[float]] | None = None,
) -> TrueInstances:
    """Marked instances; their boxes are the masks' own unless they are given."""
    drawn = [mask for mask in masks if mask is not None]
    size = drawn[0].shape if drawn else size_hw
    counts = tuple(None if mask is None else rle.encode(mask) for mask in masks)
    boxes = [
        rle.box_xyxy(one, size_hw=(size[0], size[1])) if one else np.zeros(4, np.float32)
        for one in counts
    ]
    return TrueInstances(
        size_hw=(size[0], size[1]),
        categories=np.array(categories, dtype=np.int64),
        boxes_xyxy=np.array(boxes_xyxy or boxes, dtype=np.float32).reshape(-1, 4),
        counts=counts,
        is_crowd=np.array(is_crowd or [False] * len(masks), dtype=bool),
        unjudged=unjudged,
    )


def found_of(
    masks: Sequence[Masks],
    categories: Sequence[int],
    scores: Sequence[float] | None = None,
    *,
    size_hw: tuple[int, int] = (0, 0),
) -> FoundInstances:
    """Found instances in their masks' own boxes; scores of 1 unless they are given."""
    size = masks[0].shape if len(masks) else size_hw
    counts = tuple(rle.encode(mask) for mask in masks)
    boxes = [rle.box_xyxy(one, size_hw=(size[0], size[1])) for one in counts]
    return FoundInstances(
        size_hw=(size[0], size[1]),
        categories=np.array(categories, dtype=np.int64),
        scores=np.array(scores if scores is not None else [1.0] * len(masks), dtype=np.float32),
        boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        counts=counts,
        queries=np.arange(len(masks)),
    )


def perfect(truth: TrueInstances) -> FoundInstances:
    """What a student would say that finds all that is no crowd."""
    rows = [
        row
        for row in range(len(truth))
        if not truth.is_crowd[row] and truth.counts[row] is not None
    ]
    return FoundInstances(
        size_hw=truth.size_hw,
        categories=truth.categories[rows],
        scores=np.ones(len(rows), dtype=np.float32),
        boxes_xyxy=truth.boxes_xyxy[rows],
        counts=tuple(truth.region(row) for row in rows),
        queries=np.arange(len(rows)),
    )


def nothing(truth: TrueInstances) -> FoundInstances:
    """What a student says that finds nothing."""
    return found_of([], [], size_hw=truth.size_hw)


def blob(size_hw: tuple[int, int], generator: np.random.Generator) -> Masks:
    """An ellipse somewhere, of 3 pixels to half the image across."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    middle = generator.uniform((0, 0), size_hw)
    half = generator.uniform(1.5, np.array(size_hw) / 4)
    mask: Masks = ((rows - middle[0]) / half[0]) ** 2 + ((columns - middle[1]) / half[1]) ** 2 <= 1
    mask[int(min(middle[0], size_hw[0] - 1)), int(min(middle[1], size_hw[1] - 1))] = True
    return mask


def near(mask: Masks, generator: np.random.Generator) -> Masks:
    """The same mask a few pixels away."""
    moved: Masks = np.roll(mask, generator.integers(-3, 4, size=2), axis=(0, 1))
    return moved if moved.any() else mask


def random_scene(
    seed: int,
    *,
    num_categories: int,
    size_hw: tuple[int, int] = (120, 150),
    with_crowds: bool = True,
) -> tuple[TrueInstances, FoundInstances]:
    """An image of up to 8 marked instances, most of them found somewhat shifted, and strays."""
    generator = np.random.default_rng(seed)
    num = int(generator.integers(0, 9))
    masks = [blob(size_hw, generator) for _ in range(num)]
    categories = generator.integers(0, num_categories, size=num).tolist()
    crowds = (generator.random(num) < (0.2 if with_crowds else 0)).tolist()
    truth = true_of(masks, categories, is_crowd=crowds, size_hw=size_hw)
    found, found_categories = [], []
    for mask, category in zip(masks, categories, strict=True):
        for _ in range(int(generator.integers(0, 3))):
            found.append(near(mask, generator))
            is_right = generator.random() < 0.8
            found_categories.append(
                category if is_right else int(generator.integers(num_categories))
            )
    for _ in range(int(generator.integers(0, 4))):
        found.append(blob(size_hw, generator))
        found_categories.append(int(generator.integers(num_categories)))
    # Different scores: the order of equal ones is nobody's promise.
    scores = generator.permutation(np.linspace(0.05, 0.95, max(len(found), 1)))[: len(found)]
    order = np.argsort(-scores)
    return truth, found_of(
        [found[row] for row in order],
        [found_categories[row] for row in order],
        (scores[order] + seed * 1e-5).tolist(),
        size_hw=size_hw,
    )
