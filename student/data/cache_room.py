"""The room in a cache's folder: which files it has, when each was used, and which go first."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from manifests.file_lock import locked

TEMPORARY = ".tmp"
_log = logging.getLogger(__name__)
_TOUCH_AFTER_S = 60.0
_IN_USE_S = 900.0
_ORPHAN_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A file of the cache; `age_s` since its last use."""

    path: Path
    num_bytes: int
    age_s: float
    is_made: bool


class CacheRoom:
    """Counts and deletes; see cell_cache for what is kept and why."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._touched: dict[Path, float] = {}
        self._has_warned = False

    def make(self, num_bytes: int, *, keep: Path | None = None) -> bool:
        """Deletes what was not used for longest, until so many bytes fit; says whether they do.

        What is in use stays, unless the room is for `keep`, a file that is there already; what was
        made goes last then.
        """
        with locked(self._folder / "locks" / "room"):
            entries = self._entries()
            excess = sum(entry.num_bytes for entry in entries) + num_bytes - self._max_bytes
            least_age = _IN_USE_S if keep is None else -math.inf
            old = [
                entry
                for entry in entries
                if entry.age_s >= least_age
                and entry.path != keep
                and entry.path.suffix != TEMPORARY  # somebody is writing it
            ]
            if keep is None and sum(entry.num_bytes for entry in old) < excess:
                return False
            for entry in sorted(old, key=lambda one: (bool(keep) and one.is_made, -one.age_s)):
                if excess <= 0:
                    break
                if entry.is_made and entry.age_s < _IN_USE_S:
                    self._warn_of_thrashing()
                entry.path.unlink(missing_ok=True)
                excess -= entry.num_bytes
            return excess <= 0

    def _warn_of_thrashing(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the cache in %s is too small for masks in use, which are made again and again; "
                "raise data.cache_bytes above %d",
                self._folder,
                self._max_bytes,
            )

    def _entries(self) -> list[_Entry]:
        """Every file; what killed processes left is deleted."""
        found, now = [], time.time()
        for kind in ("objects", "made"):
            for path in (self._folder / kind).glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    age_s = now - status.st_mtime
                    if path.suffix == TEMPORARY and age_s > _ORPHAN_S:
                        path.unlink()
                        continue
                    found.append(
                        _Entry(
                            path=path,
                            num_bytes=status.st_size,
                            age_s=age_s,
                            is_made=kind == "made",
                        )
                    )
        return found

    def touch(self, path: Path) -> None:
        """Its time of change is its last use; written once a minute at most."""
        now = time.monotonic()
        if now - self._touched.get(path, -_TOUCH_AFTER_S) >= _TOUCH_AFTER_S:
            self._touched[path] = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
