"""The command `predict`: hands the trained student to the engine's workers."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Annotated

import typer

from engine.cli_pool import (
    CpusOption,
    GpusOption,
    InlineOption,
    RayOption,
    WorkersOption,
    pool_for,
)
from manifests.console import (
    JsonOption,
    StoreOption,
    examples,
    note,
    open_store,
    print_table,
    say,
    show,
)
from manifests.errors import JobError

EPILOG = examples(
    "maskmill predict photos/ --model models/student --store st --out predicted",
    'maskmill predict a.jpg b.jpg --text "red bag" --text "left shoe" --store st --out found',
    "maskmill predict photos/ --task panoptic --min-score 0.15 --store st --out panoptic",
    "maskmill predict s3://bucket/photos --store s3://bucket/st --out s3://bucket/predicted",
)


def predict(
    images: Annotated[list[str], typer.Argument(help="Image files, folders or URLs of both.")],
    store: StoreOption,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="Folder or URL.")],
    model: Annotated[
        str, typer.Option(metavar="REF", help="The student: a branch models/NAME, tag or commit.")
    ] = "models/student",
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="PHRASE", help="Look for this instead of the student's categories."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="instance, panoptic, semantic, foreground or referring; default: referring with "
            "--text, else instance.",
        ),
    ] = "",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out what is below.")] = 0.3,
    top: Annotated[int, typer.Option(min=1, help="Segments of a photo, at most.")] = 100,
    max_overlap: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="IoU from which on two instances of a text are one; 1: never."
        ),
    ] = 0.7,
    overlays: Annotated[int, typer.Option(min=0, help="Photos to draw, at most.")] = 200,
    image_batch: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 4,
    ray_address: RayOption = "",
    workers: WorkersOption = 0,
    cpus_per_worker: CpusOption = 0,
    gpus_per_worker: GpusOption = 0.0,
    inline: InlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find segments in photos with a trained student; COCO JSON and pictures."""
    from engine.predict import PredictConfig
    from engine.predict import predict as run
    from engine.predict_output import OVERLAYS, OutputConfig, write_predictions
    from engine.progress import ProgressListener
    from student.predictor import PredictOptions, predictor_source

    opened = open_store(store)
    options = PredictOptions(
        task=task, texts=tuple(text or ()), top=top, min_score=min_score, max_overlap=max_overlap,
        on_gpu=gpus_per_worker > 0,
    )  # fmt: skip
    source = predictor_source(opened, model, options)
    config = PredictConfig(
        images=tuple(images), without=posixpath.join(out, OVERLAYS), image_batch=image_batch,
        pool=pool_for(
            opened, inline=inline, ray_address=ray_address, workers=workers,
            cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker,
        ),
    )  # fmt: skip
    with ProgressListener(is_quiet=as_json) as listener:
        listener.step(f"predict with {model}")
        found = run(opened, source, config, on_progress=listener.progress)
    target = OutputConfig(folder=out, texts=source.texts, overlays=overlays, min_score=min_score)
    summary = write_predictions(found, target, made_by=source.identity)
    if sum(summary.failed.values()) == summary.num_photos:
        raise JobError(
            f"none of {summary.num_photos:,} photos could be predicted: "
            f"{_counts(summary.failed)}; see {summary.file}"
        )

    def human() -> None:
        rows = [(name, f"{number:,}") for name, number in list(summary.by_text.items())[:20]]
        print_table("what was found", ["text", "segments"], rows)
        if summary.failed:
            say(f"not predicted: {_counts(summary.failed)}")
        if not summary.num_segments and summary.best_score is not None:
            note(
                f"no segment scored {min_score:g} or more, the best one {summary.best_score:.3f}; "
                "a lower --min-score shows it"
            )
        say(
            f"{summary.num_segments:,} segments in {summary.num_photos:,} photos, "
            f"{summary.num_overlays:,} of them drawn: {summary.file}"
        )

    show(summary, as_json=as_json, human=human)


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in reasons.items())
