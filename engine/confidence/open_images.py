"""Images that people may be asked to draw: no gold yet, not quarantined, with boxes to draw.

Legend: N boxes that can be drawn, I images that can be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.best_masks import best_masks
from engine.confidence.outputs import Bools, Floats, as_floats
from manifests import boxes, schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table

Ints = NDArray[np.int64]

_EDGES: Mapping[str, tuple[float, ...]] = {
    "expected": (0.3, 0.5, 0.7, 0.85),
    "box_share": (0.003, 0.02, 0.1),
    "box_iou": (0.5, 0.75, 0.9),
    "fill_ratio": (0.4, 0.6, 0.8),
}
"""A small grid over signals. Boxes of one cell are alike; a cell with few boxes holds outliers."""

_UNKNOWN = 1  # a cell beside the others, for a signal that nobody gives
NUM_CELLS = int(np.prod([len(edges) + 1 + _UNKNOWN for edges in _EDGES.values()]))

_BOX_COLUMNS = ["image_row", "category", "box_xyxy", "is_crowd", "is_group_of"]
_INDEX_COLUMNS = ["image_id", "height", "width", "quarantine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImages:
    """The images of one shard that can be asked for, and their boxes.

    Attributes:
        shard: its id.
        image_ids: [I]
        image_of: [N] position of a box's image in `image_ids`.
        categories: [N]
        expected: [N] see BestMasks.
        cells: [N] the place in the grid, from 0 to NUM_CELLS - 1.
        gold: category -> boxes of the shard that have a human mask.
        num_with_gold, num_quarantined, num_without_boxes: images that cannot be asked for.
    """

    shard: str
    image_ids: Sequence[str]
    image_of: Ints
    categories: Sequence[str]
    expected: Floats
    cells: Ints
    gold: Mapping[str, int]
    num_with_gold: int
    num_quarantined: int
    num_without_boxes: int


def read_open_images(dataset: Dataset, shard: str, teachers: Sequence[str]) -> OpenImages:
    """Reads a few columns of a shard; no mask and no image.

    Args:
        teachers: in order of preference.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or has other rows.
    """
    index = dataset.table(shard, schemas.IMAGE_INDEX, columns=_INDEX_COLUMNS)
    table = dataset.table(shard, schemas.BOXES, columns=_BOX_COLUMNS)
    image_rows = table["image_row"].to_numpy().astype(np.int64)
    is_gold = _is_gold(dataset, shard, table.num_rows)
    has_gold = _marks(image_rows[is_gold], index.num_rows)
    in_quarantine = np.asarray(index["quarantine"].is_valid())
    is_prompt = ~np.asarray(pc.or_(table["is_crowd"], table["is_group_of"]))
    has_boxes = _marks(image_rows[is_prompt], index.num_rows)
    is_open = ~has_gold & ~in_quarantine & has_boxes
    rows = np.flatnonzero(is_prompt & is_open[image_rows])
    expected, cells = _facts(dataset, shard, teachers, index, table)
    positions = np.cumsum(is_open) - 1
    return OpenImages(
        shard=shard,
        image_ids=index["image_id"].filter(pa.array(is_open)).to_pylist(),
        image_of=positions[image_rows[rows]],
        categories=table["category"].take(pa.array(rows)).to_pylist(),
        expected=expected[rows],
        cells=cells[rows],
        gold=Counter(table["category"].filter(pa.array(is_gold)).to_pylist()),
        num_with_gold=int(has_gold.sum()),
        num_quarantined=int((in_quarantine & ~has_gold).sum()),
        num_without_boxes=int((~has_boxes & ~in_quarantine & ~has_gold).sum()),
    )


def _is_gold(dataset: Dataset, shard: str, num_rows: int) -> Bools:
    if dataset.manifest.get(shard, schemas.MASKS_HUMAN) is None:
        return np.zeros(num_rows, dtype=bool)
    layer = schemas.MASKS_HUMAN
    status = aligned_table(dataset, shard, layer, num_rows, columns=["status"])["status"]
    return np.asarray(pc.equal(status, schemas.OK))


def _marks(rows: Ints, size: int) -> Bools:
    """[size] whether a row is among some."""
    marks = np.zeros(size, dtype=bool)
    marks[rows] = True
    return marks


def _facts(
    dataset: Dataset, shard: str, teachers: Sequence[str], index: pa.Table, table: pa.Table
) -> tuple[Floats, Ints]:
    """Expected IoU and place in the grid of every box of the shard."""
    size, best = table.num_rows, best_masks(dataset, shard, teachers, num_rows=table.num_rows)
    signals = {name: np.full(size, np.nan, np.float32) for name in ("box_iou", "fill_ratio")}
    for layer in {*best.layers.tolist()} - {None}:
        # Of the teacher's own choice, also where a candidate is better: alike is near enough here.
        masks = aligned_table(dataset, shard, layer, size, columns=list(signals))
        mine = np.equal(best.layers, layer)
        for name, values in signals.items():
            values[mine] = as_floats(masks[name])[mine]
    boxes_xyxy = np.asarray(table["box_xyxy"].combine_chunks().flatten()).reshape(-1, 4)
    pixels = (as_floats(index["height"]) * as_floats(index["width"]))[table["image_row"].to_numpy()]
    values_of = {
        "expected": best.expected,
        "box_share": boxes.area(boxes_xyxy.astype(np.float32)) / pixels,
        **signals,
    }
    cells = np.zeros(size, dtype=np.int64)
    for name, edges in _EDGES.items():
        values = values_of[name]
        known = np.searchsorted(edges, np.nan_to_num(values), side="right")
        cells = cells * (len(edges) + 1 + _UNKNOWN) + np.where(
            np.isnan(values), len(edges) + 1, known
        )
    return best.expected, cells
