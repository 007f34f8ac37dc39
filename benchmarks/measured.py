"""One command in a fresh process: seconds and peak memory; and a store it may work on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BYTECODE = str(Path(tempfile.gettempdir()) / f"maskmill-bench-bytecode-{os.getuid()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process: seconds on the wall and on all cores together, and its peak memory."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def run_measured(command: Sequence[str], *, folder: Path | None = None) -> Run:
    """Runs a command, in a folder, and measures it. A peak is at least this process's own 20 MiB.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            tail = output.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)[:300]} failed: {tail}")
    return Run(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024,
    )


@contextmanager
def linked_copy(store: Path) -> Iterator[Path]:
    """A copy beside the store whose files are hard links: nothing in a store is ever rewritten."""
    folder = Path(tempfile.mkdtemp(prefix=f"{store.name}-bench-", dir=store.parent))
    try:
        shutil.copytree(store, folder / "store", copy_function=os.link)
        yield folder / "store"
    finally:
        shutil.rmtree(folder)


def _environment() -> dict[str, str]:
    """Without bytecode, compiling what is imported would be most of a short command's time."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": _BYTECODE}


def drop_from_cache(store: Path) -> None:
    """Takes a store's files out of the page cache, so that they come from the disk."""
    for folder, _, names in os.walk(store):
        for name in names:
            file = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
