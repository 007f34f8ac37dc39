"""A lock between processes of one machine, let go of by the kernel if its holder dies."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a file, which is made and stays; threads exclude each other as well.

    Some network file systems have no locks. There everybody is let in, so what is written under a
    lock must still get its name only when it is complete.

    Args:
        path: of the lock file.
        wait: False: give up at once if somebody has it.

    Yields:
        Whether it is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:  # closing it lets go of the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            _log.debug("no lock on %s: %s", path, error)
        yield True
