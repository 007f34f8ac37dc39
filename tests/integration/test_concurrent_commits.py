"""Processes that commit to one branch at the same time, beside a reader and a collector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "concurrent_commits.py"


def _run(url: str, *, writers: int, commits: int, timeout_s: int) -> dict[str, float]:
    command = [sys.executable, str(_SCRIPT), url, "--json"]
    command += ["--writers", str(writers), "--commits", str(commits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    verdict: dict[str, float] = json.loads(done.stdout)
    return verdict


def _check(verdict: dict[str, float], expected: int) -> None:
    numbers = ("commits_wanted", "commits_reported", "in_the_log")
    assert [verdict[name] for name in numbers] == [expected] * 3, verdict
    wrong = ("lost", "twice", "gaps_in_history", "shards_missing", "broken_commits_read")
    assert [verdict[name] for name in wrong] == [0] * 5, verdict
    assert verdict["whole_commits_read"] > 0
    assert verdict["sweeps"] > 0


def test_a_few_writers_on_a_disk(tmp_path: Path) -> None:
    _check(_run(str(tmp_path / "store"), writers=3, commits=5, timeout_s=200), 15)


def test_a_few_writers_on_s3(s3_url: str) -> None:
    _check(_run(s3_url, writers=3, commits=4, timeout_s=250), 12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_commits_on_a_disk(tmp_path: Path) -> None:
    _check(_run(str(tmp_path / "store"), writers=10, commits=100, timeout_s=3500), 1000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_commits_on_s3(s3_url: str) -> None:
    _check(_run(s3_url, writers=10, commits=100, timeout_s=3500), 1000)
