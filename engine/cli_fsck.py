"""The command that looks for damage: fsck. It lends fsck the decoder that it needs for images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import JsonOption, StoreOption, examples, note, say, show

if TYPE_CHECKING:
    from manifests.fsck import FsckReport

_DAMAGED = 4
_SHOWN = 50


def fsck(
    store: StoreOption,
    full: Annotated[
        bool, typer.Option("--full", help="Read every byte: hashes, rows, masks, images, ids.")
    ] = False,
    ref: Annotated[
        str | None,
        typer.Option("--ref", "-r", metavar="REF", help="Only what this ref reaches; else all."),
    ] = None,
    no_quarantine: Annotated[
        bool, typer.Option("--no-quarantine", help="Only tell; move nothing aside.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for damage, and say what it means. Exit code 4 if there is any."""
    from dataclasses import asdict

    from engine.stored_image import complaint_about
    from manifests.byte_progress import ByteProgress
    from manifests.fsck import FsckOptions
    from manifests.fsck import fsck as look
    from manifests.store import Store

    options = FsckOptions(
        full=full, ref=ref, quarantine=not no_quarantine, check_image=complaint_about
    )
    with nullcontext(None) if as_json else ByteProgress() as progress:
        report = look(Store(store), options, listener=progress)
    body = asdict(report) | {
        "is_sound": report.is_sound,
        "findings": [asdict(one) | {"sentence": one.sentence} for one in report.findings],
    }
    show(body, as_json=as_json, human=lambda: _print(report))
    if not report.is_sound:
        raise typer.Exit(_DAMAGED)


def _print(report: FsckReport) -> None:
    for finding in report.findings[:_SHOWN]:
        say(f"{finding.severity}: {finding.sentence}")
    if len(report.findings) > _SHOWN:
        note(f"and {len(report.findings) - _SHOWN:,} more; --json lists all")
    looked = (
        f"{report.num_objects:,} objects ({report.num_bytes:,} bytes) of {report.num_commits:,} "
        "commits"
    )
    how = "read every byte of" if report.full else "looked for"
    if report.is_sound:
        say(f"sound: {how} {looked}")
    else:
        say(f"{report.num_damaged:,} damaged: {how} {looked}")


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "fsck": (
        fsck,
        examples(
            "maskmill fsck --store st", "maskmill fsck --full --ref main",
            "maskmill fsck --no-quarantine --json",
        ),
    ),
}  # fmt: skip
"""Name -> command and what its --help shows at the end."""
