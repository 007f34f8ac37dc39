"""How a command line ends."""

from __future__ import annotations

import os
import signal
import time

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


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(SystemExit) as ended:
        run_app(app, arguments=["--no-ignoring"])
    assert ended.value.code == 130
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            run_app(app, arguments=["--ignoring"])
        assert ended.value.code == 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
