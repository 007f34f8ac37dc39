"""Seconds and peak memory of clone, push and checkout, from a store to a new place.

    python benchmarks/transfer.py --store FOLDER --target s3://bucket/new-prefix
    python benchmarks/transfer.py --store FOLDER --target FOLDER/copy --checkout FOLDER/photos

`--store` is a folder, as benchmarks/synthetic_store.py makes it, and stays as it is. The target and
the checkout's folder must not exist; they are left behind. Every command runs in a process of its
own, as a user would run it, once: bytes travel only the first time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measured import linked_copy, run_measured
from rich.console import Console
from rich.table import Table

_MASKMILL = str(Path(sys.executable).with_name("maskmill"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--checkout", type=Path)
    given = parser.parse_args()
    table = Table(
        title=f"{given.store.name} to {('a bucket' if '://' in given.target else 'a folder')}"
    )
    for name in ("command", "seconds", "CPU s", "peak MiB"):
        table.add_column(name, justify="left" if name == "command" else "right")
    with linked_copy(given.store) as store:
        target = str(given.target)
        steps = [
            ("clone", ["clone", str(store), target]),
            ("push when up to date", ["push", target, "--store", str(store)]),
        ]
        if given.checkout:
            checkout = ["checkout", "main", str(given.checkout), "--store", target]
            steps += [("checkout", checkout), ("checkout of the same again", checkout)]
        for name, arguments in steps:
            run = run_measured([_MASKMILL, *arguments, "--json"])
            numbers = (f"{run.seconds:.1f}", f"{run.cpu_seconds:.1f}", f"{run.peak_mib:.0f}")
            table.add_row(name, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
