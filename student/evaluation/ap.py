"""Average precision of masks, boxes and boundaries as COCO has it, counted by faster-coco-eval.

Legend of the evaluator's arrays: T IoU thresholds (0.50 to 0.95), R recalls, K categories, A sizes
(all, small, medium, large), D numbers of detections (1, 10, 100).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from manifests import rle
from manifests.boxes import xyxy_to_xywh
from manifests.errors import InputError
from student.evaluation.boundary import BoundaryEvaluator
from student.evaluation.instances import FoundInstances, TrueInstances, whole_image

Kind = Literal["mask", "box", "boundary"]
_EVALUATORS = {"mask": COCOeval_faster, "box": COCOeval_faster, "boundary": BoundaryEvaluator}
_SIZES = ("all", "small", "medium", "large")
_T50, _T75 = 0, 5
Row = dict[str, Any]  # Any: COCO's JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryPrecision:
    """Of one category; None where the truth has none of it.

    Attributes:
        num_true: what had to be found: neither crowds nor, for masks, boxes without one.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    num_true: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision:
    """Means over the categories that the truth has; None where it has none.

    Attributes:
        ap: over IoU 0.50:0.95; `ap50` and `ap75` at one.
        small, medium, large: `ap` of objects below 32², up to 96², and above, in pixels of mask.
        recall: mean over IoU 0.50:0.95 of what 100 results an image find.
        by_category: in the order of the categories.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    recall: float | None
    by_category: tuple[CategoryPrecision, ...]


def average_precision(
    truths: Sequence[TrueInstances],
    found: Sequence[FoundInstances],
    *,
    num_categories: int,
    kind: Kind = "mask",
) -> AveragePrecision:
    """COCO's AP (Lin et al., arXiv 1405.0312) over images, of which each has one of both.

    A crowd, a true box without a mask (unless boxes are judged), and every pixel for a category
    that is `unjudged` in the image are places where a result without a partner is no error.

    Raises:
        InputError: not as many images of truth as of results, or they differ in size.
    """
    _check_images(truths, found)
    true_rows = _numbered(row for n, one in enumerate(truths, 1) for row in _true(one, n, kind))
    dataset = {
        "info": {},
        "images": [
            {"id": number, "height": one.size_hw[0], "width": one.size_hw[1]}
            for number, one in enumerate(truths, 1)
        ],
        "categories": [{"id": n + 1, "name": str(n)} for n in range(num_categories)],
        "annotations": true_rows,
    }
    if not truths or not num_categories:
        return _summary(None, [0] * num_categories)
    coco = COCO(dataset)
    results = coco.loadRes([row for n, one in enumerate(found, 1) for row in _found(one, n, kind)])
    evaluator = _EVALUATORS[kind](coco, results, iouType="bbox" if kind == "box" else "segm")
    evaluator.evaluate()
    evaluator.accumulate()
    counts = np.zeros(num_categories, dtype=np.int64)
    np.add.at(counts, [row["category_id"] - 1 for row in true_rows if not row["iscrowd"]], 1)
    return _summary(evaluator.eval, counts.tolist())


def _check_images(truths: Sequence[TrueInstances], found: Sequence[FoundInstances]) -> None:
    if len(truths) != len(found):
        raise InputError(f"AP: expected results of {len(truths)} images, got {len(found)}")
    for number, (true, one) in enumerate(zip(truths, found, strict=True)):
        if true.size_hw != one.size_hw:
            raise InputError(
                f"AP: expected results of image {number} in its size {true.size_hw}, got "
                f"{one.size_hw}"
            )


def _true(truth: TrueInstances, image: int, kind: Kind) -> list[Row]:
    """Annotations of one image, and a crowd over all of it for each category that is not judged."""
    boxes_xywh = xyxy_to_xywh(truth.boxes_xyxy).tolist()
    height, width = truth.size_hw
    rows = []
    for row, category in enumerate(truth.categories.tolist()):
        region = truth.region(row)
        is_ignored = bool(truth.is_crowd[row]) or (kind != "box" and truth.counts[row] is None)
        area_px = rle.area(region, size_hw=truth.size_hw)
        rows.append(_row(image, category, region, truth.size_hw, area_px, is_ignored=is_ignored))
        rows[-1]["bbox"] = boxes_xywh[row]
    for category in sorted(truth.unjudged):
        everything = whole_image(truth.size_hw)
        area_px = height * width
        rows.append(_row(image, category, everything, truth.size_hw, area_px, is_ignored=True))
        rows[-1]["bbox"] = [0, 0, width, height]
    return rows


def _row(
    image: int, category: int, counts: bytes, size_hw: tuple[int, int], area: int, *,
    is_ignored: bool,
) -> Row:  # fmt: skip
    return {
        "image_id": image,
        "category_id": category + 1,
        "segmentation": {"size": list(size_hw), "counts": counts.decode("ascii")},
        "area": area,
        "iscrowd": int(is_ignored),
    }


def _found(found: FoundInstances, image: int, kind: Kind) -> list[Row]:
    """Results of one image. With a box the evaluator would take the box's area for the mask's."""
    boxes_xywh = xyxy_to_xywh(found.boxes_xyxy).tolist()
    rows = []
    for row, counts in enumerate(found.counts):
        result: Row = {
            "image_id": image,
            "category_id": int(found.categories[row]) + 1,
            "score": float(found.scores[row]),
        }
        if kind == "box":
            result["bbox"] = boxes_xywh[row]
        else:
            size = list(found.size_hw)
            result["segmentation"] = {"size": size, "counts": counts.decode("ascii")}
        rows.append(result)
    return rows


def _numbered(rows: Any) -> list[Row]:  # Any: an iterable of COCO's JSON
    """Ids from 1 on: the evaluator takes 0 for "no partner"."""
    return [{**row, "id": number} for number, row in enumerate(rows, 1)]


def _summary(evaluated: Any, num_true: Sequence[int]) -> AveragePrecision:  # Any: its dict
    if evaluated is None:
        nothing = CategoryPrecision(ap=None, ap50=None, ap75=None, num_true=0)
        none: Any = dict.fromkeys(("ap", "ap50", "ap75", "small", "medium", "large", "recall"))
        return AveragePrecision(**none, by_category=(nothing,) * len(num_true))
    precision = np.asarray(evaluated["precision"])[..., -1]  # [T, R, K, A]
    recall = np.asarray(evaluated["recall"])[..., -1]  # [T, K, A]
    by_size = {name: _mean(precision[..., size]) for size, name in enumerate(_SIZES)}
    return AveragePrecision(
        ap=by_size["all"],
        ap50=_mean(precision[_T50, ..., 0]),
        ap75=_mean(precision[_T75, ..., 0]),
        small=by_size["small"],
        medium=by_size["medium"],
        large=by_size["large"],
        recall=_mean(recall[..., 0]),
        by_category=tuple(
            CategoryPrecision(
                ap=_mean(precision[:, :, category, 0]),
                ap50=_mean(precision[_T50, :, category, 0]),
                ap75=_mean(precision[_T75, :, category, 0]),
                num_true=num,
            )
            for category, num in enumerate(num_true)
        ),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    """The evaluator marks what the truth does not have with -1."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None
