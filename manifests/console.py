"""What every command prints: JSON for machines or tables for people, and one-sentence errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from manifests.errors import MaskmillError

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", "-s", envvar="MASKMILL_STORE", show_envvar=True,
        help="The store: a folder or any fsspec URL, e.g. s3://bucket/prefix.",
    ),
]  # fmt: skip
RefOption = Annotated[
    str, typer.Option("--ref", "-r", help="A branch, tag, commit id or its beginning, or ref~n.")
]
BranchOption = Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def show(value: Any, *, as_json: bool, human: Callable[[], None]) -> None:  # Any: JSON or dataclass
    """Prints `value` as JSON, or calls `human` to print it for people."""
    if as_json:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        sys.stdout.write(json.dumps(plain, ensure_ascii=False, default=str) + "\n")
    else:
        human()


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line for people on standard error, so that it never mixes with JSON."""
    sys.stderr.write(text + "\n")


def warn(text: str) -> None:
    """A warning nobody should miss, on standard error."""
    from rich.console import Console

    Console(stderr=True).print(f"WARNING: {text}", style="bold yellow", markup=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: int = 0
) -> None:
    """A table on standard output; the last `numeric` columns are right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        is_number = position >= len(columns) - numeric
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    width = None if sys.stdout.isatty() else max(120, int(os.environ.get("COLUMNS", "0") or 0))
    Console(width=width).print(table)


def run_app(app: typer.Typer, *, arguments: Sequence[str]) -> None:
    """Runs a command line; every failure is one sentence and an exit code that means something.

    `--debug` anywhere, or `MASKMILL_DEBUG=1`, shows the traceback instead.
    """
    debug = "--debug" in arguments or os.environ.get("MASKMILL_DEBUG") == "1"
    wanted = [argument for argument in arguments if argument != "--debug"]
    try:
        app(args=wanted)
    except MaskmillError as error:
        _fail(error, str(error), error.exit_code, debug=debug, as_json="--json" in wanted)
    except KeyboardInterrupt as error:
        _fail(error, "stopped", 130, debug=debug, as_json="--json" in wanted)
    except Exception as error:  # the outermost boundary: whatever got here is a bug of ours
        text = f"unexpected {type(error).__name__}: {error}; please report it, with --debug"
        _fail(error, text, 1, debug=debug, as_json="--json" in wanted)


def _fail(error: BaseException, text: str, exit_code: int, *, debug: bool, as_json: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        body = {"error": {"kind": type(error).__name__, "message": text, "exit_code": exit_code}}
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"maskmill: {text}\n")
    sys.exit(exit_code)


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
