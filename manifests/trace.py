"""Where a row comes from: back through history for as long as it holds the very same content.

A shard's cells are rewritten for many reasons: boxes of a second source realign them, a takedown
leaves rows out (and gives the shard another id), a teacher fills in what is pending. The row is
found again by its annotation id, and what counts is what it says, not which object says it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.cells import read_cell
from manifests.commit import Commit
from manifests.commit_reader import CommitReader
from manifests.consequences import manifest_lost, telling
from manifests.errors import ObjectDamagedError
from manifests.manifest import Cell, Manifest
from manifests.parquet import parquet_to_table
from manifests.removed import Removals
from manifests.store import Store

_KEPT_TABLES = 8
_MASK_CONTENT = [name for name in schemas.MASKS_SCHEMA.names if name != "candidates"]
_CONTENT: Mapping[str, list[str]] = {
    schemas.BOXES: ["annotation_id", "category"],
    # Of all that a verdict says: what it counts for in training is no other verdict.
    schemas.VERDICTS: [name for name in schemas.VERDICTS_SCHEMA.names if name != "weight"],
    schemas.CONFIDENCE: schemas.CONFIDENCE_SCHEMA.names,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """A row's way back.

    Attributes:
        origin: the oldest commit from which on the row says what it says: id and commit.
        rewrites: commits after it that wrote the row's cell again and carried the row over, newest
            first.
    """

    origin: tuple[str, Commit]
    rewrites: tuple[tuple[str, Commit], ...] = ()

    @property
    def writers(self) -> tuple[tuple[str, Commit], ...]:
        """Every commit that wrote the row, newest first."""
        return (*self.rewrites, self.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A commit, and the shard that holds the annotation in it."""

    commit_id: str
    shard: str


class RowTracer:
    """Follows one annotation's rows. Manifests and cells that did not change are not opened."""

    def __init__(self, reader: CommitReader, annotation_id: str) -> None:
        self._reader, self._annotation_id = reader, annotation_id
        self._store: Store = reader.store
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._rows: dict[str, int | None] = {}
        self._contents: dict[tuple[str, int], object] = {}

    def trail(self, commit_id: str, shard: str, layer: str) -> Trail:
        """The way back of the annotation's row of a layer.

        Raises:
            ObjectMissingError, ObjectDamagedError: an object on the way cannot be read.
            ObjectDamagedError: the commit does not have that row.
        """
        place = _Place(commit_id=commit_id, shard=shard)
        content = self._content(self._cells(place), layer)
        if content is None:
            raise ObjectDamagedError(
                f"{layer} of shard {shard[:12]} has no row of annotation {self._annotation_id}; "
                "run 'maskmill fsck --full'"
            )
        rewrites: list[tuple[str, Commit]] = []
        while True:
            commit = self._reader.get(place.commit_id)
            step = self._back(place, commit, layer, content)
            if step is None:
                return Trail(origin=(place.commit_id, commit), rewrites=tuple(rewrites))
            before, is_same_cell = step
            if not is_same_cell:
                rewrites.append((place.commit_id, commit))
            place = before

    def _back(
        self, place: _Place, commit: Commit, layer: str, content: object
    ) -> tuple[_Place, bool] | None:
        """A parent where the row says the same, and whether it is in the very same cell there."""
        says_changes = commit.changes is not None and bool(commit.parents)
        if says_changes and not {layer, schemas.BOXES} & set(commit.changes or ()):
            return _Place(commit_id=commit.parents[0], shard=place.shard), True
        mine = self._cells(place)
        parents = [p for parent in commit.parents for p in self._places(place, commit, parent)]
        for before in parents:
            theirs = self._cells(before)
            if all(_object(mine, name) == _object(theirs, name) for name in (layer, schemas.BOXES)):
                return before, True
        for before in parents:
            if self._content(self._cells(before), layer) == content:
                return before, False
        return None

    def _places(self, place: _Place, commit: Commit, parent: str) -> Iterator[_Place]:
        """Where a parent has the annotation: in the same shard, or in one that was rewritten."""
        same = _Place(commit_id=parent, shard=place.shard)
        if self._has_row(same):
            yield same
            return
        gone = self._shards(parent) - self._shards(place.commit_id)
        if not gone:
            return
        removals = Removals.load(self._store, commit).rows
        became = {row.shard for row in removals if row.successor == place.shard}
        for shard in [*sorted(gone & became), *sorted(gone - became)]:
            older = _Place(commit_id=parent, shard=shard)
            if self._has_row(older):
                yield older
                return

    def _has_row(self, place: _Place) -> bool:
        boxes = self._cells(place).get(schemas.BOXES)
        return boxes is not None and self._row(boxes) is not None

    # -- reading ---------------------------------------------------------------------------------

    def _cells(self, place: _Place) -> Mapping[str, Cell]:
        """Layer -> cell of one shard, without making objects of a manifest's other rows."""
        table = self._manifest(place.commit_id)
        of_shard = table.filter(pc.equal(table["shard"], place.shard))
        return {cell.layer: cell for cell in Manifest.from_table(of_shard)}

    def _shards(self, commit_id: str) -> set[str]:
        return set(pc.unique(self._manifest(commit_id)["shard"]).to_pylist())

    def _manifest(self, commit_id: str) -> pa.Table:
        manifest_id = self._reader.get(commit_id).manifest
        if manifest_id not in self._tables:
            with telling(manifest_lost(manifest_id), who=f"commit {commit_id[:12]}"):
                try:
                    table = parquet_to_table(self._store.get_bytes(manifest_id))
                except (pa.ArrowException, OSError) as error:
                    raise ObjectDamagedError("it is not a manifest") from error
            self._tables[manifest_id] = table
            while len(self._tables) > _KEPT_TABLES:
                self._tables.popitem(last=False)
        return self._tables[manifest_id]

    def _content(self, cells: Mapping[str, Cell], layer: str) -> object:
        """What the annotation's row of a layer says; None if there is no such row."""
        boxes, cell = cells.get(schemas.BOXES), cells.get(layer)
        if boxes is None or cell is None:
            return None
        row = self._row(boxes)
        if row is None or row >= cell.num_rows:
            return None
        key = (cell.object_id, row)
        if key not in self._contents:
            values = self._read(cell, _content_columns(layer)).slice(row, 1).to_pylist()[0]
            self._contents[key] = repr(values)  # where one NaN is as good as another
        return self._contents[key]

    def _row(self, boxes: Cell) -> int | None:
        if boxes.object_id not in self._rows:
            ids = self._read(boxes, ["annotation_id"])["annotation_id"]
            row = pc.index(ids, self._annotation_id).as_py()
            self._rows[boxes.object_id] = row if row >= 0 else None
        return self._rows[boxes.object_id]

    def _read(self, cell: Cell, columns: Sequence[str] | None) -> pa.Table:
        return read_cell(
            self._store, cell, columns=None if columns is None else list(columns),
            who="the history of the annotation",
        )  # fmt: skip


def _content_columns(layer: str) -> list[str] | None:
    return _MASK_CONTENT if layer.startswith(schemas.masks_layer("")) else _CONTENT.get(layer)


def _object(cells: Mapping[str, Cell], layer: str) -> str | None:
    cell = cells.get(layer)
    return cell.object_id if cell else None
