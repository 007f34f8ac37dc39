"""Which images people should draw next: those that teach the calibrator and certificate most.

Two questions, so two ways to choose:

- Images of the role "certify" are drawn uniformly at random from all that can be asked for. A
  certificate says of all masks what a sample of them shows, and it holds for a random sample only:
  of images that were chosen because they are hard, or easy, it would say nothing about the rest.
  The order is a seeded digest of the image's id, so a second proposal goes on where the first
  ended, and all of them together are one random sample.
- Images of the role "calibrate" are chosen, by what their boxes would teach: an expected IoU close
  to the bound between good and bad (its decision is open), a place in the grid of signals where
  many boxes are (what is learnt there holds for many), a category with few gold boxes. Each image
  that is taken counts as gold for the next, and boxes like its own count less: no near duplicates.

Every image is looked at twice, a shard at a time; what is kept is a bounded heap.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from engine.confidence.best_masks import preferred_teachers
from engine.confidence.open_images import NUM_CELLS, Ints, OpenImages, read_open_images
from engine.confidence.outputs import Floats
from engine.confidence.proposed import Choice, ProposeConfig, ProposedImage
from engine.confidence.roles import (
    CALIBRATE,
    CERTIFY,
    DEFAULT_CERTIFY_SHARE,
    Role,
    certifies,
)
from engine.confidence.telling_images import (
    OpenImage,
    Pool,
    image_worth,
    openness,
    rarity,
    spread,
    typicality,
)
from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.history import newest
from manifests.in_parallel import in_parallel, threads_for

IOU_BOUND = 0.7
"""From this IoU on a mask counts as good."""

_BY_CHANCE = "drawn at random, so that the certificate holds for all images"
_POOL = 50
"""Images that are looked at more closely, for each that is wanted."""
_MIN_POOL = 2000


@dataclass(slots=True, kw_only=True)
class _Survey:
    """What must be known of all images before one can be judged."""

    boxes_of_cell: Ints = field(default_factory=lambda: np.zeros(NUM_CELLS, dtype=np.int64))
    gold: Counter[str] = field(default_factory=Counter)
    num_with_gold: int = 0
    num_quarantined: int = 0
    num_without_boxes: int = 0

    def add(self, found: OpenImages) -> None:
        self.boxes_of_cell += np.bincount(found.cells, minlength=NUM_CELLS)
        self.gold.update(found.gold)
        self.num_with_gold += found.num_with_gold
        self.num_quarantined += found.num_quarantined
        self.num_without_boxes += found.num_without_boxes


def choose(dataset: Dataset, config: ProposeConfig) -> Choice:
    """Chooses images to be drawn by people.

    Raises:
        InputError: the commit has no boxes, or no image is left that could be asked for.
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    if not any(cell.num_rows for cell in dataset.manifest.of_layer(schemas.BOXES)):
        raise InputError(
            f"commit {dataset.commit_id[:12]} has no boxes, so there is nothing that people could "
            "draw; run 'maskmill ingest' first"
        )
    teachers, survey = preferred_teachers(dataset), _Survey()
    for found in _shards(dataset, teachers):
        survey.add(found)
    bounds, share = _bounds(dataset), _certify_share(dataset, config)
    pools = _Pools(config, bounds, share, survey)
    for found in _shards(dataset, teachers):
        pools.add(found)
    if not sum(pools.num_open.values()):
        raise InputError(
            f"commit {dataset.commit_id[:12]} has nothing to propose: {survey.num_with_gold:,} "
            f"images have human masks, {survey.num_quarantined:,} are quarantined and "
            f"{survey.num_without_boxes:,} have no box to draw; ingest more images"
        )
    return Choice(
        images=tuple(sorted(pools.chosen(), key=lambda proposed: proposed.image.image_id)),
        num_open=pools.num_open,
        num_with_gold=survey.num_with_gold,
        num_quarantined=survey.num_quarantined,
        num_without_boxes=survey.num_without_boxes,
        has_confidence=bool(dataset.manifest.of_layer(schemas.CONFIDENCE)),
        bounds=bounds,
        certify_share=share,
    )


def random_order(image_id: str, seed: int) -> int:
    """An image's place in the random order: the same on every machine, and of no meaning."""
    digest = hashlib.sha256(f"gold {seed} {image_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big")  # exact as a float


class _Pools:
    """The images that can still be chosen: the first of a random order, and the most telling."""

    def __init__(
        self, config: ProposeConfig, bounds: Sequence[float], share: float, survey: _Survey
    ) -> None:
        self._config, self._bounds, self._share = config, bounds, share
        self._gold, self._typical = survey.gold, typicality(survey.boxes_of_cell)
        self._random = Pool(config.count)
        self._telling = Pool(max(_MIN_POOL, _POOL * config.count))
        self.num_open: Counter[Role] = Counter()

    def add(self, found: OpenImages) -> None:
        """Looks at one shard's images."""
        is_certify = certifies(found.image_ids, self._share)
        num_certify = int(is_certify.sum())
        self.num_open.update({CERTIFY: num_certify, CALIBRATE: len(is_certify) - num_certify})
        worth = self._typical[found.cells] * openness(found.expected, self._bounds)
        scores = self._scores(found, worth)
        order = np.argsort(found.image_of, kind="stable")
        starts = np.searchsorted(found.image_of[order], np.arange(len(found.image_ids) + 1))
        for number, image_id in enumerate(found.image_ids):
            rows = order[starts[number] : starts[number + 1]]
            make = partial(_image, found, image_id, rows, worth)
            if is_certify[number]:
                self._random.offer(-random_order(image_id, self._config.seed), image_id, make)
            else:
                self._telling.offer(scores[number], image_id, make)

    def chosen(self) -> Iterator[ProposedImage]:
        """As many of each role as asked for; where one has too few, more of the other."""
        count = self._config.count
        wanted = count // 2 if self._config.num_certify is None else self._config.num_certify
        random, telling = self._random.images(), self._telling.images()
        num_certify = min(len(random), max(wanted, count - len(telling)))
        for image in random[:num_certify]:
            yield ProposedImage(image=image, role=CERTIFY, score=None, why=_BY_CHANCE)
        for image in spread(telling, self._gold, count - num_certify):
            yield ProposedImage(
                image=image,
                role=CALIBRATE,
                score=image_worth(image, self._gold),
                why=_why(image, self._gold, self._bounds),
            )

    def _scores(self, found: OpenImages, worth: Floats) -> list[float]:
        """[I] `image_worth` of all images of a shard at once, as long as nothing is taken."""
        words = {name: rarity(self._gold[name]) for name in set(found.categories)}
        weights = worth * np.array([words[name] for name in found.categories])
        size = len(found.image_ids)
        num_boxes = np.maximum(np.bincount(found.image_of, minlength=size), 1)
        scores: list[float] = (
            np.bincount(found.image_of, weights=weights, minlength=size) / num_boxes**0.5
        ).tolist()
        return scores


def _image(found: OpenImages, image_id: str, rows: Ints, worth: Floats) -> OpenImage:
    return OpenImage(
        image_id=image_id,
        shard=found.shard,
        categories=[found.categories[row] for row in rows],
        cells=found.cells[rows].tolist(),
        expected=found.expected[rows],
        worth=worth[rows],
    )


def _why(image: OpenImage, gold: Mapping[str, int], bounds: Sequence[float]) -> str:
    """What decided, in words."""
    known = image.expected[np.isfinite(image.expected)]
    what = f"nothing is known of its masks ({len(image.expected)})"
    if len(known):
        mean = float(np.mean(known))
        near = min(bounds, key=lambda bound: abs(mean - bound))
        what = f"expected IoU {mean:.2f} ({len(known)} masks), the bound is {near:.2f}"
    rarest = min(image.categories, key=lambda name: (gold.get(name, 0), name))
    return f"{what}; '{rarest}' has {gold.get(rarest, 0):,} gold boxes"


def _shards(dataset: Dataset, teachers: Sequence[str]) -> Iterator[OpenImages]:
    shards = [cell.shard for cell in dataset.manifest.of_layer(schemas.BOXES) if cell.num_rows]
    read = partial(read_open_images, dataset, teachers=teachers)
    yield from in_parallel(read, shards, num_threads=threads_for(dataset.store))


def _bounds(dataset: Dataset) -> tuple[float, ...]:
    """Where the newest filter's policy draws its line, and where a mask begins to be good."""
    last = newest(dataset.store, dataset.commit_id, lambda made: made.operation.name == "filter")
    quality = (last.commit.quality or {}) if last else {}
    good = float((quality.get("certificate") or {}).get("iou_bound", IOU_BOUND))
    threshold = quality.get("threshold")
    return (good,) if threshold is None else (float(threshold), good)


def _certify_share(dataset: Dataset, config: ProposeConfig) -> float:
    if config.certify_share is not None:
        return config.certify_share
    last = newest(dataset.store, dataset.commit_id, lambda made: made.operation.name == "calibrate")
    share = last.commit.operation.config.get("certify_share") if last else None
    return DEFAULT_CERTIFY_SHARE if share is None else float(share)
