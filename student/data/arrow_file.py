"""Tables as Arrow files that are mapped into memory: many processes share one copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from student.data.cell_cache import DamagedFileError


def write_arrow(table: pa.Table, path: Path) -> None:
    """One record batch, uncompressed, so that every column is mapped as one array."""
    batches = table.combine_chunks().to_batches()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(batches[0] if batches else _no_rows(table.schema))


def read_arrow(path: Path) -> pa.RecordBatch:
    """What `write_arrow` wrote, mapped. It can be read on after the file was deleted.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is no such file.
    """
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).get_batch(0)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError(str(error)) from error


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class Columns:
    """A table without nulls, whose columns of numbers are read as numpy arrays, nothing copied."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._arrays: dict[str, pa.Array] = dict(
            zip(batch.schema.names, batch.columns, strict=True)
        )
        self._numbers = {name: _as_numpy(array) for name, array in self._arrays.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:  # Any: the column's own type
        """[N], or [N, k] for a column of fixed-size lists."""
        return self._numbers[name]

    def numbers(self, name: str, row: int) -> NDArray[Any]:  # Any: the column's own type
        """The numbers of one list of a column of lists."""
        array = self._arrays[name]
        offsets = self._numbers[name]
        return np.asarray(array.values)[offsets[row] : offsets[row + 1]]

    def item(self, name: str, row: int) -> Any:  # Any: the column's own type
        """One value as Python's own."""
        return self._arrays[name][row].as_py()


def _as_numpy(array: pa.Array) -> NDArray[Any]:  # Any: the column's own type
    """Of lists: where each begins, and where the last ends."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        return np.asarray(array.flatten()).reshape(-1, kind.list_size)
    if pa.types.is_list(kind):
        return np.asarray(array.offsets)
    if pa.types.is_fixed_size_binary(kind):
        return np.frombuffer(array.buffers()[1] or b"", np.uint8)
    return np.asarray(array)
