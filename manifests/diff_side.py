"""One shard of one commit as a diff sees it: columns of its cells, read when they are needed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError, ObjectMissingError
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
            ObjectMissingError, ObjectDamagedError: they cannot be read; names commit, layer, shard.
        """
        where = f"{layer} of shard {self.shard[:12]} in commit {self.dataset.commit_id[:12]}"
        schema = _SCHEMAS.get(layer, schemas.MASKS_SCHEMA)
        try:
            table = self.dataset.table(self.shard, layer, columns=columns)
            return table.cast(pa.schema([schema.field(name) for name in columns]))
        except ObjectMissingError as error:
            raise ObjectMissingError(f"cannot compare {where}: {error}") from error
        except ObjectDamagedError as error:
            raise ObjectDamagedError(f"cannot compare {where}: {error}") from error
        except (pa.ArrowException, ValueError) as error:
            raise ObjectDamagedError(
                f"cannot compare {where}: its columns are not those of the layer ({error}); "
                "restore it from a copy"
            ) from error

    def read_aligned(self, layer: str, columns: list[str]) -> pa.Table:
        """As `read`, of a layer that must have the rows of `boxes`."""
        table = self.read(layer, columns)
        if table.num_rows != self.num_boxes:
            raise ObjectDamagedError(
                f"cannot compare {layer} of shard {self.shard[:12]} in commit "
                f"{self.dataset.commit_id[:12]}: expected the {self.num_boxes} rows of boxes, "
                f"found {table.num_rows}; run the step that makes {layer} again"
            )
        return table

    def categories(self, rows: Ints) -> pa.Array:
        """Category names of some boxes."""
        if self._categories is None:
            self._categories = self.read(schemas.BOXES, ["category"])["category"].combine_chunks()
        return self._categories.take(pa.array(rows))
