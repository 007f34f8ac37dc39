"""The command that makes a commit again and compares: reproduce."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli_pool import (
    CpusOption,
    GpusOption,
    InlineOption,
    RayOption,
    WorkersOption,
    pool_for,
)
from manifests.console import JsonOption, StoreOption, examples, note, print_table, say, show

if TYPE_CHECKING:
    from engine.again import ReproduceConfig
    from engine.reproduce import ChainStep, Reproduction
    from manifests.store import Store

_SHOWN = 20


def reproduce(
    store: StoreOption,
    commit: Annotated[str, typer.Argument(help="A commit id, branch, tag, or ref~n.")] = "main",
    chain: Annotated[
        bool, typer.Option("--chain", help="Every commit up to it, the first one first.")
    ] = False,
    move: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A source's file or folder that lies elsewhere now."),
    ] = None,
    ray_address: RayOption = "",
    workers: WorkersOption = 0,
    cpus_per_worker: CpusOption = 0,
    gpus_per_worker: GpusOption = 0.0,
    inline: InlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a commit again and compare it cell by cell. Exit code 9 if it came out different."""
    from engine.again import ReproduceConfig
    from manifests.store import Store

    opened = Store(store)
    opened.check_is_store()
    pool = pool_for(
        opened, inline=inline, ray_address=ray_address, workers=workers,
        cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker,
    )  # fmt: skip
    config = ReproduceConfig(pool=pool, moves=_moves(move or []))
    (_chain if chain else _single)(opened, commit, config, as_json=as_json)


def _single(store: Store, ref: str, config: ReproduceConfig, *, as_json: bool) -> None:
    from engine.progress import ProgressListener
    from engine.reproduce import reproduce as make_again

    with ProgressListener(is_quiet=as_json) as listener:
        made = make_again(store, ref, config, listener)
    show(_body(made), as_json=as_json, human=lambda: _print(made))
    if not as_json:
        made.require_same()
    _exit(made.is_same)


def _chain(store: Store, ref: str, config: ReproduceConfig, *, as_json: bool) -> None:
    from engine.progress import ProgressListener
    from engine.reproduce import reproduce_chain

    steps: list[ChainStep] = []
    with ProgressListener(is_quiet=as_json) as listener:
        for step in reproduce_chain(store, ref, config, listener):
            steps.append(step)
            listener.done(f"{step.operation} {step.commit_id[:12]}: {_outcome(step)}")

    def human() -> None:
        columns = ("commit", "operation", "cells made", "differ", "outcome")
        rows = [
            (step.commit_id[:12], step.operation, *_cells(step.reproduction), _outcome(step))
            for step in steps
        ]
        right = ("cells made", "differ")
        print_table(f"{ref}, every commit made again", columns, rows, right=right)
        for step in steps:
            if step.reproduction and not step.reproduction.is_same:
                _print(step.reproduction)

    body = {
        "is_same": all(step.reproduction and step.reproduction.is_same for step in steps),
        "commits": [_step_body(step) for step in steps],
    }
    show(body, as_json=as_json, human=human)
    for step in steps if not as_json else ():
        if step.error:
            raise step.error
        if step.reproduction:
            step.reproduction.require_same()
    _exit(bool(body["is_same"]))


def _exit(is_same: bool) -> None:
    from manifests.errors import OutcomeDiffersError

    if not is_same:
        raise typer.Exit(OutcomeDiffersError.exit_code)


def _moves(words: Sequence[str]) -> dict[str, str]:
    """Raises InputError for a word without `=`."""
    from engine.sources.protocol import absolute
    from manifests.errors import InputError

    found = {}
    for word in words:
        old, separator, new = word.partition("=")
        if not (separator and old and new):
            raise InputError(f"--move {word}: expected OLD=NEW, such as /then/photos=/now/photos")
        found[old] = absolute(new)
    return found


def _print(made: Reproduction) -> None:
    found = made.comparison
    fates = ("given", "same", "same_rows", "differs", "missing", "extra")
    shown = ("from parent", "same", "same rows, other bytes", *fates[3:])
    print_table(
        f"{made.operation} of {made.commit_id[:12]}, made again: cells",
        ("layer", *shown),
        [(layer, *(counts.get(fate, 0) for fate in fates))
         for layer, counts in found.layers.items()],
        right=shown,
    )  # fmt: skip
    cells = [cell for cell in found.cells if cell.fate != "same_rows"]
    rows = [(cell.fate, cell.layer, cell.shard[:12], cell.detail) for cell in cells[:_SHOWN]]
    if rows:
        print_table("cells that are not the same", ("", "layer", "shard", "how"), rows)
    _say_some(found.sentences)
    if len(cells) > _SHOWN:
        note(f"and {len(cells) - _SHOWN:,} more cells; --json lists all")
    if made.is_same:
        say(f"commit {made.commit_id[:12]} ({made.operation}) came out the same")


def _say_some(sentences: Iterable[str]) -> None:
    told = list(sentences)
    for sentence in told[:_SHOWN]:
        say(sentence)
    if len(told) > _SHOWN:
        note(f"and {len(told) - _SHOWN:,} more; --json lists all")


def _outcome(step: ChainStep) -> str:
    if step.reproduction is None:
        return f"not made again: {step.error}"
    return "the same" if step.reproduction.is_same else "different"


def _cells(made: Reproduction | None) -> tuple[int | None, int | None]:
    return (made.comparison.num_made, made.comparison.num_differing) if made else (None, None)


def _step_body(step: ChainStep) -> dict[str, Any]:  # Any: JSON
    if step.reproduction:
        return _body(step.reproduction)
    return {
        "commit_id": step.commit_id, "operation": step.operation, "is_same": False,
        "error": {"kind": type(step.error).__name__, "message": str(step.error)},
    }  # fmt: skip


def _body(made: Reproduction) -> dict[str, Any]:  # Any: JSON
    comparison = asdict(made.comparison)
    return {
        "commit_id": made.commit_id, "operation": made.operation, "is_same": made.is_same,
        "warnings": made.warnings, **comparison,
    }  # fmt: skip


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "reproduce": (
        reproduce,
        examples(
            "maskmill reproduce main~1 --store st", "maskmill reproduce release-1 --chain --inline",
            "maskmill reproduce 3f9a41c2 --move /then/photos=s3://bucket/photos --json",
        ),
    ),
}  # fmt: skip
"""Name -> command and what its --help shows at the end."""
