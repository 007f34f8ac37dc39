"""Commands that change what a branch holds: branch, tag, merge, revert, reset, rm; and gc."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    BranchOption,
    JsonOption,
    StoreOption,
    examples,
    note,
    open_store,
    print_table,
    say,
    show,
)

if TYPE_CHECKING:
    from manifests.gc import GcResult
    from manifests.merge import MergeResult
    from manifests.takedown import Takedown
    from manifests.three_way import Settlement

MessageOption = Annotated[
    str, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit; empty: made up.")
]
OursOption = Annotated[bool, typer.Option("--ours", help="Where both changed a cell: ours.")]
TheirsOption = Annotated[bool, typer.Option("--theirs", help="Where both changed a cell: theirs.")]
SettleOption = Annotated[
    list[str] | None,
    typer.Option("--settle", metavar="LAYER=SIDE", help="The same for one layer: ours or theirs."),
]
_SHOWN = 20


def branch(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="The new branch; none lists all.")] = None,
    ref: Annotated[str, typer.Argument(help="Where it starts.")] = "main",
    delete: Annotated[
        bool, typer.Option("--delete", "-d", help="End the branch; its log stays.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a branch, end one, or list the branches."""
    from manifests.errors import InputError
    from manifests.merge import create_branch
    from manifests.refs import Refs

    opened = open_store(store)
    if delete:
        if name is None:
            raise InputError("--delete: expected the name of a branch, got none")
        was = Refs(opened).delete_branch(name).commit
        text = f"deleted branch {name}, which was at {was[:12]}; '{name}@{{1}}' still names it"
        show({"deleted": name, "commit_id": was}, as_json=as_json, human=lambda: say(text))
        return
    made = {} if name is None else {name: create_branch(opened, name, ref)}
    _show_refs("branch", made or Refs(opened).branches(), name, as_json=as_json)


def tag(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="The new tag; none lists all.")] = None,
    ref: Annotated[str, typer.Argument(help="What it names.")] = "main",
    as_json: JsonOption = False,
) -> None:
    """Name a commit for ever, or list the tags."""
    from manifests.merge import create_tag
    from manifests.refs import Refs

    opened = open_store(store)
    made = {} if name is None else {name: create_tag(opened, name, ref)}
    _show_refs("tag", made or Refs(opened).tags(), name, as_json=as_json)


def merge(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="What to merge: a branch, tag or commit.")],
    branch: BranchOption = "main",
    ours: OursOption = False,
    theirs: TheirsOption = False,
    settle: SettleOption = None,
    no_ff: Annotated[
        bool, typer.Option("--no-ff", help="Make a commit even where moving on would do.")
    ] = False,
    message: MessageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Bring another branch's changes in. Different data, or different layers, just merge."""
    from manifests.errors import MergeConflictError
    from manifests.merge import merge_into, unknown_layers

    opened, settlement = open_store(store), _settlement(ours, theirs, settle)
    unknown_layers(settlement, opened, branch, ref)
    try:
        result = merge_into(
            opened, branch, ref, settlement=settlement, fast_forward=not no_ff,
            message=message,
        )  # fmt: skip
    except MergeConflictError as error:
        _list_conflicts(error.conflicts, as_json=as_json)
        raise
    show(result, as_json=as_json, human=lambda: _print_merge(result, branch))


def revert(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="The commit to take back.")],
    branch: BranchOption = "main",
    ours: OursOption = False,
    theirs: TheirsOption = False,
    settle: SettleOption = None,
    message: MessageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take one commit's changes back, with a new commit. 'theirs' is what was before it."""
    from manifests.errors import MergeConflictError
    from manifests.merge import revert as take_back

    settlement = _settlement(ours, theirs, settle)
    try:
        result = take_back(open_store(store), branch, ref, settlement=settlement, message=message)
    except MergeConflictError as error:
        _list_conflicts(error.conflicts, as_json=as_json)
        raise
    show(result, as_json=as_json, human=lambda: _print_merge(result, branch))


def reset(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="Where the branch is to be: main~2, a tag ...")],
    branch: BranchOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Put a branch at another commit, as a new entry of its log. 'main@{1}' is where it was."""
    from manifests.merge import reset as put

    result = put(open_store(store), branch, ref)
    show(result, as_json=as_json, human=lambda: _print_merge(result, branch))


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
        image_ids=tuple(dict.fromkeys(ids)),
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
    "branch": (
        branch,
        examples(
            "maskmill branch --store st", "maskmill branch strict main~1",
            "maskmill branch --delete strict",
        ),
    ),
    "tag": (tag, examples("maskmill tag --store st", "maskmill tag release-1 main")),
    "merge": (
        merge,
        examples(
            "maskmill merge new-data --store st", "maskmill merge strict --theirs",
            "maskmill merge other --settle masks/sam_vit_t=theirs --settle verdicts=ours",
        ),
    ),
    "revert": (revert, examples("maskmill revert main~1 --store st")),
    "reset": (reset, examples("maskmill reset release-1 --store st", "maskmill reset main@{1}")),
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


def _settlement(ours: bool, theirs: bool, settle: Iterable[str] | None) -> Settlement:
    from manifests.errors import InputError
    from manifests.three_way import Settlement

    if ours and theirs:
        raise InputError("expected --ours or --theirs, got both; use --settle for single layers")
    by_layer = {}
    for text in settle or ():
        layer, _, side = text.rpartition("=")
        if not layer or side not in ("ours", "theirs"):
            raise InputError(f"--settle: expected LAYER=ours or LAYER=theirs, got '{text}'")
        by_layer[layer] = side
    default = "ours" if ours else "theirs" if theirs else None
    return Settlement(default=default, by_layer=by_layer)  # type: ignore[arg-type]  # checked above


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


def _ids_of_query(dataset: object, query: str) -> list[str]:
    from manifests.dataset import Dataset
    from manifests.errors import InputError
    from manifests.sql import SqlSession

    if not query or not isinstance(dataset, Dataset):
        return []
    with SqlSession(dataset) as session:
        result = session.query(query)
        names = result.schema().names
        if "image_id" not in names:
            raise InputError(
                f"--query: expected a column image_id, got {', '.join(names)}; select image_id"
            )
        batches = [batch.column("image_id").to_pylist() for batch in result.batches()]
    return [image_id for batch in batches for image_id in batch]


def _show_refs(kind: str, refs: dict[str, str], made: str | None, *, as_json: bool) -> None:
    def human() -> None:
        if made is None:
            print_table(kind, (kind, "commit"), [(name, id_[:12]) for name, id_ in refs.items()])
        else:
            say(f"{kind} {made} is at {refs[made][:12]}")

    show(refs if made is None else {made: refs[made]}, as_json=as_json, human=human)


def _print_merge(result: MergeResult, branch: str) -> None:
    head = result.commit_id[:12]
    say(
        {
            "up_to_date": f"nothing to do: '{branch}' at {head} has all of it",
            "fast_forward": f"'{branch}' had nothing of its own and moved on to {head}",
            "merged": f"merged: '{branch}' is at {head}",
            "reverted": f"reverted: '{branch}' is at {head}",
            "reset": f"'{branch}' is at {head}; '{branch}@{{1}}' is where it was",
        }[result.outcome]
    )
    if result.num_duplicates:
        say(f"{result.num_duplicates:,} pictures that both sides had ingested are one each now")
    if result.settled:
        _print_conflicts("settled", result.settled)
    for layer, count in result.stale.items():
        say(f"{count:,} cells of {layer} were out of date and taken out: run 'maskmill filter'")


def _list_conflicts(conflicts: Iterable[object], *, as_json: bool) -> None:
    if not as_json:
        _print_conflicts("conflicts", conflicts)


def _print_conflicts(title: str, conflicts: Iterable[object]) -> None:
    from manifests.three_way import Conflict

    found: list[Conflict] = [entry for entry in conflicts if isinstance(entry, Conflict)]
    rows = [
        (entry.shard[:12], entry.layer, _short(entry.base), _short(entry.ours),
         _short(entry.theirs))
        for entry in found[:_SHOWN]
    ]  # fmt: skip
    print_table(
        f"{title}: {len(found):,} cells", ("shard", "layer", "base", "ours", "theirs"), rows
    )
    if len(found) > _SHOWN:
        note(f"and {len(found) - _SHOWN:,} more; --json lists all")


def _short(object_id: str | None) -> str:
    return object_id[:12] if object_id else "-"


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
