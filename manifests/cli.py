"""Commands that need no model and no cluster: init, log, show, tag, branch, stats, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    JsonOption,
    RefOption,
    StoreOption,
    print_table,
    say,
    show,
)

if TYPE_CHECKING:
    from manifests.commit import Commit
    from manifests.ledger import Ledger


def mount(app: typer.Typer) -> None:
    """Adds these commands to the root command line."""
    for command in (init, log, tag, branch, stats, export):
        app.command(epilog=_EXAMPLES[command.__name__])(command)
    app.command("show", epilog=_EXAMPLES["show"])(show_commit)


_EXAMPLES = {
    "init": "Example: maskmill init --store s3://bucket/photos",
    "log": "Examples: maskmill log --store st | maskmill log --ref clean --json",
    "show": "Examples: maskmill show --store st main~1 | maskmill show main --rejects",
    "tag": "Examples: maskmill tag --store st | maskmill tag release-1 main",
    "branch": "Examples: maskmill branch --store st | maskmill branch strict main",
    "stats": "Example: maskmill stats --store st --ref release-1",
    "export": "Example: maskmill export coco out/ --store st --ref release-1 --images",
}


def init(store: StoreOption, as_json: JsonOption = False) -> None:
    """Make an empty store, after testing that its conditional writes really exclude."""
    from manifests.dataset import init as make
    from manifests.store import Store

    commit_id = make(Store(store))
    show(
        {"store": store, "commit": commit_id},
        as_json=as_json,
        human=lambda: say(f"made a store at {store}, branch main at {commit_id[:12]}"),
    )


def log(store: StoreOption, ref: RefOption = "main", as_json: JsonOption = False) -> None:
    """The history of a ref, newest first."""
    from dataclasses import asdict

    from manifests.history import history

    commits = list(history(_open(store), ref))
    rows = [
        (entry.commit_id[:12], entry.commit.time, entry.commit.operation.name,
         entry.commit.author, entry.commit.message)
        for entry in commits
    ]  # fmt: skip
    show(
        [{"id": entry.commit_id, **asdict(entry.commit)} for entry in commits],
        as_json=as_json,
        human=lambda: print_table(
            f"log of {ref}", ("commit", "time", "operation", "author", "message"), rows
        ),
    )


def show_commit(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")] = "main",
    by_category: Annotated[bool, typer.Option(help="The ledger by category.")] = False,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Every image and box that was not kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One commit: how it came about, what is in it, and its ledger."""
    from dataclasses import asdict

    from manifests.cells import read_table
    from manifests.dataset import Dataset

    dataset = Dataset.open(_open(store), ref)
    commit = dataset.commit
    rows = []
    if rejects and commit.rejects:
        rows = read_table(dataset.store, commit.rejects).to_pylist()

    def human() -> None:
        _print_commit(dataset.commit_id, commit)
        print_ledger(commit.ledger, by_category=by_category)
        if rejects:
            columns = ("layer", "outcome", "reason", "file_name", "category", "detail")
            listed = [[row[column] for column in columns] for row in rows]
            print_table("not kept", columns, listed)

    body = {"id": dataset.commit_id, **asdict(commit), "layers": dataset.manifest.layers()}
    if rejects:
        body["rejected"] = rows
    show(body, as_json=as_json, human=human)


def tag(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="The new tag; none lists all.")] = None,
    ref: Annotated[str, typer.Argument(help="What it names.")] = "main",
    as_json: JsonOption = False,
) -> None:
    """Name a commit for ever, or list the tags."""
    from manifests.refs import Refs

    refs = Refs(_open(store))
    if name is not None:
        refs.create_tag(name, refs.resolve(ref))
    _show_refs("tag", refs.tags(), name, as_json=as_json)


def branch(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="The new branch; none lists all.")] = None,
    ref: Annotated[str, typer.Argument(help="Where it starts.")] = "main",
    as_json: JsonOption = False,
) -> None:
    """Start a branch, or list the branches."""
    from manifests.refs import Refs

    refs = Refs(_open(store))
    if name is not None:
        refs.create_branch(name, refs.resolve(ref))
    _show_refs("branch", refs.branches(), name, as_json=as_json)


def stats(store: StoreOption, ref: RefOption = "main", as_json: JsonOption = False) -> None:
    """Images, boxes and masks of a ref, by layer and by category."""
    from manifests.dataset import Dataset
    from manifests.stats import stats as compute

    found = compute(Dataset.open(_open(store), ref))

    def human() -> None:
        print_table(
            f"{ref} at {found.commit_id[:12]}: {found.num_images:,} images, "
            f"{found.num_boxes:,} boxes, {found.num_shards:,} shards",
            ("layer", "counts", "cells", "rows", "bytes"),
            [
                (layer.layer, ", ".join(f"{name} {count:,}" for name, count in layer.counts.items()),
                 layer.num_cells, layer.num_rows, layer.num_bytes)
                for layer in found.layers
            ],
            numeric=3,
        )  # fmt: skip
        print_table("boxes by category", ("category", "boxes"), found.categories.items(), numeric=1)

    show(found, as_json=as_json, human=human)


def export(
    store: StoreOption,
    format: Annotated[str, typer.Argument(help="coco, yolo or webdataset.")],
    target: Annotated[str, typer.Argument(help="A new folder, or any fsspec URL.")],
    ref: RefOption = "main",
    layer: Annotated[
        str | None, typer.Option(help="A layer masks/<teacher>, taken whole, without verdicts.")
    ] = None,
    polygons: Annotated[bool, typer.Option(help="COCO: polygons instead of RLE.")] = False,
    images: Annotated[bool, typer.Option(help="COCO: write the images, too.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an older export.")] = False,
    include_quarantined: Annotated[
        bool, typer.Option(help="Images the ingest policy put aside, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a ref as COCO instances JSON, a YOLO-seg folder or WebDataset tars."""
    from manifests.dataset import Dataset
    from manifests.export import export as write
    from manifests.export_plan import ExportOptions

    options = ExportOptions(
        layer=layer, polygons=polygons, images=images, overwrite=overwrite,
        include_quarantined=include_quarantined,
    )  # fmt: skip
    summary = write(
        Dataset.open(_open(store), ref), target, format=format, options=options, ref=ref
    )
    show(
        summary,
        as_json=as_json,
        human=lambda: say(
            f"wrote {summary.num_images:,} images and {summary.num_annotations:,} annotations "
            f"as {format} to {target}"
        ),
    )


def print_ledger(ledger: Ledger, *, by_category: bool = False) -> None:
    """The ledger as a table: one row a layer, or a row a layer and category."""
    rows = ledger.rows if by_category else ledger.totals()
    print_table(
        "ledger: inputs = kept + dropped + failed",
        ("layer", "category", "dropped because", "failed because", "inputs", "kept", "dropped",
         "failed"),
        [
            (row.layer, row.category or "(all)", _reasons(row.dropped), _reasons(row.failed),
             row.inputs, row.kept, sum(row.dropped.values()), sum(row.failed.values()))
            for row in rows
        ],
        numeric=4,
    )  # fmt: skip


def _reasons(counts: object) -> str:
    items = counts.items() if isinstance(counts, dict) else ()
    return "\n".join(f"{reason} {count:,}" for reason, count in items)


def _print_commit(commit_id: str, commit: Commit) -> None:
    say(f"commit {commit_id}")
    for parent in commit.parents:
        say(f"parent {parent}")
    say(f"author {commit.author}   time {commit.time}")
    say(f"operation {commit.operation.name} v{commit.operation.version}, "
        f"configuration {commit.operation.config_digest[:12]}")  # fmt: skip
    if commit.operation.teacher:
        weights = commit.operation.teacher.get("weights_sha256")
        say(f"teacher {commit.operation.teacher['name']}, weights {(weights or 'none')[:12]}")
    say("code " + ", ".join(f"{name} {version}" for name, version in commit.operation.code.items()))
    say(f"\n    {commit.message}\n")


def _show_refs(kind: str, refs: dict[str, str], made: str | None, *, as_json: bool) -> None:
    def human() -> None:
        if made is None:
            print_table(kind, (kind, "commit"), [(name, id_[:12]) for name, id_ in refs.items()])
        else:
            say(f"{kind} {made} is at {refs[made][:12]}")

    show(refs if made is None else {made: refs[made]}, as_json=as_json, human=human)


def _open(store: str) -> Store:
    from manifests.store import Store

    opened = Store(store)
    opened.check_is_store()
    return opened


if TYPE_CHECKING:
    from manifests.store import Store
