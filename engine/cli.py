"""The command line `maskmill`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import (
    cli_confidence,
    cli_diff,
    cli_fsck,
    cli_gold,
    cli_predict,
    cli_reproduce,
    cli_teachers,
)
from engine.cli_pool import (
    CpusOption,
    GpusOption,
    InlineOption,
    RayOption,
    WorkersOption,
    pool_for,
)
from manifests import cli as manifests_cli
from manifests.cli import print_export, print_ledgers
from manifests.console import (
    EXIT_CODES,
    BranchOption,
    JsonOption,
    MessageOption,
    RefOption,
    StoreOption,
    examples,
    note,
    open_store,
    run_app,
    say,
    show,
)
from student import cli as student_cli

if TYPE_CHECKING:
    from engine.run import StepResult

app = typer.Typer(
    name="maskmill",
    help="Boxes in, trusted masks out: label, filter, version and export pseudo-masks.",
    epilog=f"{examples('maskmill run job.toml', 'maskmill COMMAND --help')}\n\n{EXIT_CODES}",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every task.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; works anywhere.")
    ] = False,
) -> None:
    """Boxes in, trusted masks out: label, filter, version and export pseudo-masks."""
    level = os.environ.get("MASKMILL_LOG", "INFO" if verbose else "ERROR").upper()
    known = logging.getLevelNamesMapping()
    logging.basicConfig(
        level=known.get(level, logging.ERROR), format="%(asctime)s %(levelname)s %(message)s"
    )


manifests_cli.mount(app, "init")


@app.command(
    epilog=examples(
        "maskmill ingest coco instances.json photos/ --store st",
        "maskmill ingest csv boxes.csv photos/ --option unit=relative --policy min_sharpness=5",
        "maskmill ingest yolo s3://bucket/set s3://bucket/set/images --store s3://bucket/st",
    )
)
def ingest(
    format: Annotated[
        str, typer.Argument(help="coco, objects365, lvis, open_images, yolo, voc or csv.")
    ],
    annotations: Annotated[str, typer.Argument(help="The annotation file or folder, or a URL.")],
    images: Annotated[str, typer.Argument(help="The image root: a folder or a URL.")],
    store: StoreOption,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The source's name in ids; default: the format.")
    ] = "",
    branch: BranchOption = "main",
    message: MessageOption = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the format."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A rule for images, e.g. min_sharpness=5."),
    ] = None,
    shard_images: Annotated[int, typer.Option(min=1, help="Images a shard, at most.")] = 1000,
    ray_address: RayOption = "",
    workers: WorkersOption = 0,
    inline: InlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read a box-labelled dataset into a branch. Every image and box is checked."""
    from engine.ingest_config import ImagePolicy, IngestConfig
    from engine.progress import ProgressListener
    from engine.run import run_ingest
    from engine.sources.protocol import SourceConfig
    from manifests.settings import from_mapping, with_overrides

    opened = open_store(store)
    rules = with_overrides({}, policy or [], option="--policy")
    config = IngestConfig(
        source=SourceConfig(
            format=format, annotations=annotations, images=images, name=name or format,
            options=with_overrides({}, option or [], option="--option"),
        ),
        policy=from_mapping(ImagePolicy, rules, where="--policy"),
        branch=branch, message=message, shard_images=shard_images,
        pool=pool_for(opened, inline=inline, ray_address=ray_address, workers=workers),
    )  # fmt: skip
    with ProgressListener(is_quiet=as_json) as listener:
        result = run_ingest(opened, config, listener)
    show_step(result, as_json=as_json)


@app.command(
    epilog=examples(
        "maskmill label sam_vit_t --store st",
        "maskmill label box --store st --inline",
        "maskmill label sam_vit_h --store s3://bucket/st --ray-address auto --gpus-per-worker 1",
    )
)
def label(
    teacher: Annotated[str, typer.Argument(help="A name from 'maskmill teachers'.")],
    store: StoreOption,
    branch: BranchOption = "main",
    message: MessageOption = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="A setting of the teacher."),
    ] = None,
    image_batch: Annotated[
        int, typer.Option(min=1, help="Images given to the teacher together.")
    ] = 8,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try boxes again that failed before.")
    ] = False,
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
    from engine.progress import ProgressListener
    from engine.run import available_teacher, config_for, run_label
    from manifests.settings import with_overrides

    opened = open_store(store)
    options = with_overrides({}, option or [], option="--option")
    settings = LabelSettings(teacher=teacher, config=options, fallback=fallback)
    pool = pool_for(
        opened, inline=inline, ray_address=ray_address, workers=workers,
        cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker,
    )  # fmt: skip
    with ProgressListener(is_quiet=as_json) as listener:
        chosen = available_teacher(settings, listener)
        config = LabelConfig(
            teacher=chosen, teacher_config=config_for(settings, chosen),
            branch=branch, message=message, image_batch=image_batch,
            retry_failed=retry_failed, pool=pool,
        )  # fmt: skip
        result = run_label(opened, config, listener)
    show_step(result, as_json=as_json)


@app.command(
    "filter",
    epilog=examples(
        "maskmill filter --store st",
        "maskmill filter strict.toml --store st --branch strict",
        "maskmill filter --set rules.min_box_iou=0.8 --set 'teachers=[\"u2netp\"]'",
    ),
)
def filter_command(
    store: StoreOption,
    policy: Annotated[
        str, typer.Argument(help="A TOML file, or the name of a built-in.")
    ] = "default",
    branch: BranchOption = "main",
    message: MessageOption = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A value in the policy."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every mask by a policy. Touches no image and runs no teacher."""
    from engine.filter import FilterConfig
    from engine.policy import Policy
    from engine.progress import ProgressListener
    from engine.run import run_filter

    opened = open_store(store)
    chosen = Policy.load(policy, overrides=overrides or [])
    config = FilterConfig(policy=chosen, branch=branch, message=message)
    with ProgressListener(is_quiet=as_json) as listener:
        result = run_filter(opened, config, listener)
    show_step(result, as_json=as_json)


@app.command(
    epilog=examples(
        "maskmill run job.toml",
        "maskmill run job.toml --set store=s3://bucket/st --set pool.workers=2",
        "maskmill run job.toml --set label.0.teacher=box --set policy=strict.toml",
    )
)
def run(
    job: Annotated[str, typer.Argument(help="A TOML file; see docs/job.md.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value in the job, e.g. label.0.teacher=box."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole chain: ingest, label, filter, commit, export, report. Run again to go on."""
    from engine.job import JobConfig
    from engine.progress import ProgressListener
    from engine.run import run as run_job

    config = JobConfig.load(job, overrides=overrides or [])
    with ProgressListener(is_quiet=as_json) as listener:
        result = run_job(config, listener)

    def human() -> None:
        print_ledgers((step.step, step.ledger) for step in result.steps)
        for summary in result.exports:
            print_export(summary)
        if result.report:
            say(f"report: {result.report}")
        say(f"commit {result.commit_id[:12]} on branch {config.branch} of {config.store}")
        if not any(step.is_new for step in result.steps):
            note("nothing changed: every step's outcome was there already")

    body = {
        "commit_id": result.commit_id,
        "steps": [_step_body(step) for step in result.steps],
        "exports": result.exports,
        "report": result.report,
    }
    show(body, as_json=as_json, human=human)


@app.command(epilog=examples("maskmill report out.html --store st --ref main"))
def report(
    target: Annotated[str, typer.Argument(help="The HTML file to write.")],
    store: StoreOption,
    ref: RefOption = "main",
    max_photos: Annotated[int, typer.Option(min=0, help="Photos on the page, at most.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Write a ref as one HTML page. Photos, boxes, masks, and the reasons of dropped ones."""
    from pathlib import Path

    from engine.report import ReportOptions, write_report
    from manifests.dataset import Dataset

    dataset = Dataset.open(open_store(store), ref)
    options = ReportOptions(ref=ref, max_photos=max_photos)
    summary = write_report(dataset, Path(target), options=options)
    show(
        summary,
        as_json=as_json,
        human=lambda: say(
            f"wrote {summary.target} with {summary.num_photos:,} of {summary.num_photos_total:,} "
            "photos"
        ),
    )


manifests_cli.mount(
    app,
    *("export", "checkout"),
    *("log", "show", "status", "stats", "blame", "sql"),
    *("branch", "tag", "merge", "revert", "reset", "rm"),
    *("clone", "push", "pull", "gc"),
)


def _ray_session(address: str) -> AbstractContextManager[None]:
    """Handed to the student, which does not know the engine; Ray is imported when it is entered."""
    from engine.ray_session import ray_session

    return ray_session(address)


for module in (cli_confidence, cli_diff, cli_fsck, cli_reproduce):
    for name, (command, epilog) in module.COMMANDS.items():
        app.command(name, epilog=epilog)(command)
cli_gold.mount(app)
cli_teachers.mount(app)
student_cli.mount(app, session=_ray_session)
app.command(epilog=cli_predict.EPILOG)(cli_predict.predict)


@app.command("demo-photos", hidden=True, epilog=examples("maskmill demo-photos demo-out/photos"))
def demo_photos(
    folder: Annotated[str, typer.Argument(help="Where to write them.")], as_json: JsonOption = False
) -> None:
    """Write the small box-labelled photo set of `make demo`."""
    from pathlib import Path

    from engine.demo import build_demo_set

    build_demo_set(Path(folder))
    show(
        {"folder": folder},
        as_json=as_json,
        human=lambda: say(f"wrote the demo photos to {folder}"),
    )


def main() -> None:
    """Entry point of the `maskmill` command."""
    run_app(app, arguments=sys.argv[1:])


def show_step(
    result: StepResult,
    *,
    as_json: bool,
    more: Mapping[str, Any] | None = None,  # Any: JSON
) -> None:
    """What a step did, for people or as JSON, which has `more` in it."""
    from engine.confidence.quality import quality_sentences

    def human() -> None:
        print_ledgers([("", result.ledger)])
        for sentence in quality_sentences(result.quality or {}):
            say(sentence)
        say(f"commit {result.commit_id[:12]}: {result.step}")
        if not result.is_new:
            note(f"nothing changed: the outcome of '{result.step}' was there already")

    show({**_step_body(result), **(more or {})}, as_json=as_json, human=human)


def _step_body(result: StepResult) -> dict[str, Any]:  # Any: JSON
    from dataclasses import asdict

    return {
        "step": result.step,
        "commit_id": result.commit_id,
        "is_new": result.is_new,
        "ledger": [asdict(row) for row in result.ledger.totals()],
        "quality": result.quality,
    }


if __name__ == "__main__":
    main()
