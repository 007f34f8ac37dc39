"""What every command prints: JSON for machines or tables for people, and one-sentence errors."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from manifests.errors import MaskmillError

if TYPE_CHECKING:
    from manifests.store import Store

EXIT_CODES = """\b
Exit codes:
  0    done, also if there was nothing to do
  1    a bug in maskmill
  2    wrong usage of the command line
  3    a source, policy, job file or argument is wrong
  4    the store cannot be reached, is full, not suitable, or damaged
  5    a ref does not exist, exists already, or has a bad name
  6    a commit was refused: somebody else moved the branch first
  7    weights were not found, or have the wrong digest
  8    a job could not finish
  9    a commit was made again and came out different
  130  stopped by Ctrl-C or SIGTERM; the same command again goes on
  141  whoever read the output went away"""
_BUG, _USAGE, _STOPPED, _PIPE_CLOSED = 1, 2, 130, 141

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", "-s", envvar="MASKMILL_STORE", show_envvar=True, metavar="URL",
        help="The store: a folder or any fsspec URL, e.g. s3://bucket/prefix.",
    ),
]  # fmt: skip
RefOption = Annotated[
    str,
    typer.Option(
        "--ref", "-r", metavar="REF", help="A branch, tag, commit id or its beginning, or ref~n."
    ),
]
BranchOption = Annotated[
    str, typer.Option("--branch", "-b", metavar="NAME", help="The branch to commit to.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON value on standard output, errors too.")
]


MessageOption = Annotated[
    str, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit; empty: made up.")
]


def open_store(store: str) -> Store:
    """The store at an address; raises StoreError, saying to run init, if there is none."""
    from manifests.store import Store

    opened = Store(store)
    opened.check_is_store()
    return opened


def examples(*lines: str) -> str:
    """An epilog for --help that shows commands, a line each."""
    return "\n".join(
        ["\b", "Examples:" if len(lines) > 1 else "Example:", *map("  {}".format, lines)]
    )


def show(value: Any, *, as_json: bool, human: Callable[[], None]) -> None:  # Any: JSON or dataclass
    """Prints `value` as JSON, or calls `human` to print it for people."""
    if as_json:
        say(json.dumps(value, ensure_ascii=False, default=_plain))
    else:
        human()


def say(text: str) -> None:
    """A line on standard output."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:  # `maskmill log | head -1`: nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_PIPE_CLOSED) from error


def note(text: str) -> None:
    """A line for people on standard error, so that it never mixes with JSON."""
    sys.stderr.write(text + "\n")


def warn(text: str) -> None:
    """A warning nobody should miss, on standard error."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(
        f"WARNING: {text}", style="bold yellow", markup=False, highlight=False
    )


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
) -> None:
    """A table on standard output, its columns named in `right` aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    width = None if sys.stdout.isatty() else max(120, int(os.environ.get("COLUMNS", "0") or 0))
    console = Console(width=width)
    with console.capture() as captured:
        # Not as the table's own title, which would be folded to a narrow table's width.
        if title:
            console.print(Text(title, style="bold"))
        console.print(table)
    say("\n".join(line.rstrip() for line in captured.get().rstrip().splitlines()))


def run_app(app: typer.Typer, *, arguments: Sequence[str]) -> NoReturn:
    """Runs a command line; every failure is one sentence and an exit code that means something.

    `--debug` anywhere, or `MASKMILL_DEBUG=1`, shows the traceback as well.
    """
    debug = "--debug" in arguments or os.environ.get("MASKMILL_DEBUG") == "1"
    wanted = [argument for argument in arguments if argument != "--debug"]
    try:
        with _sigterm_like_ctrl_c():
            exit_code = app(args=wanted or ["--help"], prog_name="maskmill", standalone_mode=False)
    except Exception as error:  # the outermost boundary
        exit_code = _exit_code(error)
        if debug:
            traceback.print_exception(error, file=sys.stderr)
        _say_error(type(error).__name__, _sentence(error), exit_code, as_json="--json" in wanted)
    else:
        if exit_code == _STOPPED:  # Typer's answer to Ctrl-C
            _say_error("KeyboardInterrupt", "stopped", _STOPPED, as_json="--json" in wanted)
    sys.exit(exit_code or 0)


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """What a cluster's scheduler sends ends a command as Ctrl-C does, with a word on going on."""
    is_free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_free:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_code(error: Exception) -> int:
    if isinstance(error, MaskmillError):
        return error.exit_code
    if isinstance(error, typer.Abort):
        return _STOPPED
    return _USAGE if isinstance(error, typer.TyperException) else _BUG


def _sentence(error: Exception) -> str:
    if isinstance(error, MaskmillError):
        return str(error)
    if isinstance(error, typer.Abort):
        return "stopped"
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "maskmill"
        text = error.format_message().rstrip(".")
        return f"{text[:1].lower()}{text[1:]}; see '{command} --help'"
    detail = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__}: {detail or 'no message'}; please report it, with what "
        "--debug shows"
    )


def _say_error(kind: str, text: str, exit_code: int, *, as_json: bool) -> None:
    if as_json:
        say(
            json.dumps(
                {"error": {"kind": kind, "message": text, "exit_code": exit_code}},
                ensure_ascii=False,
            )
        )
    else:
        note(f"maskmill: {text}")


def _plain(value: object) -> object:
    """Dataclasses as their fields, wherever they are in it; mappings that are no dict as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
