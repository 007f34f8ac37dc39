"""Waiting for a store that does not answer: a training must survive a minute without network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from manifests.file_system import NoAnswerError

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to ask again, and how often.

    Attributes:
        total_s: after so long without an answer the store's own error is raised.
        first_wait_s, most_wait_s: each wait is twice the last one, between these two.
        sleep, clock: for tests.
    """

    total_s: float = 600.0
    first_wait_s: float = 1.0
    most_wait_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def ask(self, question: Callable[[], _Answer], *, what: str) -> _Answer:
        """The answer, as soon as the store gives one.

        Args:
            question: only reads, so that it may be asked twice.
            what: is read, for the log.

        Raises:
            NoAnswerError: none in `total_s`.
            StoreError, RefError: the store answered, and this is what it said; not asked again.
        """
        begun, wait_s, was_silent = self.clock(), self.first_wait_s, False
        while True:
            try:
                answer = question()
            except NoAnswerError as error:
                if self.clock() - begun + wait_s > self.total_s:
                    raise
                _log.warning("%s: %s; asking again in %.0f s", what, error, wait_s)
                self.sleep(wait_s)
                wait_s, was_silent = min(2 * wait_s, self.most_wait_s), True
                continue
            if was_silent:
                _log.warning("%s: answered after %.0f s", what, self.clock() - begun)
            return answer
