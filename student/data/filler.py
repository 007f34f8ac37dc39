"""Fetches objects in the background, one after the other, each no more often than sensible."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from manifests.errors import MaskmillError
from manifests.store import Store, StoredObject

_log = logging.getLogger(__name__)
_TRY_AGAIN_S = 60.0


class Filler:
    """A daemon thread, begun when it is first needed. What goes wrong is logged, never raised."""

    def __init__(self, fetch: Callable[[Store, StoredObject], None]) -> None:
        self._fetch = fetch
        self._wanted: queue.SimpleQueue[tuple[Store, StoredObject]] = queue.SimpleQueue()
        self._not_before: dict[str, float] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._num_open = 0
        self._thread: threading.Thread | None = None

    def want(self, store: Store, stored: StoredObject) -> None:
        """Asks for an object; nothing happens if that was done a moment ago."""
        now = time.monotonic()
        with self._lock:
            if now < self._not_before.get(stored.object_id, now):
                return
            self._not_before[stored.object_id] = now + _TRY_AGAIN_S
            self._num_open += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="filler", daemon=True)
                self._thread.start()
        self._wanted.put((store, stored))

    def wait(self) -> None:
        """Returns when all that was asked for has been fetched or given up."""
        with self._idle:
            self._idle.wait_for(lambda: not self._num_open)

    def _work(self) -> None:
        while True:
            store, stored = self._wanted.get()
            try:
                self._fetch(store, stored)
            except (MaskmillError, OSError) as error:  # images then come from the store one by one
                _log.warning("object %s is not cached: %s", stored.object_id[:12], error)
            with self._idle:
                self._not_before[stored.object_id] = time.monotonic() + _TRY_AGAIN_S
                self._num_open -= 1
                self._idle.notify_all()
