"""Are image and annotation ids unique in the dataset of each head? Sorted on disk by DuckDB."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from manifests.findings import Flaw
from manifests.fsck_tables import flaw
from manifests.manifest import Cell

_NUM_TOLD = 20
_TWICE = """
WITH twice AS (
    SELECT id, list(place ORDER BY place) AS places FROM ids JOIN chosen USING (cell)
    GROUP BY id HAVING count(*) > 1
)
SELECT places, min(id), count(*) FROM twice GROUP BY places ORDER BY places LIMIT ?
"""


class IdBook:
    """Ids of cells, on local disk in flat memory; used as a context."""

    def __init__(self) -> None:
        import duckdb

        self._folder = tempfile.TemporaryDirectory(prefix="maskmill-fsck-")
        self._connection = duckdb.connect(str(Path(self._folder.name) / "ids.duckdb"))
        for setting in (
            f"temp_directory = '{self._folder.name}'", "memory_limit = '384MB'", "threads = 2",
            "enable_progress_bar = false", "preserve_insertion_order = false",
        ):  # fmt: skip
            self._connection.execute(f"SET {setting}")
        self._connection.execute("CREATE TABLE ids (id VARCHAR, cell INTEGER)")
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> IdBook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def add(self, object_id: str, ids: pa.Array) -> None:
        """The ids of one cell; a second time they are not written again."""
        if object_id in self._numbers:
            return
        number = self._numbers[object_id] = len(self._numbers)
        batch = pa.table({"id": ids})
        self._connection.register("batch", batch)
        self._connection.execute(f"INSERT INTO ids SELECT id, {number} FROM batch")  # noqa: S608
        self._connection.unregister("batch")

    def flaws(self, cells: Collection[Cell], what: str) -> Iterator[Flaw]:
        """Ids that come twice among the cells of one dataset.

        Args:
            what: "image" or "annotation".
        """
        known = [cell for cell in cells if cell.object_id in self._numbers]
        numbers = [self._numbers[cell.object_id] for cell in known]
        # Two shards may have equal rows, and so one object: each counts.
        chosen = pa.table(
            {
                "cell": pa.array(numbers, pa.int32()),
                "place": pa.array(range(len(known)), pa.int32()),
            }
        )
        self._connection.register("chosen", chosen)
        found = self._connection.execute(_TWICE, [_NUM_TOLD]).fetchall()
        self._connection.unregister("chosen")
        for places, first_id, count in found:
            first, *others = (known[place] for place in places)
            where = ", ".join(sorted({f"shard {cell.shard[:12]}" for cell in others}))
            more = f", and {count - 1:,} more such ids" if count > 1 else ""
            yield flaw(first, "id_twice", f"has {what} id {first_id} again in {where}{more}")
