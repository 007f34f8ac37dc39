"""What is said when Ray does not start; tests/integration has a real cluster."""

from __future__ import annotations

import signal

import pytest
import ray

from engine.ray_session import ray_session
from manifests.errors import JobError


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", r"a local Ray did not start: the node timed out; run it again .*--inline"),
        ("auto", r"no Ray cluster at 'auto': the node timed out; start one"),
    ],
)
def test_a_ray_that_does_not_start_is_an_error_for_people(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    def too_slow(**_: object) -> None:
        raise Exception("the node timed out\nand much more")  # as plain as Ray's own

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(JobError, match=said), ray_session(address):
        pass


def test_sigterm_stays_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts its own answer in place, which ends the command without a word."""
    before = signal.getsignal(signal.SIGTERM)

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    try:
        with ray_session(""):
            assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
