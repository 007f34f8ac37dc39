"""How far a transfer or checkout is, on standard error: a bar on a terminal, else some lines.

The bar shows bytes, speed and time left where bytes are counted, and plain numbers elsewhere.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol

_LINE_EVERY_S = 30.0
_SHOW_EVERY_S = 0.1


class ByteListener(Protocol):
    """Whoever wants to know how far it is; called from several threads."""

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
        """A phase begins, with so many things or bytes to do."""
        ...

    def advance(self, count: int) -> None:
        """So many more are done."""
        ...


class Silence:
    """A listener that does not listen."""

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None: ...

    def advance(self, count: int) -> None: ...


class ByteProgress:
    """Shows it to people; used as a context."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._lock = threading.Lock()
        self._name, self._total, self._done, self._in_bytes = "", 0, 0, False
        self._started = self._shown = self._line_written = 0.0
        self._task = self._bar.add_task("", total=None, visible=False, text="")

    def __enter__(self) -> ByteProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
        """See ByteListener."""
        with self._lock:
            self._name, self._total, self._done, self._in_bytes = name, total, 0, in_bytes
            self._started = self._shown = self._line_written = time.monotonic()
            self._bar.reset(
                self._task, total=max(1, total), description=name, visible=total > 0,
                text=self._text(self._started),
            )  # fmt: skip

    def advance(self, count: int) -> None:
        """See ByteListener."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._shown < _SHOW_EVERY_S and self._done < self._total:
                return
            self._shown = now
            text = self._text(now)
            self._bar.update(self._task, completed=self._done, text=text)
            if self._bar.disable and now - self._line_written >= _LINE_EVERY_S:
                self._line_written = now
                sys.stderr.write(f"{self._name}: {text}\n")

    def _text(self, now: float) -> str:
        if not self._in_bytes:
            return f"{self._done:,}/{self._total:,}"
        words = f"{size(self._done)} of {size(self._total)}"
        seconds = now - self._started
        if seconds < 1 or not self._done:
            return words
        per_s = self._done / seconds
        left_s = max(0, round((self._total - self._done) / per_s))
        return f"{words}, {size(round(per_s))}/s, {left_s // 60}:{left_s % 60:02} left"


def size(num_bytes: int) -> str:
    """1 KiB is 1,024 B: `512 B`, `1.5 MiB`, `12 GiB`."""
    amount = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
