"""The commands about teachers and their weights: teachers, weights list, weights fetch."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.console import JsonOption, examples, print_table, say, show

weights_app = typer.Typer(
    help="Model weights, each pinned by its SHA-256.", rich_markup_mode=None, add_completion=False
)


def mount(app: typer.Typer) -> None:
    """Adds these commands to the root command line."""
    app.command(epilog=examples("maskmill teachers", "maskmill teachers --json"))(teachers)
    app.add_typer(weights_app, name="weights")


def teachers(as_json: JsonOption = False) -> None:
    """The teachers, and whether their weights are here."""
    from dataclasses import asdict

    from engine.roster import teachers as find_teachers

    found = find_teachers()
    rows = [
        (one.name, one.description, one.weights or "none needed", _yes_or_no(one.is_available))
        for one in found
    ]
    show(
        [asdict(one) for one in found],
        as_json=as_json,
        human=lambda: print_table("teachers", ("name", "what it does", "weights", "here"), rows),
    )


@weights_app.command("fetch", epilog=examples("maskmill weights fetch mobile_sam"))
def fetch(
    name: Annotated[str, typer.Argument(help="A name from 'maskmill weights list'.")],
    as_json: JsonOption = False,
) -> None:
    """Find a weights file, or download it and check its digest."""
    from teachers import weights

    path = str(weights.fetch(name))
    show({"name": name, "path": path}, as_json=as_json, human=lambda: say(path))


@weights_app.command(
    "list", epilog=examples("maskmill weights list", "maskmill weights list --json")
)
def list_weights(as_json: JsonOption = False) -> None:
    """Every weights file maskmill knows, its digest, and where it is on this machine."""
    from teachers import weights

    rows = [
        {
            "name": status.file.name,
            "bytes": status.file.num_bytes,
            "sha256": status.file.sha256,
            "path": None if status.path is None else str(status.path),
        }
        for status in weights.listing()
    ]
    show(
        rows,
        as_json=as_json,
        human=lambda: print_table(
            "weights",
            ("name", "bytes", "sha256", "here"),
            [(row["name"], row["bytes"], str(row["sha256"])[:16], row["path"] or "no")
             for row in rows],
            right=("bytes",),
        ),
    )  # fmt: skip


def _yes_or_no(is_true: bool) -> str:
    return "yes" if is_true else "no"
