"""The same changes with DVC and with Lance, on the same data, beside maskmill.

    uv venv /tmp/peers && uv pip install --python /tmp/peers/bin/python -r requirements/bench.in
    python benchmarks/versions_peers.py --store /tmp/st --peers /tmp/peers

Each tool is used as its documentation recommends for much data. DVC versions the layers as files,
one a shard, in a folder a layer (`dvc add`, cache.type hardlink) beside a git repository that it
needs. Lance holds all annotation layers as one dataset (see versions_lance.py); images stay out of
it. Where a tool has no such operation, the cell says so.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measured import Run, linked_copy, run_measured
from rich.console import Console
from rich.table import Table
from versions import (
    COMMIT,
    COMMIT_NEW,
    DIFF_NEW,
    DIFF_REFILTER,
    FSCK,
    GC,
    LOG,
    REFILTER,
    STATS,
    Bench,
)

FIRST = "first import of all data"
GROWTH = "bytes stored for one changed layer"
ROWS = (FIRST, REFILTER, COMMIT, COMMIT_NEW, DIFF_REFILTER, DIFF_NEW, LOG, FSCK, GC, STATS, GROWTH)
_LANCE_STEPS = str(Path(__file__).with_name("versions_lance.py"))
_FOLDERS = ("images", "image_index", "boxes", "human", "masks", "verdicts")

# Cells as plain files, named by the shard's number: Parquet, and tar for images.
_EXPORT = """
import shutil, sys
from pathlib import Path
from manifests import layout
from manifests.dataset import Dataset
from manifests.store import Store
store, folder, (since, ref), layers = sys.argv[1], Path(sys.argv[2]), sys.argv[3:5], sys.argv[5:]
names = {"images": "images", "image_index": "image_index", "boxes": "boxes",
         "masks/human": "human", "masks/sam_vit_t": "masks", "verdicts": "verdicts"}
dataset = Dataset.open(Store(store), ref)
known = len(Dataset.open(Store(store), since).manifest.shards()) if since else 0
for number, shard in enumerate(dataset.manifest.shards()):
    for layer, name in names.items():
        cell = dataset.manifest.get(shard, layer)
        if cell is None or number < known or name not in layers:
            continue
        kind = "tar" if layer == "images" else "parquet"
        target = folder / name / f"{number:06}.{kind}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(store) / layout.object_path(cell.object_id), target)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Folders of files made of one store.

    Attributes:
        data: the main branch, a folder a layer.
        verdicts: that layer after each re-filter.
        new: the layers of 1% new shards.
    """

    data: Path
    verdicts: tuple[Path, ...]
    new: Path


NOTES = """\
DVC compares files: its diff names the 600 that changed, and nothing in it looks into them. Its
bytes are those of the files alone.
Lance compares rows: its delta takes every row of a replaced column for updated, so `diff after the
re-filter` is a script that reads both versions' columns in step and counts flips of `keep`, without
reasons, teachers, boxes or images. New rows come from the delta. The re-filter is a function over
batches with the same rules, human masks aside. Images are not in the dataset.
maskmill's bytes are the verdicts, and more than twice as much for records of finished work, which
hold each shard's ledger.
"""

Answers = dict[str, list[Run] | str]
"""Row -> its runs, or a sentence why there are none, or another figure."""


def measure_maskmill(bench: Bench) -> Answers:
    """Makes the branches that the other tools get their data from."""
    answers: Answers = {FIRST: "made in place"}
    for operation in bench.operations():
        if operation.name in ROWS:
            before = size_of(bench.store)
            figures = bench.measure(operation)
            grown = size_of(bench.store) - before
            if operation.name == REFILTER:
                answers[GROWTH] = f"{grown / bench.repeats / 1e6:.1f} MB"
            answers[operation.name] = figures.skipped or [
                Run(seconds=seconds, cpu_seconds=cpu, peak_mib=figures.peak_mib)
                for seconds, cpu in zip(figures.seconds, figures.cpu_seconds, strict=True)
            ]
            print("maskmill", operation.name, answers[operation.name], file=sys.stderr)
    return answers


def export(store: Path, folder: Path, repeats: int) -> Exported:
    """Copies cells out of the store's branches as `bench.operations()` left them."""
    new = folder / "new"
    run_export(store, folder / "data", "", "main", *_FOLDERS)
    run_export(store, new, "main", "bench-new", *_FOLDERS)
    variants = [folder / "variants" / str(repeat) for repeat in range(repeats)]
    for repeat, variant in enumerate(variants):
        run_export(store, variant, "", f"bench-filter-{repeat}", "verdicts")
    return Exported(
        data=folder / "data", verdicts=tuple(path / "verdicts" for path in variants), new=new
    )


def run_export(store: Path, folder: Path, since: str, ref: str, *layers: str) -> None:
    """Copies the layers of `ref`, only of shards that `since` lacks."""
    command = [sys.executable, "-c", _EXPORT, str(store), str(folder), since, ref, *layers]
    subprocess.run(command, check=True)


class Dvc:
    """A git repository with a folder a layer, in which the exported data lie."""

    def __init__(self, exported: Exported, peers: Path) -> None:
        self._exported, self._folder = exported, exported.data
        self._bin = peers / "bin"
        self._environment = f"PATH={self._bin}:$PATH DVC_NO_ANALYTICS=1 HOME={exported.data}/.home"
        for command in (
            "mkdir -p .home", "git init -q .", "git config user.name bench",
            "git config user.email bench@localhost", "echo /.home >.gitignore", "dvc init -q",
            "dvc config cache.type hardlink,symlink", "git add .gitignore .dvc .dvcignore",
            "git commit -qm start",
        ):  # fmt: skip
            self._run(command)

    def measure(self) -> Answers:
        """All rows; the last one is first put back where it was."""
        there = " ".join(name for name in _FOLDERS if (self._folder / name).exists())
        commit = "git add -A && git commit -qm step"
        answers: Answers = {
            FIRST: [self._run(f"dvc add -q {there} && {commit}")],
            REFILTER: "none: your own program",
            STATS: "none: it does not look into files",
        }
        before = size_of(self._folder)
        changes = []
        for variant in self._exported.verdicts:
            replace_files(variant, self._folder / "verdicts")
            changes.append(self._run(f"dvc add -q verdicts && {commit}"))
        answers[COMMIT] = changes
        answers[GROWTH] = f"{(size_of(self._folder) - before) / len(changes) / 1e6:.1f} MB"
        answers[DIFF_REFILTER] = self._repeat("dvc diff --json HEAD~1 HEAD")
        for layer in self._exported.new.iterdir():
            replace_files(layer, self._folder / layer.name)
        answers[COMMIT_NEW] = [self._run(f"dvc add -q {there} && {commit}")]
        answers[DIFF_NEW] = self._repeat("dvc diff --json HEAD~1 HEAD")
        answers[LOG] = self._repeat("git log")
        answers[FSCK] = self._repeat("dvc data status --json")
        answers[GC] = self._repeat("dvc gc --all-commits --dry --force")
        return answers

    def _repeat(self, command: str) -> list[Run]:
        return [self._run(command) for _ in self._exported.verdicts]

    def _run(self, command: str) -> Run:
        line = f"export {self._environment}; {command}"
        run = run_measured(["sh", "-c", line], folder=self._folder)
        print("dvc", command, run, file=sys.stderr)
        return run


class Lance:
    """All annotation layers as one dataset."""

    def __init__(self, exported: Exported, peers: Path) -> None:
        self._exported, self._python = exported, peers / "bin" / "python"
        self._dataset = exported.data.with_name("rows.lance")

    def measure(self) -> Answers:
        """All rows."""
        found, data = self._exported, self._exported.data
        answers: Answers = {FIRST: [self._run("make", data)]}
        before = size_of(self._dataset)
        changes = [self._run("replace_verdicts", variant) for variant in found.verdicts]
        answers[COMMIT] = changes
        answers[GROWTH] = f"{(size_of(self._dataset) - before) / len(changes) / 1e6:.1f} MB"
        answers[DIFF_REFILTER] = self._repeat("diff_verdicts", Path("0"))
        answers[COMMIT_NEW] = [self._run("append", found.new)]
        answers[DIFF_NEW] = self._repeat("diff_rows", data)
        answers[LOG] = self._repeat("log", data)
        answers[FSCK] = self._repeat("fsck", data)
        answers[GC] = self._repeat("gc", data)
        answers[STATS] = self._repeat("stats", data)
        answers[REFILTER] = [
            self._run("refilter", Path(f"{0.65 + n / 100:.2f}")) for n in range(len(changes))
        ]
        return answers

    def _repeat(self, step: str, folder: Path) -> list[Run]:
        return [self._run(step, folder) for _ in self._exported.verdicts]

    def _run(self, step: str, folder: Path) -> Run:
        command = [str(self._python), _LANCE_STEPS, str(self._dataset), step, str(folder)]
        run = run_measured(command)
        print("lance", shlex.join(command[2:]), run, file=sys.stderr)
        return run


def replace_files(source: Path, target: Path) -> None:
    """Hard-links files into a folder under their own names, never writing into an old file."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        place = target / file.name
        place.unlink(missing_ok=True)
        os.link(file, place)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, those with several names once."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            info = os.lstat(os.path.join(parent, name))
            sizes[info.st_ino] = info.st_size
    return sum(sizes.values())


def print_answers(columns: dict[str, Answers], title: str) -> None:
    """A row an operation, a column a tool: median seconds and highest peak memory."""
    table = Table(title=title, title_justify="left")
    table.add_column("seconds / peak MiB")
    for name in columns:
        table.add_column(name, justify="right")
    for row in ROWS:
        table.add_row(row, *(_shown(answers.get(row, "none")) for answers in columns.values()))
    Console(width=120).print(table)
    print(NOTES)


def _shown(answer: list[Run] | str) -> str:
    if isinstance(answer, str):
        return answer
    seconds = statistics.median(run.seconds for run in answer)
    return f"{seconds:.2f} / {max(run.peak_mib for run in answer):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="made by synthetic_store.py")
    parser.add_argument("--peers", type=Path, required=True, help="the peers' own environment")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", nargs="+", default=[], help="dvc, lance")
    given = parser.parse_args()
    columns: dict[str, Answers] = {}
    peers: dict[str, Callable[[Exported, Path], Answers]] = {
        "Lance": lambda exported, path: Lance(exported, path).measure(),
        # Last: it works in the exported folder itself.
        "DVC": lambda exported, path: Dvc(exported, path).measure(),
    }
    with tempfile.TemporaryDirectory(prefix="peers-", dir=given.store.absolute().parent) as folder:
        with linked_copy(given.store.absolute()) as store:
            bench = Bench(store, repeats=given.repeats, cold=False)
            images, boxes, *_ = bench.size()
            columns["maskmill"] = measure_maskmill(bench)
            exported = export(store, Path(folder), given.repeats)
        for name, measure in peers.items():
            if name.lower() not in given.without:
                columns[name] = measure(exported, given.peers.absolute())
    title = f"{images:,} images, {boxes:,} masks; {os.cpu_count()} cores; median of {given.repeats}"
    print_answers(columns, title)


if __name__ == "__main__":
    main()
