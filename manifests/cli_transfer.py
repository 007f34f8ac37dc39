"""Commands that bring datasets elsewhere: clone, push, pull, checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import JsonOption, StoreOption, examples, note, print_table, say, show

if TYPE_CHECKING:
    from manifests.byte_progress import ByteListener
    from manifests.checkout import CheckoutSummary
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
        summary = fetch(Store(store), Store(source), options, listener=listener)
    show(summary, as_json=as_json, human=lambda: _print_transfer(summary))


def checkout(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder, or an earlier checkout.")
    ],
    layer: Annotated[
        str | None,
        typer.Option(help="A layer masks/<teacher>, taken whole, or boxes: no masks."),
    ] = None,
    include_quarantined: Annotated[
        bool,
        typer.Option("--include-quarantined", help="Images the ingest policy put aside, too."),
    ] = False,
    no_images: Annotated[bool, typer.Option("--no-images", help="The annotations alone.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite and remove files that you changed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a folder show a ref: images/ and annotations.json (COCO). Writes what changed."""
    from manifests.checkout import CheckoutOptions
    from manifests.checkout import checkout as write
    from manifests.dataset import Dataset
    from manifests.prior import warn_of_prior
    from manifests.store import Store

    options = CheckoutOptions(
        layer=layer, include_quarantined=include_quarantined, images=not no_images, force=force
    )
    dataset = Dataset.open(Store(store), ref)
    warn_of_prior(dataset)
    with _progress(as_json=as_json) as listener:
        summary = write(dataset, folder, options, ref=ref, listener=listener)
    show(summary, as_json=as_json, human=lambda: _print_checkout(summary))


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
    "checkout": (
        checkout,
        examples(
            "maskmill checkout main photos/ --store st",
            "maskmill checkout release-1 photos/ --layer masks/sam_vit_t",
            "maskmill checkout main~3 labels/ --no-images --json",
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


def _print_checkout(summary: CheckoutSummary) -> None:
    from manifests.byte_progress import size
    from manifests.consequences import listed
    from manifests.schemas import BOXES

    say(
        f"{summary.folder} shows {summary.ref} at {summary.commit_id[:12]}: "
        f"{summary.num_images:,} images, {summary.num_annotations:,} annotations"
    )
    say(
        f"files: {summary.num_written:,} written ({size(summary.num_bytes)}), "
        f"{summary.num_kept:,} kept, {summary.num_removed:,} removed"
    )
    left_out = [f"{reason} {count:,}" for reason, count in summary.num_skipped.items()]
    if summary.num_quarantined:
        left_out.append(f"quarantined images {summary.num_quarantined:,}")
    if left_out:
        say("left out: " + ", ".join(left_out))
    if summary.masks == BOXES and summary.num_annotations:
        note("annotations are boxes without masks; 'maskmill filter' decides which masks to keep")
    if summary.changed:
        note(f"left as you changed them ({len(summary.changed):,}): {listed(summary.changed)}")
