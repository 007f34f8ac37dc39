"""CSV files of any size as batches of text columns, with the rows that do not parse counted."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from engine.sources.files import open_bytes, read_errors
from engine.sources.tables import first_defect
from manifests.errors import InputError

BLOCK_BYTES = 2 << 20
_TRUTH = {"1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvBatch:
    """Some consecutive rows: `[N]` text columns, and how many rows between them were unreadable."""

    columns: pa.RecordBatch
    broken_rows: int

    def text(self, name: str) -> pa.Array:
        """One column without surrounding white space."""
        return pc.utf8_trim_whitespace(self.columns.column(name))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """One column as `[N]` float64; infinity stays, and NaN stands for every text that is none.

        A written NaN is not told apart: either way there is no number.
        """
        text = self.text(name)
        try:
            values: NDArray[np.float64] = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            values = np.array([_number(item) for item in text.to_pylist()], dtype=np.float64)
        return values

    def truths(self, name: str) -> NDArray[np.bool_]:
        """One column of 0 and 1 (or true, yes) as `[N]` bool."""
        lower = pc.utf8_lower(self.text(name))
        found: NDArray[np.bool_] = pc.is_in(lower, pa.array(list(_TRUTH))).to_numpy(
            zero_copy_only=False
        )
        return found

    def empty(self, name: str) -> NDArray[np.bool_]:
        """`[N]` bool: which cells of a column are empty."""
        found: NDArray[np.bool_] = pc.equal(self.text(name), "").to_numpy(zero_copy_only=False)
        return found


def read_header(path: str) -> list[str]:
    """The column names of a CSV file.

    Raises:
        InputError: the file cannot be read, is empty, or has no text in UTF-8.
    """
    with open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            header = next(csv.reader(text), [])
        except (csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
            raise _not_csv(path, error) from error
        finally:
            text.detach()
    if not header:
        raise InputError(f"{path} is empty: expected a CSV file with a header line")
    return [name.strip() for name in header]


def read_csv(path: str, *, columns: Sequence[str], quoted: bool) -> Iterator[CsvBatch]:
    """The wanted columns as text; rows with another number of cells are skipped and counted.

    Args:
        path: the file.
        columns: their names.
        quoted: whether cells may be in double quotes. A quote that is never closed runs over the
            next lines, which are then counted as broken; a cell cannot hold a line break.

    Raises:
        InputError: the file cannot be read, is no CSV in UTF-8, or lacks a column.
    """
    header = read_header(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column '{missing[0]}': expected {', '.join(columns)}, "
            f"found {', '.join(header)}; check that it is the right file"
        )
    broken_lines: list[int] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        broken_lines.append(row.text.count("\n") + 1)
        return "skip"

    try:
        with open_bytes(path) as file, _open(file, header, columns, skip, quoted) as reader:
            for batch in reader:
                whole, run_over = _without_line_breaks(batch) if quoted else (batch, 0)
                yield CsvBatch(columns=whole, broken_rows=sum(broken_lines) + run_over)
                broken_lines.clear()
    except read_errors() as error:  # pa.ArrowInvalid, a ValueError, is among them
        raise _not_csv(path, error) from error
    if broken_lines:
        nothing = [pa.array([], pa.string()) for _ in columns]
        rest = pa.RecordBatch.from_arrays(nothing, names=list(columns))
        yield CsvBatch(columns=rest, broken_rows=sum(broken_lines))


def _without_line_breaks(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
    """The rows of one line each, and how many lines the others take up."""
    breaks = np.zeros(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        breaks += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
    if not breaks.any():
        return batch, 0
    return batch.filter(pa.array(breaks == 0)), int(breaks.sum() + np.count_nonzero(breaks))


def box_defects(
    batch: CsvBatch, *, image: str, label: str, boxes: NDArray[np.float64]
) -> pa.Array | None:
    """For each row what is wrong with it, if anything."""
    no_box: NDArray[np.bool_] = np.logical_or.reduce(np.isnan(boxes), axis=1)
    checks = [
        ("missing_image_id", batch.empty(image)),
        ("missing_category_id", batch.empty(label)),
        ("malformed_box", no_box),
    ]
    return first_defect(checks, rows=len(boxes))


def _open(
    file: object, header: Sequence[str], columns: Sequence[str], skip: object, quoted: bool
) -> arrow_csv.CSVStreamingReader:
    return arrow_csv.open_csv(
        file,
        read_options=arrow_csv.ReadOptions(
            block_size=BLOCK_BYTES, use_threads=False, column_names=list(header), skip_rows=1
        ),
        parse_options=arrow_csv.ParseOptions(
            quote_char='"' if quoted else False, invalid_row_handler=skip
        ),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=list(columns), column_types=dict.fromkeys(header, pa.string())
        ),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _not_csv(path: str, error: BaseException) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path}: expected a CSV file in UTF-8, got '{reason}'; fix or convert it")
