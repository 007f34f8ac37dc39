"""Average precision against pycocotools, and what it must say in the extreme cases."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from manifests import rle
from manifests.errors import InputError
from student.evaluation.ap import AveragePrecision, Kind, average_precision
from student.evaluation.instances import FoundInstances, TrueInstances
from tests.student.evaluation.scenes import blob, found_of, nothing, perfect, random_scene, true_of

_CATEGORIES = 4
Scene = tuple[TrueInstances, FoundInstances]


class BoundaryEval(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """pycocotools with Boundary IoU, by erosion with a square of side 3, d times."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        ious = super().computeIoU(imgId, catId)
        true, mine = self._gts[imgId, catId], self._dts[imgId, catId]
        if not len(true) or not len(mine):
            return ious
        mine = sorted(mine, key=lambda one: -one["score"])[: self.params.maxDets[-1]]
        crowds = [one["iscrowd"] for one in true]
        edges = [[_edge(one["segmentation"]) for one in ones] for ones in (mine, true)]
        of_edges = coco_mask.iou(*edges, crowds)
        return np.where(np.array(crowds, dtype=bool)[None], ious, np.minimum(ious, of_edges))


def _edge(segmentation: dict[str, Any]) -> dict[str, Any]:
    mask = coco_mask.decode(segmentation)
    distance = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask - inner))
    return encoded


def _by_pycocotools(scenes: list[Scene], kind: Kind) -> list[float]:
    """COCO's first six numbers and the recall, -1 where there is none."""
    images = [
        {"id": n, "height": t.size_hw[0], "width": t.size_hw[1]} for n, (t, _) in enumerate(scenes)
    ]
    annotations, results = [], []
    for number, (truth, found) in enumerate(scenes):
        for row, counts in enumerate(truth.counts):
            assert counts is not None
            x0, y0, x1, y1 = truth.boxes_xyxy[row].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(truth.categories[row]),
                    "iscrowd": int(truth.is_crowd[row]),
                    "area": rle.area(counts, size_hw=truth.size_hw),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": list(truth.size_hw), "counts": counts},
                }
            )
        for row, counts in enumerate(found.counts):
            x0, y0, x1, y1 = found.boxes_xyxy[row].tolist()
            shape = (
                {"bbox": [x0, y0, x1 - x0, y1 - y0]} if kind == "box"
                else {"segmentation": {"size": list(found.size_hw), "counts": counts}}
            )  # fmt: skip
            results.append({
                "image_id": number, "category_id": int(found.categories[row]),
                "score": float(found.scores[row]), **shape,
            })  # fmt: skip
    coco = COCO()
    coco.dataset = {
        "info": {}, "images": images, "annotations": annotations,
        "categories": [{"id": category} for category in range(_CATEGORIES)],
    }  # fmt: skip
    made = BoundaryEval if kind == "boundary" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluator = made(coco, coco.loadRes(results), "bbox" if kind == "box" else "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [*evaluator.stats[:6].tolist(), float(evaluator.stats[8])]


def _numbers(found: AveragePrecision) -> list[float]:
    values = (
        found.ap, found.ap50, found.ap75, found.small, found.medium, found.large, found.recall
    )  # fmt: skip
    return [-1.0 if value is None else value for value in values]


def _ap(scenes: list[Scene], kind: Kind = "mask") -> AveragePrecision:
    truths, found = zip(*scenes, strict=True)
    return average_precision(truths, found, num_categories=_CATEGORIES, kind=kind)


@pytest.mark.parametrize("kind", ["mask", "box", "boundary"])
@pytest.mark.parametrize("seed", [1, 200, 3000])
def test_equals_pycocotools(kind: Kind, seed: int) -> None:
    scenes = [random_scene(seed + n, num_categories=_CATEGORIES) for n in range(12)]
    ours = _ap(scenes, kind)
    assert _numbers(ours) == pytest.approx(_by_pycocotools(scenes, kind), abs=1e-6)
    assert ours.ap is not None
    assert 0.05 < ours.ap < 0.95  # neither extreme, which any evaluator gets right


def test_boundary_is_stricter_than_mask() -> None:
    scenes = [random_scene(n, num_categories=_CATEGORIES) for n in range(12)]
    of_boundaries = _ap(scenes, "boundary").ap
    of_masks = _ap(scenes).ap
    assert of_boundaries is not None
    assert of_masks is not None
    assert of_boundaries < of_masks


def test_a_category_has_its_own_ap() -> None:
    scenes = [random_scene(n, num_categories=_CATEGORIES) for n in range(12)]
    ours = _ap(scenes)
    there = [one.ap for one in ours.by_category if one.ap is not None]
    assert ours.ap == pytest.approx(sum(there) / len(there))
    truths = [truth for truth, _ in scenes]
    for category, one in enumerate(ours.by_category):
        expected = sum(
            int((truth.categories[~truth.is_crowd] == category).sum()) for truth in truths
        )
        assert one.num_true == expected


@pytest.mark.parametrize("kind", ["mask", "box", "boundary"])
def test_perfect_is_one_and_nothing_is_zero(kind: Kind) -> None:
    truths = [random_scene(n, num_categories=_CATEGORIES)[0] for n in range(6)]
    best = _ap([(truth, perfect(truth)) for truth in truths], kind)
    worst = _ap([(truth, nothing(truth)) for truth in truths], kind)
    assert best.ap == best.ap50 == best.ap75 == best.recall == 1
    assert worst.ap == worst.ap50 == worst.ap75 == worst.recall == 0


def test_categories_without_truth_do_not_count() -> None:
    mask = blob((40, 50), np.random.default_rng(0))
    truth = true_of([mask], [1])
    found = found_of([mask, ~mask], [1, 3], [0.5, 0.9])
    ours = _ap([(truth, found)])
    assert ours.ap == 1
    assert [one.ap for one in ours.by_category] == [None, 1, None, None]


def test_no_truth_has_no_ap() -> None:
    truth = true_of([], [], size_hw=(20, 30))
    mask = blob((20, 30), np.random.default_rng(0))
    assert _ap([(truth, found_of([mask], [0]))]).ap is None
    assert average_precision([], [], num_categories=2).by_category[1].ap is None


def test_a_stray_is_no_error_where_its_category_is_not_judged() -> None:
    generator = np.random.default_rng(3)
    mask, stray = blob((40, 50), generator), blob((40, 50), generator)
    found = found_of([stray, mask], [0, 0], [0.9, 0.5])
    judged = true_of([mask], [0])
    federated = true_of([mask], [0], unjudged=frozenset({0}))
    for kind in ("mask", "box", "boundary"):
        assert _ap([(judged, found)], kind).ap == pytest.approx(0.5)
        assert _ap([(federated, found)], kind).ap == 1


def test_a_box_without_mask_is_judged_as_a_box_alone() -> None:
    mask = np.zeros((40, 50), dtype=bool)
    mask[5:15, 5:15] = True
    other = np.zeros((40, 50), dtype=bool)
    other[20:30, 20:40] = True
    truth = true_of([mask, None], [0, 0], boxes_xyxy=[[5, 5, 15, 15], [20, 20, 40, 30]])
    both = found_of([other, mask], [0, 0], [0.9, 0.5])
    one = found_of([mask], [0], [0.5])
    assert _ap([(truth, both)]).ap == 1
    assert _ap([(truth, one)]).ap == 1
    assert _ap([(truth, both)], "box").ap == 1
    assert _ap([(truth, one)], "box").recall == 0.5
    assert _ap([(truth, both)], "box").by_category[0].num_true == 2
    assert _ap([(truth, both)]).by_category[0].num_true == 1


def test_refuses_results_of_other_images() -> None:
    truth = true_of([], [], size_hw=(20, 30))
    with pytest.raises(InputError, match="expected results of 1 images, got 0"):
        average_precision([truth], [], num_categories=1)
    with pytest.raises(InputError, match=r"size \(20, 30\), got \(30, 20\)"):
        average_precision([truth], [found_of([], [], size_hw=(30, 20))], num_categories=1)
