"""The student's commands, mounted by the root command line; nothing heavy before one is called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    JsonOption,
    StoreOption,
    examples,
    note,
    open_store,
    say,
    show,
)
from student import cli_evaluate, cli_export
from student.cli_curve import add_curve
from student.cli_options import ConfigOption, InlineOption, RayOption, SetOption, SizeOption

if TYPE_CHECKING:
    from student.train import TrainResult

RaySession = Callable[[str], AbstractContextManager[None]]


def mount(app: typer.Typer, *, session: RaySession) -> None:
    """Adds the commands to the root command line.

    Args:
        app: the root.
        session: the root's way to reach Ray, which is not the student's to choose.
    """

    for module in (cli_evaluate, cli_export):
        for name, (command, epilog) in module.COMMANDS.items():
            app.command(name, epilog=epilog)(command)
    add_curve(app, session=session)

    @app.command(
        "train",
        epilog=examples(
            "maskmill train main --store st --size tiny --inline",
            "maskmill train main --store st --config shoes.toml --name shoes --workers 4",
            "maskmill train v3 --store s3://bucket/st --set train.gpus_per_worker=1 "
            "--ray-address auto",
        ),
    )
    def train(
        store: StoreOption,
        ref: Annotated[str, typer.Argument(help="A branch, tag or commit to train on.")] = "main",
        config: ConfigOption = "",
        size: SizeOption = "",
        overrides: SetOption = None,
        name: Annotated[
            str, typer.Option(metavar="NAME", help="The student's; default: as configured.")
        ] = "",
        workers: Annotated[
            int, typer.Option(min=0, help="Training processes; 0: as configured.")
        ] = 0,
        inline: InlineOption = False,
        restart: Annotated[
            bool, typer.Option("--restart", help="Begin anew, whatever this name has.")
        ] = False,
        run_folder: Annotated[
            str, typer.Option(metavar="FOLDER", help="For logs; default: in the user's cache.")
        ] = "",
        ray_address: RayOption = "",
        as_json: JsonOption = False,
    ) -> None:  # fmt: skip
        """Train a student on a ref. Run again to go on from its last checkpoint."""
        import json
        from pathlib import Path

        from student.config_files import load_config
        from student.train import TrainOptions
        from student.train import train as run

        opened = open_store(store)
        if opened.protocol == "memory" and not inline:
            note("a memory:// store lives in this process only, so the work is done here")
            inline = True
        words = list(overrides or [])
        words += [f"name={json.dumps(name)}"] if name else []
        words += [f"train.workers={workers}"] if workers else []
        words += ["train.workers=1"] if inline and not workers else []
        options = TrainOptions(
            inline=inline,
            restart=restart,
            ray_address=ray_address,
            run_folder=run_folder,
            is_quiet=as_json,
        )
        settings = load_config(Path(config) if config else None, words, size=size)
        result = run(opened, ref, settings, options=options, session=session)
        show(result, as_json=as_json, human=lambda: _print(result))


def _print(result: TrainResult) -> None:
    if result.loss is None:
        note(f"nothing to do: '{result.name}' has taken all of its {result.steps:,} steps")
    else:
        say(
            f"took {result.steps_now:,} steps: {result.images_per_s:.1f} images/s, "
            f"{result.waited_share:.0%} of the time waiting for data, loss {result.loss:.3f}"
        )
    say(f"commit {result.commit_id[:12]} on branch {result.branch}: step {result.steps:,}")
