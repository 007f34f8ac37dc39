"""Takes what a student says of one image after another, and says in the end how good it is."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from student.evaluation.ap import AveragePrecision, average_precision
from student.evaluation.image_output import ImageOutput, SegmentOptions
from student.evaluation.instances import FoundInstances, TrueInstances
from student.evaluation.panoptic import (
    PanopticQuality,
    match_segments,
    no_matches,
    panoptic_quality,
)
from student.evaluation.panoptic_segments import PanopticSegments, panoptic
from student.evaluation.referring import PhraseResult, phrase_result, referring_quality
from student.evaluation.result import CategoryResult, Evaluation, ImageResult, LearnableShares
from student.evaluation.segment_map import paint
from student.evaluation.segments import instances, pixels, referred
from student.evaluation.semantic import (
    ConfusionMatrix,
    ForegroundPixels,
    SemanticQuality,
    foreground_pixels,
    foreground_quality,
)
from student.evaluation.truth import LeftOut, TrueImage


class Judge:
    """Keeps RLEs and counts, never an image: its memory grows by some kB an image."""

    def __init__(self, categories: Sequence[str], options: SegmentOptions) -> None:
        """`categories` are the texts of every output, in this order; at least one."""
        self._categories, self._options = tuple(categories), options
        self._truths: list[TrueInstances] = []
        self._found: list[FoundInstances] = []
        self._pixels = ConfusionMatrix(len(categories))
        self._matches = no_matches(len(categories))
        self._foreground: list[ForegroundPixels] = []
        self._phrases: list[PhraseResult] = []
        self._images: list[ImageResult] = []
        # [learnable, all] of each kind of results.
        self._queries = {name: np.zeros(2, np.int64) for name in LearnableShares.__slots__}

    def add(self, image: TrueImage, output: ImageOutput, *, num_learnable: int) -> None:
        """Judges one image by all five tasks; `output` is in the frame of that image."""
        truth = image.truth
        found = instances(output, self._options)
        segments = panoptic(output, self._options)
        self._truths.append(truth)
        self._found.append(found)
        num_true = _num_true(truth)
        self._count("instances", found.queries[:num_true], num_learnable)
        self._count("segments", segments.queries, num_learnable)
        self._add_phrases(truth, output, num_learnable)
        self._add_pixels(image, output, segments, num_true)

    def result(
        self,
        *,
        student: str,
        data: str,
        taught: Sequence[str],
        taught_images: Set[str] | None,
        left_out: LeftOut,
    ) -> Evaluation:
        """Of all that was added.

        Args:
            student: the checkpoint's commit id.
            data: the commit's.
            taught: categories that the student was trained with.
            taught_images: ids of images that it was trained on; None: unknown.
            left_out: what was not judged.
        """
        num = len(self._categories)
        masks = average_precision(self._truths, self._found, num_categories=num)
        boxes = average_precision(self._truths, self._found, num_categories=num, kind="box")
        edges = average_precision(self._truths, self._found, num_categories=num, kind="boundary")
        segments = panoptic_quality(self._matches)
        labels = self._pixels.quality()
        foreground = foreground_quality(self._foreground)
        phrases = referring_quality(self._phrases)
        shares = {
            name: float(some / all_of) if all_of else None
            for name, (some, all_of) in self._queries.items()
        }
        return Evaluation(
            student=student,
            data=data,
            num_images=len(self._images),
            num_taught=None if taught_images is None else self._num_among(taught_images),
            num_true=sum(image.num_true for image in self._images),
            mask_ap=masks.ap,
            mask_ap50=masks.ap50,
            mask_ap75=masks.ap75,
            mask_small=masks.small,
            mask_medium=masks.medium,
            mask_large=masks.large,
            mask_recall=masks.recall,
            box_ap=boxes.ap,
            box_ap50=boxes.ap50,
            boundary_ap=edges.ap,
            boundary_ap50=edges.ap50,
            pq=segments.pq,
            sq=segments.sq,
            rq=segments.rq,
            miou=labels.mean_iou,
            pixel_accuracy=labels.pixel_accuracy,
            foreground_iou=foreground.iou,
            foreground_mean_iou=foreground.mean_iou,
            phrase_iou=phrases.mean_iou,
            phrase_overall_iou=phrases.overall_iou,
            phrase_precision_50=phrases.precision_50,
            num_phrases=phrases.num_phrases,
            learnable=LearnableShares(**shares),
            left_out=left_out,
            categories=self._by_category(set(taught), masks, boxes, edges, segments, labels),
            images=tuple(self._images),
        )

    def _num_among(self, image_ids: Set[str]) -> int:
        return sum(image.image_id in image_ids for image in self._images)

    def _add_pixels(
        self, image: TrueImage, output: ImageOutput, segments: PanopticSegments, num_true: int
    ) -> None:
        truth = image.truth
        painted, found = paint(truth), pixels(output, self._options)
        labels = painted.labels()
        self._pixels.add(labels, found.labels, unjudged=truth.unjudged)
        matches = match_segments(
            painted, segments.map, num_categories=len(self._categories), unjudged=truth.unjudged
        )
        self._matches += matches
        foreground = foreground_pixels(labels, found.labels, unjudged=truth.unjudged)
        self._foreground.append(foreground)
        self._images.append(
            ImageResult(
                image_id=image.image_id,
                file_name=image.file_name,
                place=image.place,
                pq=matches.quality(),
                foreground_iou=foreground.both / foreground.either if foreground.either else 1.0,
                num_true=num_true,
                num_segments=len(segments.queries),
            )
        )

    def _add_phrases(self, truth: TrueInstances, output: ImageOutput, num_learnable: int) -> None:
        """A category's name refers to its object where there is exactly one, and no crowd of it."""
        names, counts = np.unique(truth.categories, return_counts=True)
        for text in names[counts == 1].tolist():
            row = int(np.flatnonzero(truth.categories == text)[0])
            counts_of = truth.counts[row]
            if counts_of is None or truth.is_crowd[row] or text in truth.unjudged:
                continue
            found = referred(output, text)
            self._phrases.append(phrase_result(counts_of, found.counts, size_hw=truth.size_hw))
            self._count("phrases", np.array([found.query]), num_learnable)

    def _count(self, name: str, queries: np.ndarray, num_learnable: int) -> None:
        self._queries[name] += (int((queries < num_learnable).sum()), len(queries))

    def _by_category(
        self,
        taught: set[str],
        masks: AveragePrecision,
        boxes: AveragePrecision,
        edges: AveragePrecision,
        segments: PanopticQuality,
        labels: SemanticQuality,
    ) -> tuple[CategoryResult, ...]:
        return tuple(
            CategoryResult(
                category=name,
                is_taught=name in taught,
                num_true=masks.by_category[row].num_true,
                mask_ap=masks.by_category[row].ap,
                mask_ap50=masks.by_category[row].ap50,
                boundary_ap=edges.by_category[row].ap,
                box_ap=boxes.by_category[row].ap,
                pq=segments.by_category[row].pq,
                sq=segments.by_category[row].sq,
                rq=segments.by_category[row].rq,
                iou=labels.by_category[row],
            )
            for row, name in enumerate(self._categories)
        )


def _num_true(truth: TrueInstances) -> int:
    """Objects that have to be found, with a mask."""
    return sum(
        counts is not None and not is_crowd
        for counts, is_crowd in zip(truth.counts, truth.is_crowd, strict=True)
    )
