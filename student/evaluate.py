"""The flow of `maskmill evaluate`: a student's masks beside people's, as numbers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.settings import did_you_mean
from student.evaluation.forward import placed_bytes, placed_outputs
from student.evaluation.image_output import SegmentOptions
from student.evaluation.judge import Judge
from student.evaluation.result import Evaluation
from student.evaluation.taught_images import taught_images
from student.evaluation.truth import HumanTruth, TrueImage

if TYPE_CHECKING:
    from student.checkpoint import Student

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What is judged, and how.

    Attributes:
        skip_images: leave out the first so many of the commit's images.
        max_images: of those that follow; 0: all. Both count as `SourceConfig` does.
        batch: images in the network at once.
        stuff: categories whose panoptic segments are one in each image.
        segments: thresholds; its `merged` is made of `stuff`.
    """

    skip_images: int = 0
    max_images: int = 0
    batch: int = 4
    stuff: tuple[str, ...] = ()
    segments: SegmentOptions = field(default_factory=SegmentOptions)

    def __post_init__(self) -> None:
        for name, least in (("skip_images", 0), ("max_images", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"evaluate: expected {name} of at least {least}, got {getattr(self, name)}"
                )


def evaluate(
    student: Student,
    dataset: Dataset,
    options: EvaluateOptions,
    *,
    device: str = "cpu",
    on_image: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Asks the student for all of the commit's categories in each image with human masks.

    Args:
        student: its network is on `device`.
        dataset: the commit.
        options: see there.
        device: as torch names it.
        on_image: called with the number of images judged so far.

    Raises:
        InputError: the commit has no human masks, or none among these images.
        ObjectMissingError, ObjectDamagedError: the store has lost something.
    """
    categories = tuple(category.name for category in dataset.commit.categories)
    first, most = options.skip_images, options.max_images or sys.maxsize
    truth = HumanTruth(dataset, categories, range(first, min(first + most, sys.maxsize)))
    judge = Judge(categories, segment_options(options, categories))
    vectors = student.texts.vectors(categories)  # [K, E]
    num_judged = 0
    for images in _in_batches(truth, options.batch):
        side = student.config.data.image_side
        placed = [
            placed_bytes(image.data, size_hw=image.truth.size_hw, side=side) for image in images
        ]
        outputs = placed_outputs(student, placed, vectors, device=device)
        for image, (output, num_learnable) in zip(images, outputs, strict=True):
            judge.add(image, output, num_learnable=num_learnable)
            num_judged += 1
            on_image(num_judged)
    if not num_judged:
        raise InputError(
            f"none of these images of commit {dataset.commit_id[:12]} has a human mask (skip_images"
            f" {options.skip_images}, max_images {options.max_images}); take others"
        )
    log.info("judged %s images of commit %s", num_judged, dataset.commit_id[:12])
    return judge.result(
        student=student.commit_id,
        data=dataset.commit_id,
        taught=student.categories,
        taught_images=taught_images(student, dataset.store),
        left_out=truth.left_out(),
    )


def segment_options(options: EvaluateOptions, categories: Sequence[str]) -> SegmentOptions:
    """The numbers for segments, with stuff as the places of its categories.

    Raises:
        InputError: a category of `stuff` is not there; names the nearest.
    """
    unknown = [name for name in options.stuff if name not in categories]
    if unknown:
        raise InputError(
            f"stuff: '{unknown[0]}' is no category; {did_you_mean(unknown[0], categories)}"
        )
    merged = frozenset(categories.index(name) for name in options.stuff)
    return replace(options.segments, merged=merged)


def _in_batches(images: HumanTruth, size: int) -> Iterator[list[TrueImage]]:
    iterator = iter(images)
    while batch := list(islice(iterator, size)):
        yield batch
