"""Images that were taken down: which, when, by whom, why, and what took their shard's place.

A takedown (`maskmill rm`) writes the shard again without the images, and adds a row for each to the
commit's table, which every later commit inherits. The old shard's `images` object is then garbage
although older commits name it; its other cells stay, so that history can still be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from manifests.cells import read_table
from manifests.commit import Commit
from manifests.consequences import removed_lost, telling
from manifests.errors import ObjectDamagedError
from manifests.parquet import table_to_parquet
from manifests.schemas import REMOVED_SCHEMA
from manifests.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedImage:
    """One row of REMOVED_SCHEMA."""

    image_id: str
    file_name: str
    source: str
    shard: str
    successor: str | None
    reason: str
    author: str
    time: str


class Removals:
    """The takedowns that a commit knows of. Immutable."""

    def __init__(self, rows: Iterable[RemovedImage] = ()) -> None:
        unique = {(row.image_id, row.shard): row for row in rows}
        self.rows: tuple[RemovedImage, ...] = tuple(unique[key] for key in sorted(unique))
        self._of_shard: dict[str, list[RemovedImage]] = {}
        for row in self.rows:
            self._of_shard.setdefault(row.shard, []).append(row)

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Removals) and self.rows == other.rows

    def __hash__(self) -> int:
        return hash(self.rows)

    @property
    def image_ids(self) -> frozenset[str]:
        """Images that no ingest brings back."""
        return frozenset(row.image_id for row in self.rows)

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards whose `images` object is to go, or gone."""
        return tuple(self._of_shard)

    def of_shard(self, shard: str) -> Sequence[RemovedImage]:
        """The images that were taken out of a shard."""
        return self._of_shard.get(shard, ())

    def explain(self, shard: str) -> str | None:
        """One sentence on why a shard's images are gone, or None if they were not taken down."""
        rows = self.of_shard(shard)
        if not rows:
            return None
        last = max(rows, key=lambda row: row.time)
        count = f"{len(rows):,} images of it were" if len(rows) > 1 else "1 image of it was"
        instead = (
            f"; the others are in shard {last.successor[:12]} of later commits"
            if last.successor
            else ""
        )
        return (
            f"the images of shard {shard[:12]} are gone because {count} taken down on "
            f"{last.time} by {last.author} ({last.reason}){instead}"
        )

    def with_rows(self, rows: Iterable[RemovedImage]) -> Removals:
        """These and more."""
        return Removals([*self.rows, *rows])

    def without(self, rows: Iterable[RemovedImage]) -> Removals:
        """These without some, by image and shard: a takedown that was reverted."""
        gone = {(row.image_id, row.shard) for row in rows}
        return Removals(row for row in self.rows if (row.image_id, row.shard) not in gone)

    @staticmethod
    def merged(base: Removals, ours: Removals, theirs: Removals) -> Removals:
        """What either side took down, without what either brought back by a revert."""
        gone = base.image_ids - (ours.image_ids & theirs.image_ids)
        rows = [*ours.rows, *theirs.rows]
        return Removals(row for row in rows if row.image_id not in gone)

    def save(self, store: Store) -> str | None:
        """Stores the table and returns its object id; None if there is nothing to say."""
        if not self.rows:
            return None
        table = pa.Table.from_pylist([asdict(row) for row in self.rows], schema=REMOVED_SCHEMA)
        return store.put_bytes(table_to_parquet(table)).object_id

    @staticmethod
    def load(store: Store, commit: Commit) -> Removals:
        """The takedowns a commit knows of.

        Raises:
            ObjectMissingError, ObjectDamagedError: the table cannot be read.
        """
        if commit.removed is None:
            return Removals()
        with telling(removed_lost(commit.removed), who="the commit"):
            table = read_table(store, commit.removed)
            try:
                table = table.cast(REMOVED_SCHEMA)
            except (pa.ArrowException, ValueError) as error:
                raise ObjectDamagedError(f"it is no such table: {error}") from error
        return Removals(RemovedImage(**row) for row in table.to_pylist())
