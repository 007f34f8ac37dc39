"""The outputs of a shard's teachers: every mask that can be chosen for a box, with its signals.

Legend: N boxes of the shard, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table
from manifests.manifest import Manifest

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SIGNALS = (
    "predicted_iou", "stability", "mean_foreground", "box_iou", "outside_fraction", "fill_ratio",
    "num_components", "border_contact", "num_holes", "edge_alignment", "jitter_iou", "output_iou",
    "area_px",
)  # fmt: skip
"""The columns of a mask that say something about its quality."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Output:
    """One mask of a teacher: `candidate` 0 is its own choice, n its `candidates[n - 1]`."""

    teacher: str
    candidate: int

    @property
    def name(self) -> str:
        """As columns of `agreement` and `confidence` are called."""
        return schemas.output_name(self.teacher, self.candidate)

    @staticmethod
    def of(name: str) -> Output:
        """From that name."""
        teacher, candidate = schemas.output_of(name)
        return Output(teacher=teacher, candidate=candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTable:
    """One output over the boxes of a shard.

    Attributes:
        has_mask: [N]
        columns: the columns that were asked for, [N], null without a mask.
    """

    has_mask: Bools
    columns: Mapping[str, pa.Array]
    _numbers: dict[str, Floats] = field(default_factory=dict)

    def numbers(self, name: str) -> Floats:
        """[N] float32, not to be changed; NaN for null."""
        if name not in self._numbers:
            self._numbers[name] = as_floats(self.columns[name])
        return self._numbers[name]


def as_floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    """[N] float32 of any column of numbers; NaN for null."""
    values: Floats = np.asarray(
        column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        if isinstance(column, pa.Array)
        else column.cast(pa.float32(), safe=False).to_numpy(),
        dtype=np.float32,
    )
    return values


def teachers_of(manifest: Manifest, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The teachers that have drawn something, or those of them that are named; sorted."""
    prefix = schemas.masks_layer("")
    drawn = [
        layer.removeprefix(prefix)
        for layer in manifest.layers()
        if layer.startswith(prefix) and layer != schemas.MASKS_HUMAN
    ]
    return tuple(sorted(name for name in drawn if not names or name in names))


def read_outputs(
    dataset: Dataset,
    shard: str,
    teachers: Iterable[str],
    columns: Sequence[str],
    *,
    num_rows: int,
) -> dict[Output, OutputTable]:
    """Columns of every output of some teachers; a teacher that the shard lacks is left out.

    Args:
        columns: names of `schemas.MASK_FIELDS`.
        num_rows: the boxes' number.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or has other rows.
    """
    found: dict[Output, OutputTable] = {}
    for teacher in teachers:
        layer = schemas.masks_layer(teacher)
        if dataset.manifest.get(shard, layer) is None:
            continue
        wanted = ["status", *columns, *(f"candidates.{name}" for name in columns)]
        table = aligned_table(dataset, shard, layer, num_rows, columns=wanted)
        for candidate, output in enumerate(_of_teacher(table, columns)):
            found[Output(teacher=teacher, candidate=candidate)] = output
    return found


def _of_teacher(table: pa.Table, columns: Sequence[str]) -> Iterator[OutputTable]:
    """The teacher's own choice, then its candidates."""
    is_ok = pc.equal(table["status"], schemas.OK).combine_chunks()
    own = {name: table[name].combine_chunks() for name in columns}
    yield OutputTable(has_mask=np.asarray(is_ok), columns=own)
    candidates = table["candidates"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(candidates), 0).to_numpy(zero_copy_only=False)
    starts = np.cumsum(lengths) - lengths
    structs = candidates.flatten()
    fields = {name: pc.struct_field(structs, name) for name in columns}
    for number in range(int(lengths.max(initial=0))):
        has_mask = lengths > number
        # Positions among the structs; null, and so a null value, where there is none.
        places = pa.array(starts + number, mask=~has_mask)
        yield OutputTable(
            has_mask=has_mask, columns={name: fields[name].take(places) for name in columns}
        )
