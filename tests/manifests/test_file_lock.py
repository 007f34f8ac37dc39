"""One holder at a time, for as long as it lives."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from manifests.file_lock import locked


def test_a_second_one_is_not_let_in_until_the_first_one_left(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one"
    other = tmp_path / "two"
    with (
        locked(path) as is_first,
        locked(path, wait=False) as is_second,
        locked(other, wait=False) as is_other,
    ):
        assert (is_first, is_second, is_other) == (True, False, True)
    with locked(path, wait=False) as is_held:
        assert is_held


def _hold(path: Path, told: Connection) -> None:
    with locked(path):
        told.send(os.getpid())
        signal.pause()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    here, there = get_context("fork").Pipe()
    holder = get_context("fork").Process(target=_hold, args=(tmp_path / "lock", there))
    holder.start()
    assert here.poll(30)
    with locked(tmp_path / "lock", wait=False) as is_held:
        assert not is_held
    holder.kill()
    holder.join()
    with locked(tmp_path / "lock", wait=False) as is_held:
        assert is_held


def test_a_file_system_without_locks_lets_everybody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path / "lock") as is_first, locked(tmp_path / "lock", wait=False) as is_second:
        assert is_first
        assert is_second
