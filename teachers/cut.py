"""Masks cut to the boxes that they were drawn for: a box is a label, a mask is a guess."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_to_boxes(
    masks: NDArray[np.uint8], tight_xyxy: NDArray[np.float32], boxes_xyxy: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Clears, in place, every pixel that its box does not touch.

    Args:
        masks: [n, c, W, H] of 0 and 1, x before y.
        tight_xyxy: [n, c, 4] the masks' own boxes, whole pixels.
        boxes_xyxy: [n, 4] the boxes they were drawn for.

    Returns:
        [n, c] share of each mask that was outside, 0 for an empty one.
    """
    outside = np.zeros(masks.shape[:2], np.float32)
    for n, box in enumerate(boxes_xyxy):
        first, last = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        for c in range(masks.shape[1]):
            x0, y0, x1, y1 = tight_xyxy[n, c].astype(int)
            if x0 >= first[0] and y0 >= first[1] and x1 <= last[0] and y1 <= last[1]:
                continue
            drawn = masks[n, c, x0:x1, y0:y1]
            before = int(np.count_nonzero(drawn))
            drawn[: max(0, first[0] - x0)] = 0
            drawn[max(0, last[0] - x0) :] = 0
            drawn[:, : max(0, first[1] - y0)] = 0
            drawn[:, max(0, last[1] - y0) :] = 0
            outside[n, c] = (before - int(np.count_nonzero(drawn))) / max(1, before)
    return outside
