"""A store whose answers fail to come."""

from __future__ import annotations

from manifests.file_system import NoAnswerError
from manifests.store import Store


class UnsteadyStore(Store):
    """Says nothing `failures` times, or never again if it `is_gone`; counts the bytes it gives."""

    def __init__(self, url: str, scratch: str = "") -> None:
        super().__init__(url, scratch)
        self.failures = 0
        self.is_gone = False
        self.num_bytes = 0

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        self._maybe_fail()
        self.num_bytes += num_bytes
        return super().read_range(object_id, start=start, num_bytes=num_bytes)

    def read_optional(self, key: str) -> bytes | None:
        self._maybe_fail()
        return super().read_optional(key)

    def _maybe_fail(self) -> None:
        if self.is_gone or self.failures:
            self.failures -= not self.is_gone
            raise NoAnswerError(f"{self.url}: no answer (TimeoutError)")
