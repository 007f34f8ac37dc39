"""The command `curve`: quality against the number of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import JsonOption, StoreOption, examples, note, open_store, print_table, show
from student.cli_options import (
    ConfigOption,
    DataStoreOption,
    InlineOption,
    MaxImagesOption,
    OnOption,
    RayOption,
    SetOption,
    SizeOption,
    SkipImagesOption,
    trained_on,
    usable_device,
)

if TYPE_CHECKING:
    from student.curve import Curve, CurvePoint
    from student.train import RaySession

EPILOG = examples(
    "maskmill curve main --sizes 100,200,400 --on gold --store st --html curve.html",
    "maskmill curve main --sizes 1000,10000 --on main --skip-images 10000 --store s3://bucket/st",
)


def add_curve(app: typer.Typer, *, session: RaySession) -> None:
    """Adds the command to the root command line; `session` is the root's way to reach Ray."""

    @app.command("curve", epilog=EPILOG)
    def curve(
        store: StoreOption,
        sizes: Annotated[
            str, typer.Option(metavar="N,N,...", help="Numbers of images, the first so many.")
        ],
        ref: Annotated[str, typer.Argument(help="A branch, tag or commit to train on.")] = "main",
        on: OnOption = "main",
        data_store: DataStoreOption = "",
        skip_images: SkipImagesOption = 0,
        max_images: MaxImagesOption = 0,
        config: ConfigOption = "",
        size: SizeOption = "",
        overrides: SetOption = None,
        name: Annotated[
            str, typer.Option(metavar="NAME", help="The students are called NAME-<images>.")
        ] = "curve",
        html: Annotated[
            str, typer.Option(metavar="FILE", help="Write the page here.")
        ] = "",
        inline: InlineOption = False,
        ray_address: RayOption = "",
        as_json: JsonOption = False,
    ) -> None:  # fmt: skip
        """Train the same student on growing parts of a dataset, and plot how good each is."""
        import json
        from pathlib import Path

        from manifests.dataset import Dataset
        from manifests.html_page import require_writable, write_page
        from student.config_files import load_config
        from student.curve import CurveRun, curve_page, draw_curve
        from student.evaluate import EvaluateOptions
        from student.train import TrainOptions

        if html:
            require_writable(Path(html), what="curve")
        opened = open_store(store)
        words = [*(overrides or []), f"name={json.dumps(name)}"]
        words += ["train.workers=1"] if inline else []
        run = CurveRun(
            store=opened, ref=ref, sizes=_numbers(sizes),
            judge=Dataset.open(open_store(data_store) if data_store else opened, on),
            evaluation=EvaluateOptions(skip_images=skip_images, max_images=max_images),
            training=TrainOptions(inline=inline, ray_address=ray_address),
            device=usable_device(""),
        )  # fmt: skip
        settings = load_config(Path(config) if config else None, words, size=size)
        found = draw_curve(run, settings, session=session, on_point=_say)
        if html:
            write_page(curve_page(found), Path(html), what="curve")
        show(found, as_json=as_json, human=lambda: _print(found, html))


def _numbers(text: str) -> tuple[int, ...]:
    from manifests.errors import InputError

    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"--sizes: expected numbers such as 100,200,400, got '{text}'") from error


def _say(point: CurvePoint) -> None:
    ap = point.evaluation.mask_ap
    note(f"{point.images:,} images: mask AP {'-' if ap is None else f'{ap:.4f}'}")
    if point.evaluation.num_taught:
        note(trained_on(point.evaluation))


def _print(curve: Curve, html: str) -> None:
    def words(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    columns = ("images", "mask AP", "AP50", "boundary AP", "PQ", "mIoU", "foreground IoU")
    rows = [
        (
            f"{point.images:,}",
            *map(
                words,
                (
                    point.evaluation.mask_ap, point.evaluation.mask_ap50,
                    point.evaluation.boundary_ap, point.evaluation.pq, point.evaluation.miou,
                    point.evaluation.foreground_iou,
                ),
            ),
        )
        for point in curve.points
    ]  # fmt: skip
    print_table(f"{curve.steps:,} steps each", columns, rows, right=columns)
    if html:
        note(f"wrote {html}")
