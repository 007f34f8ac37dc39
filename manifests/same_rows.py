"""Whether two tables hold the same rows in the same order, and where they do not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def row_difference(expected: pa.Table, found: pa.Table) -> str | None:
    """What differs, for people: how many rows, in which columns; None if nothing does.

    A NaN is the same as a NaN, and two writers' metadata do not count.
    """
    if expected.schema.names != found.schema.names or expected.schema.types != found.schema.types:
        return f"columns {_columns(expected)} became {_columns(found)}"
    if expected.num_rows != found.num_rows:
        return f"{expected.num_rows:,} rows became {found.num_rows:,}"
    differs = np.zeros(expected.num_rows, dtype=bool)  # [N]
    names = []
    for name in expected.schema.names:
        in_column = _differing(expected[name], found[name])
        if in_column.any():
            names.append(name)
            differs |= in_column
    if not names:
        return None
    first = int(differs.argmax())
    return (
        f"{int(differs.sum()):,} of {expected.num_rows:,} rows, in {', '.join(names)}; the first "
        f"is row {first:,}"
    )


def _differing(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> np.ndarray:
    """[N] whether each value differs."""
    if expected.equals(found):
        return np.zeros(len(expected), dtype=bool)
    # Arrow compares no nested values; a NaN is not itself, but it is spelled like itself.
    pairs = zip(expected.to_pylist(), found.to_pylist(), strict=True)
    return np.array(
        [before != after and repr(before) != repr(after) for before, after in pairs], dtype=bool
    )


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in table.schema)
