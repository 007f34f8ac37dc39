"""`maskmill` as a user runs it, for benchmarks that are made of commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MASKMILL = str(Path(sys.executable).with_name("maskmill"))


def maskmill(*words: object) -> str:
    """One command; its standard output. What it says on the way goes to standard error.

    Raises:
        SystemExit: it failed; its last words are in the message.
    """
    command = [MASKMILL, *(str(word) for word in words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout
