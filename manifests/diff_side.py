"""One shard of one commit as a diff sees it: columns of its cells, read when they are needed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import schemas
from manifests.consequences import remedy_of
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError
from manifests.manifest import Cell

Ints = NDArray[np.int64]

_SCHEMAS = {
    schemas.IMAGE_INDEX: schemas.IMAGE_INDEX_SCHEMA,
    schemas.BOXES: schemas.BOXES_SCHEMA,
    schemas.VERDICTS: schemas.VERDICTS_SCHEMA,
}


class Side:
    """A shard of a commit; what was read of its boxes stays for the life of the object."""

    def __init__(self, dataset: Dataset, shard: str) -> None:
        self.dataset, self.shard = dataset, shard
        self._categories: pa.Array | None = None

    def cell(self, layer: str) -> Cell | None:
        """The manifest's entry, if there is one."""
        return self.dataset.manifest.get(self.shard, layer)

    @property
    def num_boxes(self) -> int:
        """Rows of every annotation layer, as the manifest says."""
        cell = self.cell(schemas.BOXES)
        return cell.num_rows if cell else 0

    def read(self, layer: str, columns: list[str]) -> pa.Table:
        """Columns of a cell with the layer's own types.

        Raises:
            ObjectMissingError, ObjectDamagedError: as `Dataset.table`, or it has other types.
        """
        schema = _SCHEMAS.get(layer, schemas.MASKS_SCHEMA)
        table = self.dataset.table(self.shard, layer, columns=columns)
        try:
            return table.cast(pa.schema([schema.field(name) for name in columns]))
        except (pa.ArrowException, ValueError) as error:
            raise self.damaged(
                layer, f"its columns are not those of the layer ({error})"
            ) from error

    def read_aligned(self, layer: str, columns: list[str]) -> pa.Table:
        """As `read`, of a layer that must have the rows of `boxes`."""
        table = self.read(layer, columns)
        if table.num_rows != self.num_boxes:
            raise self.damaged(
                layer, f"expected the {self.num_boxes} rows of boxes, found {table.num_rows}"
            )
        return table

    def damaged(self, layer: str, how: str) -> ObjectDamagedError:
        """An error that names the cell, says how it is damaged, and what brings it back."""
        return ObjectDamagedError(
            f"shard {self.shard[:12]} of {layer} is damaged ({how}): commit "
            f"{self.dataset.commit_id[:12]} cannot be compared; {remedy_of(layer)}"
        )

    def categories(self, rows: Ints) -> pa.Array:
        """Category names of some boxes."""
        if self._categories is None:
            self._categories = self.read(schemas.BOXES, ["category"])["category"].combine_chunks()
        return self._categories.take(pa.array(rows))
