"""Commands that delete: rm takes images down, gc removes what nothing needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    BranchOption,
    JsonOption,
    MessageOption,
    StoreOption,
    examples,
    note,
    open_store,
    say,
    show,
)

if TYPE_CHECKING:
    from manifests.dataset import Dataset
    from manifests.gc import GcResult
    from manifests.takedown import Takedown


def rm(
    store: StoreOption,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Image ids, or beginnings.")
    ] = None,
    file_name: Annotated[
        list[str] | None, typer.Option("--file-name", "-f", help="Images by file name.")
    ] = None,
    source_id: Annotated[
        list[str] | None, typer.Option(help="Images by the id that their source gave them.")
    ] = None,
    query: Annotated[
        str, typer.Option("--query", "-q", metavar="SQL", help="A select of image_id; see 'sql'.")
    ] = "",
    from_file: Annotated[
        Path | None, typer.Option("--from-file", help="A text file with an image id a line.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; history will say so.")] = "",
    branch: BranchOption = "main",
    message: MessageOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would go; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take images down. Their bytes go with the next gc; no merge or ingest brings them back."""
    from manifests.dataset import Dataset
    from manifests.find_images import Wanted, find_images
    from manifests.takedown import take_down

    opened = open_store(store)
    dataset = Dataset.open(opened, branch)
    ids = [*(images or []), *_ids_in(from_file), *_ids_of_query(dataset, query)]
    wanted = Wanted(
        image_ids=tuple(dict.fromkeys(text.lower() for text in ids)),
        file_names=tuple(file_name or ()),
        source_image_ids=tuple(source_id or ()),
    )
    found = find_images(dataset, wanted)
    count = sum(map(len, found.values()))
    if dry_run:
        text = f"would take down {count:,} images of {len(found):,} shards"
        show({"dry_run": True, "images": found}, as_json=as_json, human=lambda: say(text))
        return
    done = take_down(opened, branch, found, reason=reason, message=message)
    show(done, as_json=as_json, human=lambda: _print_takedown(done))


def gc(
    store: StoreOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would go; delete nothing.")
    ] = False,
    grace_days: Annotated[
        float, typer.Option(min=0, help="Keep what is younger; longer than the longest job.")
    ] = 14,
    keep_log_days: Annotated[
        float, typer.Option(min=0, help="Keep commits that a branch was at within this time.")
    ] = 90,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Only the i-th of n shares of the store.")
    ] = "1/1",
    as_json: JsonOption = False,
) -> None:
    """Delete what no ref reaches and images that were taken down. Writers may go on meanwhile."""
    from manifests.byte_progress import ByteProgress
    from manifests.gc import DAY_S, GcOptions, collect_garbage

    options = GcOptions(
        grace_s=grace_days * DAY_S, keep_log_s=keep_log_days * DAY_S, part=_part(part),
        dry_run=dry_run,
    )  # fmt: skip
    opened = open_store(store)
    if as_json:
        result = collect_garbage(opened, options)
    else:
        with ByteProgress() as progress:
            progress.begin("looking", total=256 // options.part[1])
            result = collect_garbage(
                opened, options, on_progress=lambda done, total: progress.advance(1)
            )
    show(result, as_json=as_json, human=lambda: _print_gc(result))


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "rm": (
        rm,
        examples(
            "maskmill rm 3f9a41c2 --reason 'licence withdrawn' --store st",
            "maskmill rm --file-name street/0042.jpg --reason 'asked by the person shown'",
            "maskmill rm -q \"select image_id from images where source = 'old'\" --reason unused",
        ),
    ),
    "gc": (
        gc,
        examples("maskmill gc --dry-run --store st", "maskmill gc --grace-days 30 --part 1/8"),
    ),
}  # fmt: skip
"""Name -> command and what its --help shows at the end."""


def _part(text: str) -> tuple[int, int]:
    from manifests.errors import InputError

    share, _, shares = text.partition("/")
    if not share.isdigit() or not shares.isdigit():
        raise InputError(f"--part: expected i/n such as 1/8, got '{text}'")
    return int(share), int(shares)


def _ids_in(path: Path | None) -> list[str]:
    from manifests.errors import InputError

    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--from-file {path} cannot be read: {error}") from error


def _ids_of_query(dataset: Dataset, query: str) -> list[str]:
    from manifests.errors import InputError
    from manifests.sql import SqlSession

    if not query:
        return []
    with SqlSession(dataset) as session:
        result = session.query(query)
        names = result.schema().names
        if "image_id" not in names:
            raise InputError(
                f"--query: expected a column image_id, got {', '.join(names)}; select image_id"
            )
        batches = [batch.column("image_id").to_pylist() for batch in result.batches()]
    ids = [image_id for batch in batches for image_id in batch]
    if wrong := [image_id for image_id in ids if not isinstance(image_id, str)]:
        raise InputError(
            f"--query: expected image ids in the column image_id, got {wrong[0]!r}; select the "
            "image_id of a table"
        )
    return ids


def _print_takedown(done: Takedown) -> None:
    say(
        f"took down {len(done.images):,} images with {done.num_boxes:,} boxes in commit "
        f"{done.commit_id[:12]}; their bytes go with the next 'maskmill gc'"
    )
    if done.still_in:
        note(
            f"still in {', '.join(done.still_in)}: run the same there (a branch), or know that "
            "a tag keeps showing them until gc"
        )
    if done.trained_on:
        note(
            f"{', '.join(done.trained_on)}: trained on some of them; train anew if their weights "
            "must not have seen them"
        )


def _print_gc(result: GcResult) -> None:
    verb = "would delete" if result.dry_run else "deleted"
    say(
        f"{verb} {result.num_deleted:,} of {result.num_objects:,} objects, "
        f"{result.deleted_bytes:,} of {result.num_bytes:,} bytes; {result.num_commits:,} commits "
        "are reachable"
    )
    for count, what in (
        (result.num_taken_down, "of them images of shards from which some were taken down"),
        (result.num_young, "unreachable objects are within the grace period"),
        (result.num_from_the_future, "objects are younger than the store's clock: it went back"),
        (result.num_saved, "objects were about to be deleted when a writer published them"),
        (result.num_results_deleted, "records of work whose objects went"),
        (result.num_leftovers_deleted, "leftovers of processes that died"),
    ):
        if count:
            say(f"  {count:,} {what}")
