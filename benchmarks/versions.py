"""Seconds and peak memory of the operations on versions, on a store of any size.

    python benchmarks/synthetic_store.py /tmp/st --images 600000 --masks 10000000
    python benchmarks/versions.py --store /tmp/st

Every operation runs in a fresh process, as a user would run it, `--repeats` times; shown are the
median, the lowest and highest, the processor's time (more than the seconds: several threads; less:
the disk, or other programs), and the highest peak memory, as the kernel tells it. The store is left
as it is: a copy beside it, made of hard links, takes the scratch branches and is removed.
`--cold` first drops the store from the page cache, before every single run. Processes keep their
bytecode in a scratch folder, as installed programs do, whatever this shell says about it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measured import drop_from_cache, linked_copy, run_measured
from rich.console import Console
from rich.table import Table

_MASKMILL = [str(Path(sys.executable).with_name("maskmill"))]
_GENERATOR = [sys.executable, str(Path(__file__).with_name("synthetic_store.py"))]
_LIMIT_S, _LIMIT_MIB = 10.0, 1024.0
_NEW_IMAGES = 0.01
_LONG_HISTORY = 1000
_NO_SUCH_COMMAND = 2

# Rows that other tools have, too; see versions_peers.py.
REFILTER = "re-filter of all rows, new policy"
COMMIT = "commit of one changed layer"
COMMIT_NEW = "commit of 1% new shards"
DIFF_REFILTER = "diff after the re-filter"
DIFF_NEW = "diff after 1% new shards"
LOG = "log"
FSCK = "fsck, quick"
GC = "gc --dry-run"
STATS = "stats"

# `Writer.commit` alone: the new cells are in the store, as another commit has them.
_COMMIT = """
import sys
from manifests.dataset import Dataset
from manifests.writer import Writer
from manifests.store import Store
store, branch, made = Store(sys.argv[1]), sys.argv[2], sys.argv[3]
new, writer = Dataset.open(store, made), Writer(store, branch)
writer.commit(
    writer.dataset.manifest.with_cells(new.manifest),
    operation=new.commit.operation, ledger=new.commit.ledger, message="cells of " + made,
)
"""
# A chain of commits like the newest of main, each with its ledger, under one branch entry.
_HISTORY = """
import sys
from dataclasses import replace
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.refs import Refs
from manifests.store import Store
store, branch, count = Store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
main = Dataset.open(store, "main")
commit_id = main.commit_id
for number in range(count):
    commit = replace(main.commit, parents=(commit_id,), message=f"step {number}")
    commit_id = commit.save(store)
Refs(store).create_branch(branch, commit_id)
"""
_ONE_ANNOTATION = """
import sys
from manifests.dataset import Dataset
from manifests.store import Store
dataset = Dataset.open(Store(sys.argv[1]), "main")
shard = dataset.manifest.shards()[len(dataset.manifest.shards()) // 2]
print(dataset.table(shard, "boxes", columns=["annotation_id"])["annotation_id"][7].as_py())
"""
_SIZE = """
import sys
from manifests.dataset import Dataset
from manifests.store import Store
cells = list(Dataset.open(Store(sys.argv[1]), "main").manifest)
sums = [sum(c.num_rows for c in cells if c.layer == layer) for layer in ("images", "boxes")]
print(*sums, len(cells), sum(c.num_bytes for c in cells))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the table.

    Attributes:
        name: as shown.
        command: the repeat's number -> what to run.
        before: the repeat's number -> preparations, which are not timed.
        needs: the command of maskmill that must be there; "" for none.
        limits: whether the targets of time and memory are for this row.
        limit_s: seconds, if they are not those of the rest.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    before: Callable[[int], None] = lambda _: None
    needs: str = ""
    limits: bool = True
    limit_s: float = _LIMIT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Seconds of each repeat, the highest peak of them in MiB; or why there are none."""

    name: str
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    peak_mib: float = 0.0
    skipped: str = ""
    limit_s: float | None = None

    @property
    def verdict(self) -> str:
        """What the targets say."""
        if self.skipped or self.limit_s is None:
            return self.skipped
        misses = [
            f"over {self.limit_s:g} s" * (statistics.median(self.seconds) > self.limit_s),
            f"over {_LIMIT_MIB / 1024:g} GiB" * (self.peak_mib > _LIMIT_MIB),
        ]
        return ", ".join(filter(None, misses)) or "met"


class Bench:
    """Runs operations on a scratch copy of a store."""

    def __init__(self, store: Path, *, repeats: int, cold: bool) -> None:
        self.store, self.repeats, self.cold = store, repeats, cold

    def measure(self, operation: Operation) -> Figures:
        """Runs it `repeats` times, unless its command is not there."""
        if operation.needs and not _has_command(operation.needs):
            return Figures(
                name=operation.name, skipped=f"SKIPPED: no 'maskmill {operation.needs}' yet"
            )
        runs = []
        for repeat in range(self.repeats):
            operation.before(repeat)
            if self.cold:
                drop_from_cache(self.store)
            runs.append(run_measured(operation.command(repeat)))
        return Figures(
            name=operation.name,
            seconds=tuple(run.seconds for run in runs),
            cpu_seconds=tuple(run.cpu_seconds for run in runs),
            peak_mib=max(run.peak_mib for run in runs),
            limit_s=operation.limit_s if operation.limits else None,
        )

    def operations(self) -> list[Operation]:
        """All rows, in an order in which none changes what a later one measures."""
        at = ("--store", str(self.store), "--json")
        annotation = self._ask(_ONE_ANNOTATION)
        return [
            Operation(name="(python -c pass)", limits=False,
                      command=lambda _: [sys.executable, "-c", "pass"]),
            Operation(name="(maskmill --help)", limits=False,
                      command=lambda _: [*_MASKMILL, "--help"]),
            Operation(name=REFILTER, needs="filter",
                      before=lambda n: self.branch(f"bench-filter-{n}"),
                      command=lambda n: [*_MASKMILL, "filter", *at, *_policy(n)]),
            Operation(name=COMMIT, needs="filter",
                      before=lambda n: self.branch(f"bench-commit-{n}"),
                      command=lambda n: [sys.executable, "-c", _COMMIT, str(self.store),
                                         f"bench-commit-{n}", f"bench-filter-{n}"]),
            Operation(name=COMMIT_NEW,
                      before=lambda n: self._branch_for_new(n),
                      command=lambda n: [sys.executable, "-c", _COMMIT, str(self.store),
                                         f"bench-add-{n}", "bench-new"]),
            Operation(name=DIFF_REFILTER, needs="diff",
                      command=lambda n: [*_MASKMILL, "diff", "main", f"bench-filter-{n}", *at]),
            Operation(name=DIFF_NEW, needs="diff", limit_s=1.0,
                      command=lambda _: [*_MASKMILL, "diff", "main", "bench-new", *at]),
            Operation(name=LOG, command=lambda _: [*_MASKMILL, "log", *at]),
            Operation(name=FSCK, needs="fsck",
                      command=lambda _: [*_MASKMILL, "fsck", *at]),
            Operation(name=GC, needs="gc",
                      command=lambda _: [*_MASKMILL, "gc", "--dry-run", *at]),
            Operation(name=STATS, command=lambda _: [*_MASKMILL, "stats", *at]),
            Operation(name="show", command=lambda _: [*_MASKMILL, "show", *at]),
            Operation(name="status", needs="status",
                      command=lambda _: [*_MASKMILL, "status", *at]),
            Operation(name="sql: share kept by teacher", needs="sql",
                      command=lambda _: [*_MASKMILL, "sql", "main", _SQL, *at]),
            Operation(name="blame of one mask", needs="blame",
                      command=lambda _: [*_MASKMILL, "blame", annotation, *at]),
            Operation(name="merge of new shards", needs="merge",
                      before=lambda n: self.branch(f"bench-merge-{n}", f"bench-filter-{n}"),
                      command=lambda n: [*_MASKMILL, "merge", "bench-new",
                                         "--branch", f"bench-merge-{n}", *at]),
            Operation(name=f"log of {_LONG_HISTORY:,} commits",
                      before=lambda n: None if n else self._long_history("bench-log"),
                      command=lambda _: [*_MASKMILL, "log", "--ref", "bench-log", *at]),
        ]  # fmt: skip

    def size(self) -> tuple[int, int, int, int]:
        """Images, boxes, cells and bytes of main."""
        images, boxes, cells, num_bytes = map(int, self._ask(_SIZE).split())
        return images, boxes, cells, num_bytes

    def branch(self, name: str, ref: str = "main") -> None:
        """Starts a scratch branch."""
        _do([*_MASKMILL, "branch", name, ref, "--store", str(self.store)])

    def add_shards(self, branch: str) -> None:
        """Adds 1% new images, with all their layers, on a scratch branch."""
        images, boxes, *_ = self.size()
        _do(
            [*_GENERATOR, str(self.store), "--branch", branch, "--seed", "1",
             "--images", str(round(images * _NEW_IMAGES)),
             "--masks", str(round(boxes * _NEW_IMAGES))]
        )  # fmt: skip

    def _branch_for_new(self, repeat: int) -> None:
        if repeat == 0:
            self.add_shards("bench-new")
        self.branch(f"bench-add-{repeat}")

    def _long_history(self, branch: str) -> None:
        _do([sys.executable, "-c", _HISTORY, str(self.store), branch, str(_LONG_HISTORY)])

    def _ask(self, code: str) -> str:
        return _do([sys.executable, "-c", code, str(self.store)]).strip()


_SQL = "select teacher, count(*), avg(keep::int) from annotations group by 1"


def _policy(repeat: int) -> list[str]:
    """Never the same policy twice, so that no verdicts are found ready."""
    bound = f"rules.min_box_iou={0.65 + repeat / 100:.2f}"
    return ["--set", bound, "--branch", f"bench-filter-{repeat}"]


def _has_command(name: str) -> bool:
    asked = subprocess.run([*_MASKMILL, name, "--help"], capture_output=True, check=False)
    return asked.returncode != _NO_SUCH_COMMAND


def _do(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def print_figures(figures: Sequence[Figures], title: str) -> None:
    """One row an operation."""
    table = Table(title=title, title_justify="left")
    for column in ("operation", "seconds", "lowest", "highest", "CPU s", "peak MiB", "target"):
        table.add_column(column, justify="left" if column in ("operation", "target") else "right")
    for row in figures:
        cells = [""] * 5
        if row.seconds:
            median = statistics.median(row.seconds)
            cells = [f"{value:.2f}" for value in (median, min(row.seconds), max(row.seconds))]
            cells.append(f"{statistics.median(row.cpu_seconds):.2f}")
            cells.append(f"{row.peak_mib:.0f}")
        table.add_row(row.name, *cells, row.verdict)
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="made by synthetic_store.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the store from the page cache")
    parser.add_argument("--only", nargs="+", default=[], help="words that wanted rows hold")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    with linked_copy(given.store.absolute()) as store:
        bench = Bench(store, repeats=given.repeats, cold=given.cold)
        images, boxes, cells, num_bytes = bench.size()
        figures = []
        for operation in bench.operations():
            if not given.only or any(word in operation.name for word in given.only):
                figures.append(bench.measure(operation))
                print(asdict(figures[-1]), file=sys.stderr)
    title = (
        f"{images:,} images, {boxes:,} masks, {cells:,} cells, {num_bytes / 1e9:.1f} GB; "
        f"{os.cpu_count()} cores; {'cold' if given.cold else 'warm'} cache; "
        f"median of {given.repeats}; target {_LIMIT_S:g} s, {_LIMIT_MIB / 1024:g} GiB"
    )
    print_figures(figures, title)
    if given.json:
        rows = [{**asdict(row), "verdict": row.verdict} for row in figures]
        given.json.write_text(json.dumps({"title": title, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
