"""The real command line, run in the test's own process, and what it said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import typer

from engine import cli
from manifests.console import run_app


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value and nothing else."""
        return json.loads(self.out)


Maskmill = Callable[..., Answer]


def command_line(capsys: pytest.CaptureFixture[str], app: typer.Typer = cli.app) -> Maskmill:
    """A function that runs `maskmill`, or another app in its way, with some arguments."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_app(app, arguments=[str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Answer(code=caught.value.code, out=out, err=err)

    return run
