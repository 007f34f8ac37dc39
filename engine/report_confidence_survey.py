"""One pass over a commit for its report on confidence: sums, histograms, and boxes to show.

Memory is flat: of the boxes only the few that will be shown are remembered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.confidence.outputs import Bools, Floats, Output
from engine.report_confidence_rows import ConfidenceRows, Ints, confidence_rows
from engine.report_rows import DROPPED, KEPT, UNJUDGED
from manifests.dataset import Dataset
from manifests.in_parallel import in_parallel, threads_for

NUM_BINS = 50
TILES_PER_SHEET = 18
MAX_PER_IMAGE = 2

BEST_KEPT, WORST_KEPT = "best_kept", "worst_kept"
BEST_DROPPED, DISAGREE = "best_dropped", "disagree"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRef:
    """One box of a contact sheet, and the masks to draw on it.

    Attributes:
        row: in the shard's `boxes`.
        outputs: one mask, or two to be compared.
        confidence: of each of them.
        outcome: KEPT, DROPPED or UNJUDGED; empty: it does not matter here.
        teachers_iou: of the two masks with each other.
    """

    shard_number: int
    shard: str
    row: int
    category: str
    outputs: tuple[Output, ...]
    confidence: tuple[float, ...]
    outcome: str = ""
    reason: str | None = None
    teachers_iou: float | None = None


@dataclass(slots=True, kw_only=True)
class CategoryConfidence:
    """Sums over the boxes of one category.

    Attributes:
        num_rows: boxes with a confidence and no human mask; `num_kept` are of those.
        kept_sum: of the kept ones' confidence.
    """

    name: str
    num_boxes: int = 0
    num_human: int = 0
    num_rows: int = 0
    num_kept: int = 0
    kept_sum: float = 0.0

    @property
    def expected_mean_iou(self) -> float | None:
        """Of the kept ones."""
        return self.kept_sum / self.num_kept if self.num_kept else None


@dataclass(slots=True)
class ConfidenceSurvey:
    """What was seen so far.

    Attributes:
        own: teacher -> [NUM_BINS] masks of its own choice by their confidence.
        judged: outcome -> the same of the masks that verdicts speak of.
        sheets: sheet -> its boxes, the most extreme first.
        num_without: boxes without any confidence.
    """

    categories: dict[str, CategoryConfidence] = field(default_factory=dict)
    own: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    judged: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    num_without: int = 0
    _heaps: dict[str, list[tuple[float, int, int, BoxRef]]] = field(default_factory=dict)

    @property
    def sheets(self) -> dict[str, list[BoxRef]]:
        """In the order in which they are shown."""
        names = (BEST_KEPT, WORST_KEPT, BEST_DROPPED, DISAGREE)
        return {name: [e[-1] for e in self._heaps[name]] for name in names if name in self._heaps}

    @property
    def num_rows(self) -> int:
        """Boxes with a confidence and no human mask."""
        return sum(category.num_rows for category in self.categories.values())

    @property
    def num_kept(self) -> int:
        """Of those."""
        return sum(category.num_kept for category in self.categories.values())

    def add(self, number: int, shard: str, rows: ConfidenceRows) -> None:
        """Counts a shard and remembers its most extreme boxes."""
        _count_categories(self.categories, rows)
        self.num_without += int(np.isnan(rows.best).sum())
        for teacher, values in rows.own.items():
            self.own[teacher] = self.own.get(teacher, 0) + _histogram(values)
        for outcome, mine in _outcomes(rows).items():
            counts = _histogram(rows.confidence[mine])
            self.judged[outcome] = self.judged.get(outcome, 0) + counts
        for name, found in _extremes(number, shard, rows):
            pool = [*self._heaps.get(name, []), *found]
            self._heaps[name] = heapq.nsmallest(TILES_PER_SHEET, pool, key=lambda entry: entry[:3])


def survey_confidence(dataset: Dataset) -> ConfidenceSurvey:
    """Reads the small columns of every shard. Raises as `confidence_rows`."""
    found = ConfidenceSurvey()
    shards = dataset.manifest.shards()
    work = partial(confidence_rows, dataset)
    results = in_parallel(work, shards, num_threads=threads_for(dataset.store))
    for number, (shard, rows) in enumerate(zip(shards, results, strict=True)):
        if rows is not None and len(rows.best):
            found.add(number, shard, rows)
    return found


def _outcomes(rows: ConfidenceRows) -> dict[str, Bools]:
    """Outcome -> [N] rows whose teacher's mask had it."""
    there = np.isfinite(rows.confidence)
    if rows.keep is None:
        return {UNJUDGED: there}
    return {KEPT: there & rows.keep, DROPPED: there & ~rows.keep}


def _histogram(values: Floats) -> NDArray[np.int64]:
    counts, _ = np.histogram(values[np.isfinite(values)], bins=NUM_BINS, range=(0.0, 1.0))
    return counts.astype(np.int64)


def _count_categories(categories: dict[str, CategoryConfidence], rows: ConfidenceRows) -> None:
    names = rows.categories.dictionary.to_pylist()
    codes = np.asarray(rows.categories.indices).astype(np.int64)
    scored = np.isfinite(rows.best) & ~rows.has_human
    kept = scored & np.isfinite(rows.confidence)
    kept &= False if rows.keep is None else rows.keep
    sums = np.bincount(codes[kept], rows.confidence[kept].astype(np.float64), len(names))
    counts = {
        "num_boxes": np.bincount(codes, minlength=len(names)),
        "num_human": np.bincount(codes[rows.has_human], minlength=len(names)),
        "num_rows": np.bincount(codes[scored], minlength=len(names)),
        "num_kept": np.bincount(codes[kept], minlength=len(names)),
    }
    for place, name in enumerate(names):
        category = categories.setdefault(name, CategoryConfidence(name=name))
        for attribute, numbers in counts.items():
            setattr(category, attribute, getattr(category, attribute) + int(numbers[place]))
        category.kept_sum += float(sums[place])


def _extremes(
    number: int, shard: str, rows: ConfidenceRows
) -> Iterator[tuple[str, list[tuple[float, int, int, BoxRef]]]]:
    """Sheet -> the shard's entries: what it is sorted by, order of equals, and the box."""
    ties = _shuffled(number, rows.image_rows)
    outcomes = _outcomes(rows)
    for name, outcome, sign in (
        (BEST_KEPT, KEPT, -1), (WORST_KEPT, KEPT, 1), (BEST_DROPPED, DROPPED, -1),
        (BEST_KEPT, UNJUDGED, -1), (WORST_KEPT, UNJUDGED, 1),
    ):  # fmt: skip
        if outcome in outcomes:
            places = _first(sign * rows.confidence, ties, rows.image_rows, outcomes[outcome])
            refs = [_judged_ref(number, shard, rows, place, outcome) for place in places]
            yield (
                name,
                [(sign * ref.confidence[0], int(ties[ref.row]), number, ref) for ref in refs],
            )
    yield DISAGREE, _disagreeing(number, shard, rows, ties)


def _disagreeing(
    number: int, shard: str, rows: ConfidenceRows, ties: Ints
) -> list[tuple[float, int, int, BoxRef]]:
    """Where the two most trusted of the teachers' own choices have least in common.

    Not any two: that a weak teacher draws something else is no news.
    """
    if not rows.own_iou:
        return []
    teachers = sorted(rows.own)
    values = np.nan_to_num(np.stack([rows.own[name] for name in teachers], axis=1), nan=-1.0)
    order = np.argsort(-values, axis=1, kind="stable")
    lowest = np.full(len(values), np.nan, np.float32)
    for (a, b), iou in rows.own_iou.items():
        first, second = teachers.index(a), teachers.index(b)
        mine = np.sort(order[:, :2], axis=1) == [first, second]
        lowest = np.where(mine.all(axis=1), iou, lowest)
    found = []
    for place in _first(lowest, ties, rows.image_rows, np.isfinite(lowest)):
        pair = [teachers[n] for n in order[place, :2]]
        ref = BoxRef(
            shard_number=number, shard=shard, row=place, category=_category(rows, place),
            outputs=tuple(Output(teacher=name, candidate=0) for name in pair),
            confidence=tuple(float(rows.own[name][place]) for name in pair),
            teachers_iou=float(lowest[place]),
        )  # fmt: skip
        found.append((float(lowest[place]), int(ties[place]), number, ref))
    return found


def _first(scores: Floats, ties: Ints, image_rows: Ints, wanted: Bools) -> list[int]:
    """The rows of the lowest scores, few of each image: images lie in one shard as a whole."""
    rows = np.flatnonzero(wanted)
    order = rows[np.lexsort((ties[rows], scores[rows]))]
    of_image: dict[int, int] = {}
    found: list[int] = []
    for row in order.tolist():
        image = int(image_rows[row])
        of_image[image] = of_image.get(image, 0) + 1
        if of_image[image] <= MAX_PER_IMAGE:
            found.append(row)
        if len(found) == TILES_PER_SHEET:
            break
    return found


def _judged_ref(number: int, shard: str, rows: ConfidenceRows, place: int, outcome: str) -> BoxRef:
    return BoxRef(
        shard_number=number, shard=shard, row=place, category=_category(rows, place),
        outputs=(rows.outputs[rows.judged[place]],),
        confidence=(float(rows.confidence[place]),), outcome=outcome,
        reason=rows.reasons[place].as_py(),
    )  # fmt: skip


def _category(rows: ConfidenceRows, place: int) -> str:
    return str(rows.categories[place].as_py())


def _shuffled(number: int, image_rows: Ints) -> Ints:
    """[N] an order of equals that favours no end of a shard, and is the same each time."""
    return ((image_rows + 7919 * number) * 2654435761) % 2**32
