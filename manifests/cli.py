"""Commands that need no model and no cluster; those of the files beside are mounted from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from manifests import cli_change, cli_delete, cli_query, cli_transfer
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
    from manifests.export_plan import ExportSummary
    from manifests.ledger import Ledger, LedgerRow


def mount(app: typer.Typer, *names: str) -> None:
    """Adds these commands to the root command line, in this order."""
    known = dict(_COMMANDS)
    for module in (cli_query, cli_change, cli_delete, cli_transfer):
        known |= module.COMMANDS
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
    from manifests.prior import warn_of_prior

    options = ExportOptions(
        layer=layer, polygons=polygons, images=images, overwrite=overwrite,
        include_quarantined=include_quarantined,
    )  # fmt: skip
    dataset = Dataset.open(open_store(store), ref)
    warn_of_prior(dataset)
    summary = write(dataset, target, format=format, options=options, ref=ref)
    show(summary, as_json=as_json, human=lambda: print_export(summary))


_COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "init": (init, examples("maskmill init --store s3://bucket/photos")),
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
