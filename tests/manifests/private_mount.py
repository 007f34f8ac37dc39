"""A program in a file system of its own, which nothing outside it sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TINY = 'mount -t tmpfs -o size=1m none "$1"'
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'


def run_mounted(
    mount: str, folder: Path, code: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python code after a mount over `folder`; skips where this machine does not let us."""
    shell = f'{mount} && shift && exec "$@"'
    private = ["unshare", "--mount", "--map-root-user", "sh", "-c", shell, "sh", str(folder)]
    command = [*private, sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no private file system can be mounted here: {done.stderr.strip()}")
    return done
