"""What is said when Ray does not start; tests/integration has a real cluster."""

from __future__ import annotations

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
