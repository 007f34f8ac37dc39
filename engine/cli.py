"""The command line `maskmill`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from manifests import cli as manifests_cli
from manifests.console import (
    BranchOption,
    JsonOption,
    RefOption,
    StoreOption,
    note,
    print_table,
    run_app,
    say,
    show,
)

if TYPE_CHECKING:
    from engine.pool import PoolConfig
    from engine.run import StepResult
    from manifests.store import Store

app = typer.Typer(
    name="maskmill",
    help="Boxes in, trusted masks out: label, filter, version and export pseudo-masks.",
    epilog="The whole chain in one command: maskmill run job.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(help="Model weights, each pinned by its SHA-256.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
manifests_cli.mount(app)

RayOption = Annotated[
    str,
    typer.Option(
        "--ray-address",
        envvar="MASKMILL_RAY_ADDRESS",
        help="An existing cluster: auto, host:port or ray://host:port. Empty: a local Ray.",
    ),
]
WorkersOption = Annotated[int, typer.Option(help="Workers; 0: as many as the cluster holds.")]
CpusOption = Annotated[int, typer.Option(help="CPUs, and threads, of each worker; 0: automatic.")]
GpusOption = Annotated[float, typer.Option(help="GPUs of each worker.")]
InlineOption = Annotated[
    bool, typer.Option("--inline", help="No Ray: work in this process (debugging, memory://).")
]


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every task.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; works anywhere.")
    ] = False,
) -> None:
    """Boxes in, trusted masks out: label, filter, version and export pseudo-masks."""
    level = os.environ.get("MASKMILL_LOG", "INFO" if verbose else "ERROR")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")


@app.command(
    epilog="Examples: maskmill ingest coco instances.json photos/ --store st | "
    "maskmill ingest yolo s3://bucket/set s3://bucket/set/images --store s3://bucket/st"
)
def ingest(
    format: Annotated[
        str, typer.Argument(help="coco, objects365, lvis, open_images, yolo, voc, csv.")
    ],
    annotations: Annotated[str, typer.Argument(help="The annotation file or folder, or a URL.")],
    images: Annotated[str, typer.Argument(help="The image root: a folder or a URL.")],
    store: StoreOption,
    name: Annotated[str, typer.Option(help="The source's name in ids; default: the format.")] = "",
    branch: BranchOption = "main",
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE of the format.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the image policy, e.g. min_sharpness=5.")
    ] = None,
    shard_images: Annotated[int, typer.Option(help="Images a shard, at most.")] = 1000,
    ray_address: RayOption = "",
    workers: WorkersOption = 0,
    inline: InlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read a box-labelled dataset into a branch, checking every image and every box."""
    from engine.ingest import ingest as run_ingest
    from engine.ingest_config import ImagePolicy, IngestConfig
    from engine.run import committed
    from engine.settings import from_mapping, with_overrides
    from engine.sources.protocol import SourceConfig

    opened = _open(store)
    config = IngestConfig(
        source=SourceConfig(
            format=format, annotations=annotations, images=images, name=name or format,
            options=with_overrides({}, option or []),
        ),
        policy=from_mapping(ImagePolicy, with_overrides({}, policy or []), where="--policy"),
        branch=branch, message=message, shard_images=shard_images,
        pool=_pool(opened, ray_address, workers, 0, 0.0, inline),
    )  # fmt: skip
    with _listener(as_json) as listener:
        listener.step(f"ingest {config.source.name}")
        result = committed(
            "ingest", lambda: run_ingest(opened, config, on_progress=listener.progress)
        )
    _show_step(opened, result, as_json=as_json)


@app.command(
    epilog="Examples: maskmill label sam_vit_t --store st | maskmill label sam_vit_h "
    "--store s3://bucket/st --ray-address auto --gpus-per-worker 1"
)
def label(
    teacher: Annotated[str, typer.Argument(help="A name from 'maskmill teachers'.")],
    store: StoreOption,
    branch: BranchOption = "main",
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE of the teacher.")
    ] = None,
    image_batch: Annotated[int, typer.Option(help="Images given to the teacher together.")] = 1,
    fallback: Annotated[
        bool, typer.Option(help="Without weights, use a teacher that needs none, and say so.")
    ] = True,
    ray_address: RayOption = "",
    workers: WorkersOption = 0,
    cpus_per_worker: CpusOption = 0,
    gpus_per_worker: GpusOption = 0.0,
    inline: InlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a mask for every box of a branch with one teacher. Run again to go on."""
    from engine.job import LabelSettings
    from engine.label import LabelConfig
    from engine.label import label as run_label
    from engine.run import available_teacher, committed, config_for
    from engine.settings import with_overrides

    opened = _open(store)
    settings = LabelSettings(
        teacher=teacher, config=with_overrides({}, option or []), fallback=fallback
    )
    with _listener(as_json) as listener:
        chosen = available_teacher(settings, listener)
        config = LabelConfig(
            teacher=chosen, teacher_config=config_for(settings, chosen),
            branch=branch, message=message, image_batch=image_batch,
            pool=_pool(opened, ray_address, workers, cpus_per_worker, gpus_per_worker, inline),
        )  # fmt: skip
        listener.step(f"label with {chosen}")
        result = committed(
            "label", lambda: run_label(opened, config, on_progress=listener.progress)
        )
    _show_step(opened, result, as_json=as_json)


@app.command(
    "filter",
    epilog="Examples: maskmill filter --store st | maskmill filter strict.toml --store st "
    "--set rules.min_box_iou=0.8 --set 'teachers=[\"u2netp\"]'",
)
def filter_command(
    store: StoreOption,
    policy: Annotated[
        str, typer.Argument(help="A TOML file, or the name of a built-in.")
    ] = "default",
    branch: BranchOption = "main",
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE in the policy.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every mask by a policy. Touches no image and runs no teacher."""
    from engine.filter import FilterConfig, filter_masks
    from engine.policy import Policy
    from engine.run import committed

    opened = _open(store)
    chosen = Policy.load(policy, overrides=overrides or [])
    config = FilterConfig(policy=chosen, branch=branch, message=message)
    _show_step(opened, committed("filter", lambda: filter_masks(opened, config)), as_json=as_json)


@app.command(
    epilog="Examples: maskmill run job.toml | maskmill run job.toml --set pool.workers=2 "
    "--set store=s3://bucket/st"
)
def run(
    job: Annotated[str, typer.Argument(help="A TOML file; see docs/job.md.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE in the job, e.g. label.0.teacher=box."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole chain: ingest, label, filter, commit, export, report. Run again to go on."""
    from engine.job import JobConfig
    from engine.run import run as run_job
    from manifests.history import history
    from manifests.store import Store

    config = JobConfig.load(job, overrides=overrides or [])
    with _listener(as_json) as listener:
        result = run_job(config, listener)

    def human() -> None:
        for entry in reversed(list(history(Store(config.store), result.commit_id))):
            if entry.commit.ledger.rows:
                say(f"\n{entry.commit_id[:12]} {entry.commit.message}")
                manifests_cli.print_ledger(entry.commit.ledger)
        for summary in result.exports:
            say(f"exported {summary.num_annotations:,} annotations to {summary.target}")
        if result.report:
            say(f"report: {result.report}")

    show(result, as_json=as_json, human=human)


@app.command(epilog="Example: maskmill report out.html --store st --ref main")
def report(
    target: Annotated[str, typer.Argument(help="The HTML file to write.")],
    store: StoreOption,
    ref: RefOption = "main",
    max_photos: Annotated[int, typer.Option(help="Photos on the page, at most.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """One HTML page with the photos, the boxes, the masks, and the reasons of dropped ones."""
    from dataclasses import asdict
    from pathlib import Path

    from engine.report import ReportOptions, write_report
    from manifests.dataset import Dataset

    summary = write_report(
        Dataset.open(_open(store), ref), Path(target), options=ReportOptions(max_photos=max_photos)
    )
    show(asdict(summary), as_json=as_json, human=lambda: say(f"wrote {target}"))


@app.command(epilog="Example: maskmill teachers --json")
def teachers(as_json: JsonOption = False) -> None:
    """The teachers there are, and whether their weights are on this machine."""
    from teachers import registry, weights

    rows = [
        {
            "name": name,
            "description": entry.description,
            "weights": entry.weights,
            "available": entry.weights is None or weights.find(entry.weights) is not None,
        }
        for name, entry in registry.REGISTRY.items()
    ]
    show(
        rows,
        as_json=as_json,
        human=lambda: print_table(
            "teachers", ("name", "what it does", "weights", "here"),
            [(row["name"], row["description"], row["weights"] or "none needed",
              "yes" if row["available"] else "no") for row in rows],
        ),
    )  # fmt: skip


@app.command("demo-photos", hidden=True)
def demo_photos(folder: Annotated[str, typer.Argument(help="Where to write them.")]) -> None:
    """Write the small box-labelled photo set of `make demo`."""
    from pathlib import Path

    from engine.demo import build_demo_set

    build_demo_set(Path(folder))
    say(f"wrote the demo photos to {folder}")


@weights_app.command("fetch", epilog="Example: maskmill weights fetch mobile_sam")
def weights_fetch(
    name: Annotated[str, typer.Argument(help="A name from 'maskmill weights list'.")],
    as_json: JsonOption = False,
) -> None:
    """Find a weights file, or download it and check its digest."""
    from teachers import weights

    path = weights.fetch(name)
    show({"name": name, "path": str(path)}, as_json=as_json, human=lambda: say(str(path)))


@weights_app.command("list", epilog="Example: maskmill weights list --json")
def weights_list(as_json: JsonOption = False) -> None:
    """Every weights file maskmill knows, its digest, and where it is on this machine."""
    from teachers import weights

    rows = [
        {"name": name, "bytes": entry.num_bytes, "sha256": entry.sha256, "path": weights.find(name)}
        for name, entry in weights.TABLE.items()
    ]
    show(
        rows,
        as_json=as_json,
        human=lambda: print_table(
            "weights", ("name", "sha256", "here", "bytes"),
            [(row["name"], row["sha256"], row["path"] or "no", row["bytes"]) for row in rows],
            numeric=1,
        ),
    )  # fmt: skip


def main() -> None:
    """Entry point of the `maskmill` command."""
    run_app(app, arguments=sys.argv[1:])


@contextmanager
def _listener(as_json: bool) -> Iterator[_Listener]:
    from engine.progress import ProgressListener

    with ProgressListener(is_quiet=as_json) as listener:
        yield listener


def _pool(
    store: Store, ray_address: str, workers: int, cpus: int, gpus: float, inline: bool
) -> PoolConfig:
    from engine.pool import PoolConfig

    if store.protocol == "memory" and not inline:
        note("a memory:// store lives in this process only, so the work is done here, without Ray")
    return PoolConfig(
        executor="inline" if inline or store.protocol == "memory" else "ray",
        ray_address=ray_address, workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus,
    )  # fmt: skip


def _open(store: str) -> Store:
    from manifests.store import Store

    opened = Store(store)
    opened.check_is_store()
    return opened


def _show_step(store: Store, result: StepResult, *, as_json: bool) -> None:
    from dataclasses import asdict

    from manifests.commit import Commit

    commit = Commit.load(store, result.commit_id)

    def human() -> None:
        manifests_cli.print_ledger(commit.ledger)
        say(f"commit {result.commit_id[:12]} {commit.message}")
        if not result.is_new:
            note(f"nothing changed: the outcome of this {result.step} was there already")

    body = {
        "commit": result.commit_id,
        "is_new": result.is_new,
        "ledger": [asdict(row) for row in commit.ledger.totals()],
    }
    show(body, as_json=as_json, human=human)


if TYPE_CHECKING:
    from engine.progress import ProgressListener as _Listener

if __name__ == "__main__":
    main()
