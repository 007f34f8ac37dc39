"""Lance's side of versions_peers.py: the store's boxes, masks and verdicts as one Lance dataset.

Runs in the peers' own environment, one step a process: `versions_lance.py DATASET STEP FOLDER`.
FOLDER holds the layers as Parquet files of one shard each. Images stay outside. As Lance's
documentation has it, a column that is computed anew is dropped and added again, which leaves all
other columns' files alone; `update` would rewrite every row with its RLE.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_T = TypeVar("_T")
_VERDICTS = ["keep", "reason", "teacher", "candidate"]
_SIGNALS = [
    "status", "height", "width", "predicted_iou", "stability", "box_iou", "outside_fraction",
    "area_px",
]  # fmt: skip


def make(dataset: str, folder: Path) -> None:
    """All rows with all their columns; stable row ids are what Lance's own delta needs."""
    batches = _rows(folder)
    first = next(batches)
    reader = pa.RecordBatchReader.from_batches(first.schema, _after(first, batches))
    lance.write_dataset(reader, dataset, enable_stable_row_ids=True)


def refilter(dataset: str, folder: Path) -> None:
    """Judges every row by rules on signals, as Lance would: a function over batches."""
    bound = float(folder.name)

    @lance.batch_udf()
    def judge(batch: pa.RecordBatch) -> pa.RecordBatch:
        fraction = pc.divide(
            batch["area_px"].cast(pa.float64()), pc.multiply(batch["height"], batch["width"])
        )
        rules = [
            (pc.less(batch["predicted_iou"], 0.7), "low_predicted_iou"),
            (pc.less(batch["stability"], 0.8), "low_stability"),
            (pc.less(batch["box_iou"], bound), "low_box_iou"),
            (pc.greater(batch["outside_fraction"], 0.1), "outside_box"),
            (pc.less(batch["area_px"], 64), "too_small"),
            (pc.greater(fraction, 0.95), "covers_image"),
            (pc.not_equal(batch["status"], "ok"), "no_mask"),
        ]
        reason = pa.scalar(None, pa.string())
        for is_broken, word in reversed(rules):
            reason = pc.if_else(pc.fill_null(is_broken, False), word, reason)
        return pa.record_batch({"keep": pc.is_null(reason), "reason": reason})

    opened = lance.dataset(dataset)
    opened.drop_columns(["keep", "reason"])
    opened.add_columns(judge, read_columns=_SIGNALS)


def replace_verdicts(dataset: str, folder: Path) -> None:
    """Puts ready columns in the place of the old ones; their rows are in the dataset's order."""
    tables = (pq.read_table(file) for file in sorted(folder.glob("*.parquet")))
    first = next(tables)
    schema = pa.schema([field.with_nullable(True) for field in first.schema])
    batches = (
        batch for table in _after(first, tables) for batch in table.cast(schema).to_batches()
    )
    opened = lance.dataset(dataset)
    opened.drop_columns([name for name in _VERDICTS if name in opened.schema.names])
    opened.add_columns(pa.RecordBatchReader.from_batches(schema, batches))


def append(dataset: str, folder: Path) -> None:
    """New images' rows."""
    batches = _rows(folder)
    first = next(batches)
    reader = pa.RecordBatchReader.from_batches(first.schema, _after(first, batches))
    lance.write_dataset(reader, dataset, mode="append")


def diff_verdicts(dataset: str, folder: Path) -> None:
    """Which rows flipped, by category: there is no such diff, so two versions are read in step."""
    versions = [entry["version"] for entry in lance.dataset(dataset).versions()]
    readers = [
        lance.dataset(dataset, version=version).scanner(columns=columns).to_batches()
        for version, columns in (
            (int(folder.name) or versions[0], ["keep", "reason", "category"]),
            (versions[-1], ["keep", "reason"]),
        )
    ]
    flipped: Counter[str] = Counter()
    for old, new in zip(*readers, strict=True):
        is_flipped = pc.not_equal(old["keep"], new["keep"])
        flipped.update(
            {entry["values"]: entry["counts"]
             for entry in pc.value_counts(old["category"].filter(is_flipped)).to_pylist()}
        )  # fmt: skip
    print(sum(flipped.values()), flipped.most_common(3))


def diff_rows(dataset: str, folder: Path) -> None:
    """The rows that came with the newest version: Lance's own delta, which reads all columns."""
    opened = lance.dataset(dataset)
    delta = opened.delta(compared_against=opened.version - 1)
    counts: Counter[str] = Counter()
    for batch in delta.get_inserted_rows():
        counts.update(batch["category"].to_pylist())
    print(sum(counts.values()), counts.most_common(3))


def log(dataset: str, folder: Path) -> None:
    """Versions with their times."""
    print(len(lance.dataset(dataset).versions()))


def fsck(dataset: str, folder: Path) -> None:
    """Lance's own check."""
    lance.dataset(dataset).validate()


def gc(dataset: str, folder: Path) -> None:
    """What would be removed of versions older than now."""
    print(lance.dataset(dataset).explain_cleanup_old_versions(older_than=timedelta(0)))


def stats(dataset: str, folder: Path) -> None:
    """Rows, and rows by category, which only a scan of the column tells."""
    opened = lance.dataset(dataset)
    counts: Counter[str] = Counter()
    for batch in opened.scanner(columns=["category"]).to_batches():
        counts.update(
            {entry["values"]: entry["counts"]
             for entry in pc.value_counts(batch["category"]).to_pylist()}
        )  # fmt: skip
    print(opened.count_rows(), counts.most_common(3))


def version(dataset: str, folder: Path) -> None:
    """The newest version's number."""
    print(lance.dataset(dataset).version)


def _rows(folder: Path) -> Iterator[pa.RecordBatch]:
    """Boxes, one teacher's masks, and verdicts, side by side, shard after shard."""
    for file in sorted((folder / "boxes").glob("*.parquet")):
        columns: dict[str, pa.ChunkedArray] = {}
        for layer in ("boxes", "masks", "verdicts"):
            table = pq.read_table(folder / layer / file.name)
            for name in table.column_names:
                if name not in ("candidates", "flags"):
                    columns[name if name not in columns else f"{layer}_{name}"] = table[name]
        nullable = [pa.field(name, column.type) for name, column in columns.items()]
        yield from pa.table([*columns.values()], schema=pa.schema(nullable)).to_batches()


def _after(first: _T, rest: Iterator[_T]) -> Iterator[_T]:
    yield first
    yield from rest


STEPS = {
    step.__name__: step
    for step in (make, refilter, replace_verdicts, append, diff_verdicts, diff_rows, log, fsck, gc,
                 stats, version)
}  # fmt: skip

if __name__ == "__main__":
    STEPS[sys.argv[2]](sys.argv[1], Path(sys.argv[3]))
