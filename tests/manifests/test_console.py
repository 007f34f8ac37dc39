"""How a command line ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import typer

from manifests.console import run_app

app = typer.Typer()


@app.command()
def wait(ignoring: bool = False) -> None:
    """Is told to stop by its scheduler."""
    before = signal.getsignal(signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    if ignoring:
        assert before is signal.SIG_IGN
        raise typer.Exit(0)
    time.sleep(10)
    raise AssertionError("the signal went by")


@pytest.fixture
def sigterm() -> Iterator[Callable[[signal.Handlers], None]]:
    """Sets how this process answers SIGTERM, until the test is over."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_command_as_ctrl_c_does(
    capsys: pytest.CaptureFixture[str], sigterm: Callable[[signal.Handlers], None]
) -> None:
    sigterm(signal.SIG_DFL)
    with pytest.raises(SystemExit) as ended:
        run_app(app, arguments=["--no-ignoring"])
    assert ended.value.code == 130
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so(sigterm: Callable[[signal.Handlers], None]) -> None:
    sigterm(signal.SIG_IGN)
    with pytest.raises(SystemExit) as ended:
        run_app(app, arguments=["--ignoring"])
    assert ended.value.code == 0
