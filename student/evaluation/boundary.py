"""Boundary AP: masks are compared near their outlines (Cheng et al., "Boundary IoU", 2103.16562).

The IoU of two masks is the smaller of their mask IoU and the IoU of what of each lies within 2% of
the image's diagonal of its own outline (the paper's section 5); the rest is COCO's AP.
faster-coco-eval can do this by itself (`iouType="boundary"`), with the same result, but finds the
outlines of all results at 70 ms each (2 megapixels), and most of them fit no true mask anyway.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_DILATION_RATIO = 0.02
_KEPT_OUTLINES = 4096
Rle = dict[str, Any]  # Any: COCO's JSON


class BoundaryEvaluator(COCOeval_faster):  # type: ignore[misc]  # it has no types
    """COCO's evaluation of masks with Boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803  its name
        """[M, N] IoU of the results of an image and category, by falling score, and the truth."""
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        true, found = (
            data.get_instances([imgId], [catId], True)[0][0]
            for data in (self.gt_dataset, self.dt_dataset)
        )
        order = np.argsort([-one["score"] for one in found], kind="mergesort")
        is_crowd = np.array([bool(one.get("iscrowd", 0)) for one in true])
        # Where masks differ too much for the lowest threshold, outlines need not be looked at.
        rows, columns = np.nonzero((ious >= self.params.iouThrs[0]) & ~is_crowd[None])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            outlines = [_of(one["rle"]) for one in (found[order[row]], true[column])]
            of_outlines = float(coco_mask.iou([outlines[0]], [outlines[1]], [0])[0, 0])
            ious[row, column] = min(ious[row, column], of_outlines)
        return ious


def _of(mask: Rle) -> Rle:
    counts = mask["counts"]
    height, width = mask["size"]
    return outline(counts if isinstance(counts, bytes) else counts.encode(), height, width)


@lru_cache(maxsize=_KEPT_OUTLINES)
def outline(counts: bytes, height: int, width: int) -> Rle:
    """RLE of the pixels of a mask that lie near its outline; the image's edge is one, too."""
    distance = max(1, round(_DILATION_RATIO * float(np.hypot(height, width))))
    whole: Rle = {"size": [height, width], "counts": counts}
    mask: NDArray[np.uint8] = coco_mask.decode(whole)
    x, y, wide, tall = (int(value) for value in coco_mask.toBbox(whole))
    if not wide or not tall:
        return whole
    part = np.ascontiguousarray(mask[y : y + tall, x : x + wide])
    # As often with a square of side 3 is once with a larger one, and all around the part is 0.
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    inner = cv2.erode(part, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    mask[y : y + tall, x : x + wide] -= inner.astype(np.uint8)
    encoded: Rle = coco_mask.encode(np.asfortranarray(mask))
    return encoded
