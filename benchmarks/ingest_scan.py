"""Time and peak memory of reading a COCO file: maskmill's scan against pycocotools.

    python benchmarks/ingest_scan.py --boxes 1000000 5000000

Each figure is the best of `--repeats` fresh processes, imports not timed, file in the page cache.
The scan ends with Arrow tables of every field, pycocotools with Python objects and its index.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from synthetic_coco import write_synthetic_coco

_SCAN = """
import json, resource, sys, time
from engine.sources.protocol import SourceConfig
from engine.sources.registry import open_source
config = SourceConfig(format="coco", annotations=sys.argv[1], images="", name="benchmark")
start = time.perf_counter()
rows = 0
for batch in open_source(config).scan():
    if batch.kind == "annotations":
        rows += batch.table.num_rows
"""
# Everything of an ingest that does not open an image: scan, spool, joins, ids, ledger, shards.
_PLAN = """
import json, resource, sys, tempfile, time
from pathlib import Path
import pyarrow as pa
from engine.fingerprint import FINGERPRINTS
from engine.ingest_config import IngestConfig
from engine.plan import IngestPlan
from engine.sources.protocol import SourceConfig
from engine.sources.registry import open_source
from engine.spool import Spool
from manifests.ledger import LedgerCounter
config = SourceConfig(format="coco", annotations=sys.argv[1], images="", name="benchmark")
start = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    spool = Spool(Path(folder))
    spool.fill(open_source(config))
    plan = IngestPlan(spool, IngestConfig(source=config), images_implied=False)
    entries = [entry for entry, _ in plan.files()]
    columns = [entries, [f"{entry:032x}" for entry in entries], [100_000] * len(entries),
               [None] * len(entries), [None] * len(entries)]
    known = pa.schema([("image_id", pa.string()), ("shard", pa.string())]).empty_table()
    plan.set_fingerprints(pa.table(columns, schema=FINGERPRINTS), known)
    plan.count(LedgerCounter())
    rows = 0
    for number in range(plan.num_shards()):
        rows += sum(len(boxes) for boxes in plan.shard(number).table["annotations"].to_pylist())
"""
_PYCOCOTOOLS = """
import contextlib, io, json, resource, sys, time
from pycocotools.coco import COCO
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    rows = len(COCO(sys.argv[1]).anns)
"""
_REPORT = """
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "rows": rows}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One reader on one file."""

    seconds: float
    peak_bytes: int
    rows: int


def measure(program: str, path: Path, *, repeats: int) -> Measured:
    """The fastest of some fresh processes, and the highest peak of them."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", program + _REPORT, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(Measured(**json.loads(done.stdout)))
    return Measured(
        seconds=min(run.seconds for run in runs),
        peak_bytes=max(run.peak_bytes for run in runs),
        rows=runs[0].rows,
    )


def _report(table: Table, path: Path, *, boxes: int, repeats: int) -> None:
    size = path.stat().st_size
    scan = measure(_SCAN, path, repeats=repeats)
    plan = measure(_PLAN, path, repeats=1)
    peer = measure(_PYCOCOTOOLS, path, repeats=repeats)
    readers = (("maskmill scan", scan), ("scan and plan", plan), ("pycocotools.COCO", peer))
    for name, found in readers:
        if found.rows != boxes:
            raise RuntimeError(f"{name}: expected {boxes} boxes of {path}, got {found.rows}")
        table.add_row(
            f"{boxes:,} ({size / 1e6:,.0f} MB)",
            name,
            f"{found.seconds:.2f}",
            f"{size / 1e6 / found.seconds:,.0f}",
            f"{found.peak_bytes / 1e6:,.0f}",
            f"{found.seconds / scan.seconds:.1f}x",
            f"{found.peak_bytes / scan.peak_bytes:.1f}x",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--polygons", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workdir", type=Path, help="where to put the files; default: a temporary")
    given = parser.parse_args()
    table = Table("boxes", "reader", "seconds", "MB/s", "peak MB", "time", "memory")
    with tempfile.TemporaryDirectory(dir=given.workdir) as folder:
        for boxes in given.boxes:
            path = Path(folder) / f"{boxes}.json"
            write_synthetic_coco(path, boxes=boxes, polygons=given.polygons)
            _report(table, path, boxes=boxes, repeats=given.repeats)
            path.unlink()
    Console().print(table)


if __name__ == "__main__":
    main()
