"""How `maskmill log` shows a history: as a table, one line a commit, or as a graph."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from manifests.commit import CellChanges, Commit
from manifests.console import say
from manifests.log import LogEntry
from manifests.log_graph import LogGraph


def log_json(entries: Iterable[LogEntry]) -> list[dict[str, Any]]:  # Any: JSON
    """The commits as they are, with the refs that are at them."""
    return [
        {"commit_id": entry.commit_id, **asdict(entry.commit), "refs": list(entry.refs)}
        for entry in entries
    ]


def print_log(entries: Iterable[LogEntry]) -> None:
    """A few lines a commit, as they come: what, when, by whom, and which cells it changed."""
    for entry in entries:
        commit = entry.commit
        refs = f"  ({', '.join(entry.refs)})" if entry.refs else ""
        who = f"{commit.operation.name} by {commit.author}"
        say(f"{entry.commit_id[:12]}  {commit.time}  {who}{refs}")
        for line in commit.message.splitlines() or [""]:
            say(f"    {line}".rstrip())
        if changes := changed(commit):
            say(indented(", ".join(changes)))


def print_lines(entries: Iterable[LogEntry], *, graph: bool, oneline: bool) -> None:
    """A line a commit as they come, with the graph at its left if that is wanted."""
    drawing = LogGraph()
    for entry in entries:
        star, links = drawing.place(entry.commit_id, entry.parents) if graph else ("", [])
        say(_fitting(f"{star} {_line(entry, oneline=oneline)}".lstrip()))
        for link in links:
            say(link)


def changed(commit: Commit) -> list[str]:
    """`masks/box +2 ~1 -1` for every layer that the commit says it changed: cells."""
    return [f"{layer} {counts(change)}" for layer, change in sorted((commit.changes or {}).items())]


def counts(change: CellChanges) -> str:
    """`+2 ~1 -1`: cells added, replaced and removed."""
    signs = (("+", change.added), ("~", change.replaced), ("-", change.removed))
    return " ".join(f"{sign}{count:,}" for sign, count in signs if count)


def indented(text: str) -> str:
    """Wrapped to the terminal, four columns in."""
    return textwrap.fill(
        text, width=width(), initial_indent="    ", subsequent_indent="    ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def width() -> int:
    """Columns of the terminal; 120 where the output goes into a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 120


def _line(entry: LogEntry, *, oneline: bool) -> str:
    commit = entry.commit
    refs = f" ({', '.join(entry.refs)})" if entry.refs else ""
    message = " ".join(commit.message.split())
    if oneline:
        return f"{entry.commit_id[:12]}{refs} {message}"
    when = f"{commit.time[:10]} {commit.time[11:16]}"
    name = commit.operation.name
    said = message if name in message.split() else f"{name}: {message}"
    return f"{entry.commit_id[:12]} {when} {commit.author}{refs} {said}"


def _fitting(line: str) -> str:
    """Cut at the edge of a terminal, where a second line would break the graph."""
    if not sys.stdout.isatty():
        return line
    most = width()
    return line if len(line) <= most else f"{line[: most - 1]}…"
