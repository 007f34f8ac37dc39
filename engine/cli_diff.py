"""The command `diff`: what is different in one commit, seen from another, down to single masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.cli import open_store
from manifests.console import JsonOption, StoreOption, examples, note, print_table, say, show

if TYPE_CHECKING:
    from manifests.diff import Progress
    from manifests.diff_result import DatasetDiff

_DEFAULT_REF = "main"
_MAX_FLIPS = 30


def diff(
    store: StoreOption,
    before: Annotated[
        str,
        typer.Argument(
            metavar="[A]", help="A ref, or A..B; none: main~1, so that the last commit is shown."
        ),
    ] = "",
    after: Annotated[str, typer.Argument(metavar="[B]", help="A ref; none: main.")] = "",
    by_category: Annotated[
        bool, typer.Option("--by-category", help="Show every category.")
    ] = False,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Compare this layer only; repeatable.")
    ] = None,
    html: Annotated[
        str, typer.Option(metavar="FILE", help="Write a page with pictures before and after.")
    ] = "",
    max_pictures: Annotated[
        int, typer.Option(min=0, help="Changed boxes shown on the page, at most.")
    ] = 40,
    as_json: JsonOption = False,
) -> None:
    """What is different in B, seen from A: images, boxes, masks and verdicts."""
    from pathlib import Path

    from manifests.dataset import Dataset
    from manifests.diff import DiffOptions
    from manifests.diff import diff as compare

    opened = open_store(store)
    before, after = _ends(before, after)
    a, b = Dataset.open(opened, before), Dataset.open(opened, after)
    options = DiffOptions(
        layers=tuple(layer or ()), by_category=by_category or as_json or bool(html),
        max_examples=max_pictures if html else 0,
    )  # fmt: skip
    with _bar(is_quiet=as_json) as progress:
        found = compare(a, b, options=options, progress=progress)
    if html:
        from engine.diff_page import DiffPageOptions, write_diff_page

        page = DiffPageOptions(before=before, after=after, max_pictures=max_pictures)
        written = write_diff_page(a, b, found, Path(html), options=page)
        note(f"wrote {written.target} with {written.num_pictures:,} changed boxes")
    title = f"{before} ({a.commit_id[:12]}) -> {after} ({b.commit_id[:12]})"
    show(found, as_json=as_json, human=lambda: _print(found, title, by_category=by_category))


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "diff": (
        diff,
        examples(
            "maskmill diff --store st",
            "maskmill diff release-1 --by-category",
            "maskmill diff strict~1 strict --layer verdicts --json",
            "maskmill diff main..strict --html diff.html",
        ),
    ),
}
"""Name -> command and what its --help shows at the end."""


def _ends(before: str, after: str) -> tuple[str, str]:
    """As git reads it: nothing is the last commit, `A` is A to main, `A..B` is `A B`."""
    if before and not after and ".." in before:
        before, _, after = before.partition("..")
        return before or _DEFAULT_REF, after or _DEFAULT_REF
    return before or f"{_DEFAULT_REF}~1", after or _DEFAULT_REF


@contextmanager
def _bar(*, is_quiet: bool) -> Iterator[Progress | None]:
    """A bar on a terminal's standard error, which goes away at the end."""
    import sys

    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing shards", total=None)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)


def _print(found: DatasetDiff, title: str, *, by_category: bool) -> None:
    if found.is_empty:
        say(f"nothing differs: {title}")
        return
    say(f"diff {title}")
    _print_cells(found)
    _print_boxes(found, by_category=by_category)
    _print_masks(found, by_category=by_category)
    _print_verdicts(found, by_category=by_category)


def _print_cells(found: DatasetDiff) -> None:
    numbers = ("added", "replaced", "removed")
    rows = [(layer, one.added, one.replaced, one.removed) for layer, one in found.cells.items()]
    _table("cells", ("layer", *numbers), rows, right=numbers)


def _print_boxes(found: DatasetDiff, *, by_category: bool) -> None:
    images, boxes = found.images, found.boxes
    counts = {
        "images": _words(
            added=images.added, removed=images.removed, quarantined=images.quarantined,
            released=images.released,
        ),
        "boxes": _words(
            added=boxes.added, removed=boxes.removed, moved=boxes.moved,
            recategorised=boxes.recategorised,
        ),
    }  # fmt: skip
    for what, words in counts.items():
        if words:
            say(f"\n{what}: {words}")
    numbers = ("added", "removed", "moved", "recategorised")
    rows = [(row.category, row.added, row.removed, row.moved, row.recategorised)
            for row in found.boxes_by_category]  # fmt: skip
    if by_category and rows:
        _table("boxes by category", ("category", *numbers), rows, right=numbers)
        for change in found.recategorised:
            say(f"  {change.count:,} from {change.before} to {change.after}")


def _print_masks(found: DatasetDiff, *, by_category: bool) -> None:
    if not found.masks:
        return
    numbers = ("added", "removed", "changed", "mean IoU", "pixels moved")
    names = ("teacher", *(["category"] if by_category else []), *numbers)
    rows = [
        (row.teacher, *([row.category] if by_category else []), row.added, row.removed,
         row.changed, row.mean_iou,
         None if row.moved_share is None else f"{100 * row.moved_share:.1f}%")
        for row in (found.masks_by_category if by_category else found.masks)
    ]  # fmt: skip
    _table("masks", names, rows, right=numbers)


def _print_verdicts(found: DatasetDiff, *, by_category: bool) -> None:
    if not found.flips:
        return
    rows = [
        (row.before or "(none)", row.after or "(none)", row.teacher_before, row.teacher_after,
         row.count)
        for row in found.flips[:_MAX_FLIPS]
    ]  # fmt: skip
    _table(
        "verdicts", ("before", "after", "mask before", "mask after", "boxes"), rows,
        right=("boxes",),
    )  # fmt: skip
    if len(found.flips) > _MAX_FLIPS:
        say(f"  and {len(found.flips) - _MAX_FLIPS:,} rarer ones; --json has all")
    numbers = ("dropped", "kept", "other mask", "other reason", "judged", "unjudged")
    if by_category:
        _table(
            "verdicts by category", ("category", *numbers),
            [(row.category, row.dropped, row.kept, row.other_mask, row.other_reason, row.judged,
              row.unjudged) for row in found.verdicts_by_category],
            right=numbers,
        )  # fmt: skip


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str]
) -> None:
    say("")
    print_table(title, columns, rows, right=right)


def _words(**counts: int) -> str:
    """The counts that are not 0: "3 added, 1 removed"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
