"""The tables of a mix in files of the cache: built by one process, mapped by all of the machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from manifests.digest import digest_of
from student.config import DataConfig
from student.data.arrow_file import read_arrow, write_arrow
from student.data.cell_cache import CellCache
from student.data.mix import MixedDataset
from student.data.rows import ReadOptions
from student.data.tables import Facts, Tables, read_tables

_FORMAT = 1
_FACTS = b"maskmill.facts"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedTables:
    """`Tables`, each in one piece of mapped memory."""

    images: pa.RecordBatch
    annotations: pa.RecordBatch
    facts: Facts


def mapped_tables(
    cache: CellCache, mix: Sequence[MixedDataset], config: DataConfig, categories: tuple[str, ...]
) -> MappedTables:
    """The tables of these commits; a second opening reads no cell.

    Raises: as `read_tables`.
    """
    options = ReadOptions(
        masks=config.masks, dropped_boxes=config.dropped_boxes, categories=categories
    )
    read = _Once(cache, mix, options)
    key = {
        "format": _FORMAT,
        "masks": config.masks,
        "dropped_boxes": config.dropped_boxes,
        "datasets": [
            (one.dataset.commit_id, one.source.skip_images, one.source.max_images) for one in mix
        ],
    }
    images, annotations = (
        cache.made(digest_of(key | {"table": name}), partial(read.write, name), read_arrow)
        for name in ("images", "annotations")
    )
    facts = msgspec.json.decode(images.schema.metadata[_FACTS], type=Facts)
    return MappedTables(images=images, annotations=annotations, facts=facts)


class _Once:
    """Both tables come out of one reading."""

    def __init__(self, cache: CellCache, mix: Sequence[MixedDataset], options: ReadOptions) -> None:
        self._cache, self._mix, self._options = cache, mix, options
        self._tables: Tables | None = None

    def write(self, name: str, path: Path) -> None:
        """Writes one of the tables to a path."""
        if self._tables is None:
            self._tables = self._cache.patience.ask(
                lambda: read_tables(self._mix, self._options), what="reading boxes"
            )
        table = {"images": self._tables.images, "annotations": self._tables.annotations}[name]
        facts = json.dumps(asdict(self._tables.facts)).encode()
        write_arrow(table.replace_schema_metadata({_FACTS: facts}), path)
