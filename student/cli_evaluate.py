"""The command `evaluate`: a student beside people's masks; mounted by student.cli."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    JsonOption,
    StoreOption,
    examples,
    note,
    open_store,
    print_table,
    show,
)
from student.cli_options import (
    DataStoreOption,
    MaxImagesOption,
    OnOption,
    SkipImagesOption,
    trained_on,
    usable_device,
)

if TYPE_CHECKING:
    from student.evaluation.result import Evaluation

_MAX_CATEGORIES = 60


def evaluate(
    store: StoreOption,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A student's name, or any ref of a checkpoint.")
    ],
    on: OnOption = "main",
    data_store: DataStoreOption = "",
    skip_images: SkipImagesOption = 0,
    max_images: MaxImagesOption = 0,
    stuff: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Its panoptic segments are one; repeatable."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in the network at once.")] = 4,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1; empty: a GPU if there is one.")
    ] = "",
    html: Annotated[
        str, typer.Option(metavar="FILE", help="Write a page with the worst and best photos.")
    ] = "",
    max_pictures: Annotated[int, typer.Option(min=0, help="Photos on the page, at most.")] = 16,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """How well a student segments: AP, boundary AP, PQ, mIoU, foreground and referring IoU."""
    from pathlib import Path

    from manifests.dataset import Dataset
    from manifests.html_page import require_writable
    from student.checkpoint import load_student
    from student.evaluate import EvaluateOptions, segment_options
    from student.evaluate import evaluate as judge
    from student.evaluation.page import PageOptions, write_evaluation_page

    options = EvaluateOptions(
        skip_images=skip_images, max_images=max_images, batch=batch, stuff=tuple(stuff or ())
    )
    page = PageOptions(model=model, on=on, max_pictures=max_pictures)
    if html:
        require_writable(Path(html), what="evaluation")
    opened = open_store(store)
    dataset = Dataset.open(open_store(data_store) if data_store else opened, on)
    place = usable_device(device)
    student = load_student(opened, model, device=place)
    with _bar(is_quiet=as_json) as on_image:
        found = judge(student, dataset, options, device=place, on_image=on_image)
    if html:
        segments = segment_options(options, [row.category for row in found.categories])
        write_evaluation_page(
            student, dataset, found, Path(html), options=page, segments=segments, device=place
        )
        note(f"wrote {html}")
    show(found, as_json=as_json, human=lambda: _print(found))


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "evaluate": (
        evaluate,
        examples(
            "maskmill evaluate models/garments --store st",
            "maskmill evaluate models/garments --on v3 --skip-images 500 --html judged.html",
            "maskmill evaluate models/garments --on main --data-store truth --json",
        ),
    ),
}
"""Name -> command and what its --help shows at the end."""


@contextmanager
def _bar(*, is_quiet: bool) -> Iterator[Callable[[int], None]]:
    """A counter on a terminal's standard error, which goes away at the end."""
    import sys

    if is_quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("judging images"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done: bar.update(task, completed=done)


def _print(found: Evaluation) -> None:
    print_table(
        f"{found.student[:12]} on {found.data[:12]}: {found.num_images:,} images, "
        f"{found.num_true:,} masks",
        ("mask AP", "AP50", "AP75", "box AP", "boundary AP", "PQ", "mIoU", "foreground",
         "referring"),
        [(found.mask_ap, found.mask_ap50, found.mask_ap75, found.box_ap, found.boundary_ap,
          found.pq, found.miou, found.foreground_iou, found.phrase_iou)],
    )  # fmt: skip
    rows = sorted((row for row in found.categories if row.num_true), key=lambda row: -row.num_true)
    numbers = ("masks", "mask AP", "box AP", "boundary AP", "PQ", "IoU")
    print_table(
        "by category" if len(rows) <= _MAX_CATEGORIES else f"the {_MAX_CATEGORIES} with most masks",
        ("category", *numbers),
        [
            (row.category if row.is_taught else f"{row.category} (not taught)", row.num_true,
             row.mask_ap, row.box_ap, row.boundary_ap, row.pq, row.iou)
            for row in rows[:_MAX_CATEGORIES]
        ],
        right=numbers,
    )  # fmt: skip
    if found.num_taught:
        note(trained_on(found))
    left_out = {
        "images without human masks": found.left_out.without_masks,
        "quarantined images": found.left_out.quarantined,
        "boxes without a mask": found.left_out.boxes_without_mask,
        "crowds": found.left_out.crowds,
    }
    words = [f"{number:,} {name}" for name, number in left_out.items() if number]
    if words:
        note("not judged: " + ", ".join(words))
