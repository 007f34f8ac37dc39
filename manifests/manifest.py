"""A manifest: which object holds which shard of which layer, as one Parquet table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import pyarrow as pa

from manifests.errors import ObjectDamagedError
from manifests.parquet import parquet_to_table, table_to_parquet
from manifests.store import Store

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("layer", pa.string(), nullable=False),
        pa.field("object", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        # Objects the cell was computed from: a masks cell whose boxes object moved is stale.
        pa.field("inputs", pa.list_(pa.string()), nullable=False),
        # Small counts for `stats`, `diff` and pruning without opening the cell.
        pa.field("statistics", pa.map_(pa.string(), pa.int64()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One shard of one layer: one immutable object.

    Attributes:
        shard: digest of the shard's images object.
        layer: `images`, `image_index`, `boxes`, `masks/<teacher>`, `verdicts` ...
        object_id: SHA-256 of the object.
        num_rows: rows of a table, images of a tar.
        num_bytes: size of the object.
        inputs: object ids it was computed from, in a fixed order.
        statistics: small counts, by name.
    """

    shard: str
    layer: str
    object_id: str
    num_rows: int
    num_bytes: int
    inputs: tuple[str, ...] = ()
    statistics: dict[str, int] = field(default_factory=dict)


class Manifest:
    """An immutable set of cells, at most one for each (shard, layer).

    Order is by shard as first added (the order of ingest), then by layer.
    """

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self._cells: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            self._cells.setdefault(cell.shard, {})[cell.layer] = cell

    def __iter__(self) -> Iterator[Cell]:
        for layers in self._cells.values():
            for layer in sorted(layers):
                yield layers[layer]

    def __len__(self) -> int:
        return sum(len(layers) for layers in self._cells.values())

    def shards(self) -> tuple[str, ...]:
        """Shard ids, in the order of ingest."""
        return tuple(self._cells)

    def layers(self) -> tuple[str, ...]:
        """Names of the layers that at least one shard has, sorted."""
        return tuple(sorted({layer for layers in self._cells.values() for layer in layers}))

    def get(self, shard: str, layer: str) -> Cell | None:
        """The cell, or None."""
        return self._cells.get(shard, {}).get(layer)

    def of_shard(self, shard: str) -> tuple[Cell, ...]:
        """A shard's cells, by layer; none if there is no such shard."""
        layers = self._cells.get(shard, {})
        return tuple(layers[layer] for layer in sorted(layers))

    def of_layer(self, layer: str) -> tuple[Cell, ...]:
        """A layer's cells in the order of shards."""
        return tuple(layers[layer] for layers in self._cells.values() if layer in layers)

    def with_cells(self, cells: Iterable[Cell]) -> Manifest:
        """A copy in which these cells are added or replace those of the same shard and layer."""
        return Manifest([*self, *cells])

    def without(self, shard: str, layer: str) -> Manifest:
        """A copy that lacks one cell."""
        return Manifest(cell for cell in self if (cell.shard, cell.layer) != (shard, layer))

    def to_table(self) -> pa.Table:
        """One row a cell, with SCHEMA."""
        cells = list(self)
        statistics = [sorted(cell.statistics.items()) for cell in cells]
        columns = [
            [cell.shard for cell in cells],
            [cell.layer for cell in cells],
            [cell.object_id for cell in cells],
            [cell.num_rows for cell in cells],
            [cell.num_bytes for cell in cells],
            pa.ListArray.from_arrays(
                _offsets(len(cell.inputs) for cell in cells),
                pa.array([name for cell in cells for name in cell.inputs], pa.string()),
            ),
            pa.MapArray.from_arrays(
                _offsets(map(len, statistics)),
                pa.array([name for counts in statistics for name, _ in counts], pa.string()),
                pa.array([count for counts in statistics for _, count in counts], pa.int64()),
            ),
        ]
        return pa.table(columns, schema=SCHEMA)

    @staticmethod
    def from_table(table: pa.Table) -> Manifest:
        """The inverse of `to_table`."""
        if not table.num_rows:
            return Manifest()
        shard, layer, inputs, statistics = (
            table[name].combine_chunks() for name in ("shard", "layer", "inputs", "statistics")
        )
        input_ids, names = _shared(inputs.values), _shared(statistics.keys)
        counts = statistics.items.to_pylist()
        return Manifest(
            Cell(
                shard=shard,
                layer=layer,
                object_id=object_id,
                num_rows=num_rows,
                num_bytes=num_bytes,
                inputs=tuple(input_ids[first:last]),
                statistics=dict(zip(names[start:stop], counts[start:stop], strict=True)),
            )
            for shard, layer, object_id, num_rows, num_bytes, (first, last), (start, stop) in zip(
                _shared(shard),
                _shared(layer),
                *(table[name].to_pylist() for name in ("object", "rows", "bytes")),
                pairwise(inputs.offsets.to_pylist()),
                pairwise(statistics.offsets.to_pylist()),
                strict=True,
            )
        )

    def to_bytes(self) -> bytes:
        """The Parquet object."""
        return table_to_parquet(self.to_table())

    def save(self, store: Store) -> str:
        """Stores the manifest and returns its object id."""
        return store.put_bytes(self.to_bytes()).object_id

    @staticmethod
    def load(store: Store, object_id: str) -> Manifest:
        """Reads a manifest.

        Raises:
            ObjectMissingError, ObjectDamagedError: the object is not there or not a manifest.
        """
        data = store.get_bytes(object_id)
        try:
            table = parquet_to_table(data).cast(SCHEMA)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise ObjectDamagedError(f"object {object_id[:12]} is not a manifest") from error
        return Manifest.from_table(table)


def _offsets(lengths: Iterable[int]) -> pa.Array:
    """Where each list begins, and where the last one ends."""
    return pa.array(accumulate(lengths, initial=0), pa.int32())


def _shared(strings: pa.StringArray) -> list[str]:
    """The strings, equal ones as one object: names of counts come once for every cell."""
    encoded = strings.dictionary_encode()
    words: list[str] = encoded.dictionary.to_pylist()
    return [words[code] for code in encoded.indices.to_pylist()]
