"""Commands that need no model and no cluster: init, log, show, stats, export; mounts the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from manifests import cli_change
from manifests.console import (
    JsonOption,
    RefOption,
    StoreOption,
    examples,
    print_table,
    say,
    show,
)
from manifests.console import open_store as open_store

if TYPE_CHECKING:
    from manifests.commit import Commit
    from manifests.export_plan import ExportSummary
    from manifests.ledger import Ledger, LedgerRow


def mount(app: typer.Typer, *names: str) -> None:
    """Adds these commands to the root command line, in this order."""
    known = {**_COMMANDS, **cli_change.COMMANDS}
    for name in names:
        command, epilog = known[name]
        app.command(name, epilog=epilog)(command)


def init(store: StoreOption, as_json: JsonOption = False) -> None:
    """Make an empty store. Tests first that its conditional writes really exclude."""
    from manifests.dataset import init as make
    from manifests.store import Store

    commit_id = make(Store(store))
    show(
        {"store": store, "commit_id": commit_id},
        as_json=as_json,
        human=lambda: say(f"made a store at {store}, branch main at {commit_id[:12]}"),
    )


def log(
    store: StoreOption,
    ref: RefOption = "main",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Commits at most; 0: all.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """The history of a ref, newest first."""
    from dataclasses import asdict
    from itertools import islice

    from manifests.history import history

    entries = list(islice(history(open_store(store), ref), limit or None))
    rows = [
        (entry.commit_id[:12], entry.commit.time, entry.commit.operation.name,
         entry.commit.author, entry.commit.message)
        for entry in entries
    ]  # fmt: skip
    show(
        [{"commit_id": entry.commit_id, **asdict(entry.commit)} for entry in entries],
        as_json=as_json,
        human=lambda: print_table(
            f"log of {ref}", ("commit", "time", "operation", "author", "message"), rows
        ),
    )


def show_commit(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")] = "main",
    by_category: Annotated[
        bool, typer.Option("--by-category", help="The ledger by category.")
    ] = False,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Every image and box that was not kept, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One commit: how it came about, what is in it, and its ledger."""
    from dataclasses import asdict

    from manifests.dataset import Dataset
    from manifests.rejects import rejects as find_rejects

    dataset = Dataset.open(open_store(store), ref)
    tables = find_rejects(dataset) if rejects else ()
    rows = [row for table in tables for row in table.to_pylist()]

    def human() -> None:
        _print_commit(dataset.commit_id, dataset.commit)
        print_ledgers([("", dataset.commit.ledger)], by_category=by_category)
        if rejects:
            columns = ("layer", "outcome", "reason", "file_name", "category", "detail")
            listed = [[row[column] for column in columns] for row in rows]
            print_table(f"not kept: {len(rows):,}", columns, listed)

    body = {
        "commit_id": dataset.commit_id,
        **asdict(dataset.commit),
        "layers": dataset.manifest.layers(),
    }
    show(body | {"rejected": rows} if rejects else body, as_json=as_json, human=human)


def stats(store: StoreOption, ref: RefOption = "main", as_json: JsonOption = False) -> None:
    """Images, boxes and masks of a ref, by layer and by category."""
    from manifests.dataset import Dataset
    from manifests.stats import stats as compute

    found = compute(Dataset.open(open_store(store), ref))

    def human() -> None:
        print_table(
            f"{ref} at {found.commit_id[:12]}: {found.num_images:,} images, "
            f"{found.num_boxes:,} boxes, {found.num_shards:,} shards",
            ("layer", "cells", "rows", "bytes", "counts"),
            [
                (layer.layer, layer.num_cells, layer.num_rows, layer.num_bytes,
                 _lines(layer.counts))
                for layer in found.layers
            ],
            right=("cells", "rows", "bytes"),
        )  # fmt: skip
        categories = found.categories.items()
        print_table("boxes by category", ("category", "boxes"), categories, right=("boxes",))

    show(found, as_json=as_json, human=human)


def export(
    store: StoreOption,
    format: Annotated[str, typer.Argument(help="coco, yolo or webdataset.")],
    target: Annotated[str, typer.Argument(help="A new folder, or any fsspec URL.")],
    ref: RefOption = "main",
    layer: Annotated[
        str | None, typer.Option(help="A layer masks/<teacher>, taken whole, without verdicts.")
    ] = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="COCO: polygons instead of RLE.")
    ] = False,
    images: Annotated[bool, typer.Option("--images", help="COCO: write the images, too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older export.")
    ] = False,
    include_quarantined: Annotated[
        bool,
        typer.Option("--include-quarantined", help="Images the ingest policy put aside, too."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a ref as COCO, YOLO-seg or WebDataset. The marker says which commit it is."""
    from manifests.dataset import Dataset
    from manifests.export import export as write
    from manifests.export_plan import ExportOptions

    options = ExportOptions(
        layer=layer, polygons=polygons, images=images, overwrite=overwrite,
        include_quarantined=include_quarantined,
    )  # fmt: skip
    dataset = Dataset.open(open_store(store), ref)
    summary = write(dataset, target, format=format, options=options, ref=ref)
    show(summary, as_json=as_json, human=lambda: print_export(summary))


_COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "init": (init, examples("maskmill init --store s3://bucket/photos")),
    "log": (log, examples("maskmill log --store st", "maskmill log --ref strict -n 5 --json")),
    "show": (
        show_commit,
        examples(
            "maskmill show --store st", "maskmill show main~1 --by-category",
            "maskmill show release-1 --rejects --json",
        ),
    ),
    "stats": (stats, examples("maskmill stats --store st --ref release-1")),
    "export": (
        export,
        examples(
            "maskmill export coco out/ --store st --ref release-1 --images",
            "maskmill export yolo s3://bucket/yolo --overwrite",
            "maskmill export coco raw/ --layer masks/sam_vit_t",
        ),
    ),
}  # fmt: skip
"""Name -> command and what its --help shows at the end."""


def print_ledgers(ledgers: Iterable[tuple[str, Ledger]], *, by_category: bool = False) -> None:
    """What became of every row: a line a step and layer, or a line a step, layer and category."""
    rows = [
        (step, row)
        for step, ledger in ledgers
        for row in (ledger.rows if by_category else ledger.totals())
    ]
    numbers = ("in", "kept", "kept %", "dropped", "failed")
    shown = {"step": any(step for step, _ in rows), "layer": True, "category": by_category}
    print_table(
        "what became of every row",
        (*(name for name, is_shown in shown.items() if is_shown), *numbers, "why not kept"),
        [
            [
                *([step] if shown["step"] else []), row.layer,
                *([row.category or "(none)"] if by_category else []), *_ledger_cells(row),
            ]
            for step, row in rows
        ],
        right=numbers,
    )  # fmt: skip


def print_export(summary: ExportSummary) -> None:
    """One sentence, and one more for what was left out."""
    say(
        f"exported {summary.num_images:,} images and {summary.num_annotations:,} annotations as "
        f"{summary.format} to {summary.target}"
    )
    left_out = dict(summary.num_skipped)
    if summary.num_quarantined_images:
        left_out["quarantined images"] = summary.num_quarantined_images
    if left_out:
        say("left out: " + _lines(left_out).replace("\n", ", "))


def _ledger_cells(row: LedgerRow) -> Sequence[object]:
    share = f"{100 * row.kept / row.inputs:.1f}" if row.inputs else ""
    dropped, failed = sum(row.dropped.values()), sum(row.failed.values())
    why = _lines({**row.dropped, **{f"{name} (failed)": n for name, n in row.failed.items()}})
    return [row.inputs, row.kept, share, dropped, failed, why]


def _lines(counts: Mapping[str, int]) -> str:
    """A line a name, the largest first."""
    largest_first = sorted(counts.items(), key=lambda item: -item[1])
    return "\n".join(f"{name} {count:,}" for name, count in largest_first)


def _print_commit(commit_id: str, commit: Commit) -> None:
    operation = commit.operation
    say(f"commit {commit_id}")
    for parent in commit.parents:
        say(f"parent {parent}")
    say(f"author {commit.author}   time {commit.time}")
    say(f"operation {operation.name} v{operation.version}, "
        f"configuration {operation.config_digest[:12]}")  # fmt: skip
    if operation.teacher:
        weights = operation.teacher.get("weights_sha256")
        say(f"teacher {operation.teacher['name']}, weights {(weights or 'none')[:12]}")
    say("code " + ", ".join(f"{name} {version}" for name, version in operation.code.items()))
    say(f"\n    {commit.message}\n")
