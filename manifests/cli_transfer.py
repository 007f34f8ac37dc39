"""Commands that bring datasets elsewhere: clone, push, pull, checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import JsonOption, StoreOption, examples, print_table, say, show

if TYPE_CHECKING:
    from manifests.byte_progress import ByteListener
    from manifests.transfer import TransferSummary

RefsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[REF]...", help="Branches and tags; none: main.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every branch.")]
TagsOption = Annotated[bool, typer.Option("--tags", help="Every tag.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what would travel; write nothing.")
]
RepairOption = Annotated[
    bool, typer.Option("--repair", help="Look for every object of the refs' whole history.")
]


def clone(
    source: Annotated[str, typer.Argument(help="The store to copy.")],
    target: Annotated[str, typer.Argument(help="A new place: a folder or any fsspec URL.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a store with all branches, tags and history. Run again, it goes on."""
    from manifests.store import Store
    from manifests.transfer import clone as copy

    with _progress(as_json=as_json) as listener:
        summary = copy(Store(source), Store(target), listener=listener)
    show(summary, as_json=as_json, human=lambda: _print_transfer(summary))


def push(
    store: StoreOption,
    target: Annotated[str, typer.Argument(help="The store to send to.")],
    refs: RefsArgument = None,
    all_branches: AllOption = False,
    tags: TagsOption = False,
    repair: RepairOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send branches and tags to another store; its branches only move forward."""
    from manifests.store import Store
    from manifests.transfer import TransferOptions
    from manifests.transfer import push as send

    options = TransferOptions(
        refs=refs or (), all_branches=all_branches, tags=tags, repair=repair, dry_run=dry_run
    )
    with _progress(as_json=as_json) as listener:
        summary = send(Store(store), Store(target), options, listener=listener)
    show(summary, as_json=as_json, human=lambda: _print_transfer(summary))


def pull(
    store: StoreOption,
    source: Annotated[str, typer.Argument(help="The store to fetch from.")],
    refs: RefsArgument = None,
    all_branches: AllOption = False,
    tags: TagsOption = False,
    ff_only: Annotated[
        bool, typer.Option("--ff-only", help="Refuse what only a merge could bring together.")
    ] = False,
    repair: RepairOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch branches and tags from another store; where both sides worked, merge."""
    from manifests.store import Store
    from manifests.transfer import TransferOptions
    from manifests.transfer import pull as fetch

    options = TransferOptions(
        refs=refs or (), all_branches=all_branches, tags=tags, ff_only=ff_only, repair=repair,
        dry_run=dry_run,
    )  # fmt: skip
    with _progress(as_json=as_json) as listener:
        # merge= is to be manifests.merge's function of (store, branch, commit id), once it is here.
        summary = fetch(Store(store), Store(source), options, merge=None, listener=listener)
    show(summary, as_json=as_json, human=lambda: _print_transfer(summary))


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "clone": (
        clone,
        examples(
            "maskmill clone st s3://bucket/photos", "maskmill clone s3://bucket/photos /data/photos"
        ),
    ),
    "push": (
        push,
        examples(
            "maskmill push s3://bucket/photos --store st",
            "maskmill push s3://bucket/photos main release-1 --store st --dry-run",
            "maskmill push s3://bucket/photos --all --tags --repair",
        ),
    ),
    "pull": (
        pull,
        examples(
            "maskmill pull s3://bucket/photos --store st",
            "maskmill pull s3://bucket/photos strict --ff-only --json",
        ),
    ),
}
"""Name -> command and what its --help shows at the end."""


@contextmanager
def _progress(*, as_json: bool) -> Iterator[ByteListener]:
    from manifests.byte_progress import ByteProgress, Silence

    if as_json:
        yield Silence()
    else:
        with ByteProgress() as shown:
            yield shown


def _print_transfer(summary: TransferSummary) -> None:
    from manifests.byte_progress import size

    if all(ref.outcome in ("up to date", "ahead") for ref in summary.refs) and (
        not summary.num_objects
    ):
        say("up to date" if summary.refs else "there is nothing to transfer")
        return
    print_table(
        f"{summary.source} -> {summary.target}",
        ("ref", "", "before", "after"),
        [
            (f"{ref.kind} {ref.name}", ref.outcome, (ref.before or "")[:12], ref.after[:12])
            for ref in summary.refs
        ],
    )
    verb = "would send" if summary.dry_run else "sent"
    say(
        f"{verb} {summary.num_commits:,} commits: {summary.num_objects:,} objects, "
        f"{size(summary.num_bytes)}; {summary.num_there:,} were there already"
    )
    if summary.num_withheld:
        say(f"not sent: the images of {summary.num_withheld:,} shards, which were taken down")
