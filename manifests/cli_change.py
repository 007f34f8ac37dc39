"""Commands that change what a branch holds: branch, tag, merge, revert, reset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    print_table,
    say,
    show,
)

if TYPE_CHECKING:
    from manifests.merge import MergeResult
    from manifests.three_way import Settlement

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
    from manifests.merge import merge_into, unknown_layers

    opened, settlement = open_store(store), _settlement(ours, theirs, settle)
    unknown_layers(settlement, opened, branch, ref)
    with _conflicts_listed(as_json=as_json):
        result = merge_into(
            opened, branch, ref, settlement=settlement, fast_forward=not no_ff,
            message=message,
        )  # fmt: skip
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
    from manifests.merge import revert as take_back
    from manifests.merge import unknown_layers

    opened, settlement = open_store(store), _settlement(ours, theirs, settle)
    unknown_layers(settlement, opened, branch, ref, f"{ref}~1")
    with _conflicts_listed(as_json=as_json):
        result = take_back(opened, branch, ref, settlement=settlement, message=message)
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


@contextmanager
def _conflicts_listed(*, as_json: bool) -> Iterator[None]:
    """Lists the cells of a merge that is refused, before the sentence that says so."""
    from manifests.errors import MergeConflictError

    try:
        yield
    except MergeConflictError as error:
        if not as_json:
            _print_conflicts("conflicts", error.conflicts)
        raise


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
