"""What an evaluation found: the numbers of a student on a commit, as they are written to JSON.

Every share is in [0, 1]; None where the truth has nothing that could be judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from student.evaluation.truth import LeftOut


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryResult:
    """One category.

    Attributes:
        is_taught: the student was trained with it; otherwise it knows its name alone.
        num_true: objects with masks.
        iou: of its pixels, as in mIoU.
    """

    category: str
    is_taught: bool
    num_true: int
    mask_ap: float | None
    mask_ap50: float | None
    boundary_ap: float | None
    box_ap: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    iou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """One image.

    Attributes:
        place: see `TrueImage`.
        pq: over its own segments, whatever their category; what images are ranked by.
        num_true: objects with masks.
        num_segments: panoptic segments that were found.
    """

    image_id: str
    file_name: str
    place: int
    pq: float | None
    foreground_iou: float
    num_true: int
    num_segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnableShares:
    """How many results come from learnable queries; the others are conditional ones'.

    Attributes:
        instances: of as many best instances of each image as it has true ones.
        segments: of panoptic segments.
        phrases: of the masks of phrases.
    """

    instances: float | None
    segments: float | None
    phrases: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A student on a commit; what each number is, is said where it is made.

    Attributes:
        student: the checkpoint's commit id.
        data: the commit id that was judged on.
        num_images, num_true: that were judged; of `num_true` objects all have masks.
        num_taught: of `num_images`, that the student was trained on; None: nobody can tell.
        mask_small, mask_medium, mask_large: mask AP by size.
        mask_recall: of 100 instances an image.
        phrase_iou, phrase_precision_50: of `num_phrases` names that occur once in their image.
        categories: in the order of the commit.
        images: in the order of the commit.
    """

    student: str
    data: str
    num_images: int
    num_taught: int | None
    num_true: int
    mask_ap: float | None
    mask_ap50: float | None
    mask_ap75: float | None
    mask_small: float | None
    mask_medium: float | None
    mask_large: float | None
    mask_recall: float | None
    box_ap: float | None
    box_ap50: float | None
    boundary_ap: float | None
    boundary_ap50: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    miou: float | None
    pixel_accuracy: float | None
    foreground_iou: float | None
    foreground_mean_iou: float | None
    phrase_iou: float | None
    phrase_overall_iou: float | None
    phrase_precision_50: float | None
    num_phrases: int
    learnable: LearnableShares
    left_out: LeftOut
    categories: tuple[CategoryResult, ...]
    images: tuple[ImageResult, ...]
