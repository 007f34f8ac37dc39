"""The chosen masks of a shard as one file on the local disk, from which single rows are read.

A masks cell is compressed as a whole, and a loader wants the masks of one image here, one there. So
a shard's chosen masks are taken out once, into an Arrow file that is mapped into memory.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.digest import digest_of
from manifests.kept_masks import gather_masks
from manifests.schemas import BOXES, VERDICTS, masks_layer
from student.data.arrow_file import read_arrow, write_arrow
from student.data.cell_cache import CellCache
from student.data.read_shard import chosen_rows

_FORMAT = 1
_MAX_OPEN = 256
_SCHEMA = pa.schema([pa.field("counts", pa.large_binary(), nullable=False)])


class MaskPacks:
    """The mapped files of the shards that were used last. For one thread at a time."""

    def __init__(self, cache: CellCache, masks: str) -> None:
        self._cache, self._masks = cache, masks
        self._open: OrderedDict[str, pa.Array] = OrderedDict()

    def counts(self, dataset: Dataset, shard: str, mask_rows: NDArray[np.int32]) -> pa.Array:
        """[n] RLE counts (large_binary) of some `mask_row` of a shard.

        Raises:
            StoreError: the cells are not in the cache and cannot be read.
        """
        key = self._key(dataset, shard)
        if key not in self._open:
            self._open[key] = self._opened(dataset, shard, key)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key].take(pa.array(mask_rows))

    def _key(self, dataset: Dataset, shard: str) -> str:
        """Of everything that the file is made from."""
        cells = dataset.manifest.of_shard(shard)
        names = {BOXES, VERDICTS} if self._masks == VERDICTS else {BOXES, self._masks}
        used = {
            cell.layer: cell.object_id
            for cell in cells
            if cell.layer in names
            or (self._masks == VERDICTS and cell.layer.startswith(masks_layer("")))
        }
        return digest_of({"format": _FORMAT, "masks": self._masks, "cells": used})

    def _opened(self, dataset: Dataset, shard: str, key: str) -> pa.Array:
        def make(path: Path) -> None:
            table = self._cache.patience.ask(
                lambda: _chosen_masks(dataset, shard, self._masks),
                what=f"reading masks of shard {shard[:12]}",
            )
            write_arrow(table, path)

        return self._cache.made(key, make, read_arrow).column("counts")


def _chosen_masks(dataset: Dataset, shard: str, masks: str) -> pa.Table:
    choice, rows, num_rows = chosen_rows(dataset, shard, masks)
    gathered = gather_masks(dataset, shard, choice, rows, num_rows=num_rows)
    return gathered.select(["counts"]).cast(_SCHEMA)
