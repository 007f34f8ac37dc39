"""Many processes commit to one branch while a reader reads and `gc` collects: is anything lost?

    python benchmarks/concurrent_commits.py STORE --writers 10 --commits 100

STORE is an address without a store: a folder, or s3://bucket/prefix of a server that honours
conditional writes. Every writer adds a shard of its own with every commit. In the end the branch's
log must name each commit once, each with the one before as its parent, and hold every shard.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from typing import Any

import pyarrow as pa

from manifests.cells import read_cell, write_cell
from manifests.console import print_table, say
from manifests.dataset import Dataset, init, operation
from manifests.errors import CommitError, StoreError
from manifests.gc import GcOptions, collect_garbage
from manifests.ledger import Ledger
from manifests.refs import Refs
from manifests.store import Store
from manifests.writer import Writer

_OPERATION = operation("test", version=1, config={})
_MAX_TRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found when everybody was done; all but the last five must be as expected."""

    writers: int
    commits_wanted: int
    commits_reported: int
    in_the_log: int
    lost: int
    twice: int
    gaps_in_history: int
    shards_missing: int
    broken_commits_read: int
    whole_commits_read: int
    sweeps: int
    objects_collected: int
    started_again: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Nothing lost, nothing twice, nothing half-visible."""
        wrong = (self.lost, self.twice, self.gaps_in_history, self.shards_missing)
        is_whole = not any(wrong) and not self.broken_commits_read
        return is_whole and self.commits_reported == self.in_the_log == self.commits_wanted


def write(url: str, name: int, commits: int, out: Any) -> None:  # Any: a queue of multiprocessing
    """A writer: so many commits, started again where `gc` (without any grace) was quicker."""
    store, again = Store(url), 0
    for number in range(commits):
        for _ in range(_MAX_TRIES):
            shard = f"writer-{name}-{number}"
            cell = write_cell(store, pa.table({"n": [number] * 3}), shard=shard, layer="boxes")
            writer = Writer(store, "main")
            try:
                commit_id = writer.commit(
                    writer.dataset.manifest.with_cells([cell]),
                    operation=_OPERATION,
                    ledger=Ledger(),
                    message=shard,
                )
            except CommitError as error:
                if "no longer in" not in str(error):
                    raise
                again += 1
                continue
            out.put(("commit", commit_id))
            break
    out.put(("again", again))


def read(url: str, stop: Event, out: Any) -> None:  # Any: as above
    """A reader: the head at any moment must have all of its cells."""
    store, whole, broken = Store(url), 0, 0
    while not stop.is_set():
        dataset = Dataset.open(store)
        try:
            for cell in list(dataset.manifest)[-5:]:
                read_cell(store, cell)
            whole += 1
        except StoreError:
            broken += 1
    out.put(("read", (whole, broken)))


def collect(url: str, stop: Event, out: Any) -> None:  # Any: as above
    """A collector without any grace period."""
    store, sweeps, collected = Store(url), 0, 0
    while not stop.is_set():
        try:
            collected += collect_garbage(store, GcOptions(grace_s=0, keep_log_s=0)).num_deleted
            sweeps += 1
        except StoreError as error:  # on a machine this busy it may not get its turn in time
            if "lost its place" not in str(error):
                raise
        stop.wait(0.5)
    out.put(("gc", (sweeps, collected)))


def run(url: str, *, writers: int, commits: int, with_gc: bool) -> Verdict:
    """Makes the store, lets everybody work, and looks at what is there."""
    init(Store(url))
    spawn = multiprocessing.get_context("spawn")
    stop, out = spawn.Event(), spawn.Queue()
    work = [spawn.Process(target=write, args=(url, n, commits, out)) for n in range(writers)]
    others = [spawn.Process(target=read, args=(url, stop, out))]
    if with_gc:
        others.append(spawn.Process(target=collect, args=(url, stop, out)))
    began = time.perf_counter()
    for process in (*work, *others):
        process.start()
    answers: list[tuple[str, Any]] = []
    try:
        _gather(out, answers, {"again": writers}, work)
        seconds = time.perf_counter() - began
        stop.set()
        _gather(out, answers, {"read": 1, "gc": int(with_gc)}, others)
        for process in (*work, *others):
            process.join(60)
    finally:
        for process in (*work, *others):
            process.kill()
    return _verdict(Store(url), answers, writers=writers, commits=commits, seconds=seconds)


def _gather(
    out: Any, answers: list[tuple[str, Any]], wanted: dict[str, int], processes: list[Any]
) -> None:  # Any: as above
    """Waits for so many answers of each kind; an ended process without one is an error."""
    import queue

    while any(sum(kind == name for kind, _ in answers) < n for name, n in wanted.items()):
        try:
            answers.append(out.get(timeout=5))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise SystemExit("a process failed; see above") from None


def _verdict(
    store: Store, answers: list[tuple[str, Any]], *, writers: int, commits: int, seconds: float
) -> Verdict:
    reported = [value for kind, value in answers if kind == "commit"]
    log = [entry.commit for entry in Refs(store).history("main")]
    head, gaps = Dataset(store, log[-1]), 0
    for before, after in itertools.pairwise(log):
        gaps += Dataset(store, after).commit.parents != (before,)
    wanted = {f"writer-{name}-{n}" for name in range(writers) for n in range(commits)}
    reads = [value for kind, value in answers if kind == "read"]
    sweeps = [value for kind, value in answers if kind == "gc"] or [(0, 0)]
    return Verdict(
        writers=writers,
        commits_wanted=writers * commits,
        commits_reported=len(reported),
        in_the_log=len(log) - 1,
        lost=len(set(reported) - set(log)),
        twice=len(log) - len(set(log)),
        gaps_in_history=gaps,
        shards_missing=len(wanted - set(head.manifest.shards())),
        broken_commits_read=reads[0][1],
        whole_commits_read=reads[0][0],
        sweeps=sweeps[0][0],
        objects_collected=sweeps[0][1],
        started_again=sum(value for kind, value in answers if kind == "again"),
        seconds=round(seconds, 1),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--no-gc", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    verdict = run(
        given.store, writers=given.writers, commits=given.commits, with_gc=not given.no_gc
    )
    if given.json:
        say(json.dumps(asdict(verdict)))
    else:
        rows = [(name.replace("_", " "), value) for name, value in asdict(verdict).items()]
        print_table("everybody at once, one branch", ("what", "count"), rows, right=("count",))
    sys.exit(0 if verdict.is_good else 1)


if __name__ == "__main__":
    main()
