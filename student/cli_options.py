"""Options that several of the student's commands have."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", metavar="FILE", help="A TOML file; see docs/student.md.")
]
SizeOption = Annotated[str, typer.Option(metavar="SIZE", help="tiny, small or base.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. train.steps=500."),
]
InlineOption = Annotated[
    bool, typer.Option("--inline", help="No Ray: one worker, in this process.")
]
RayOption = Annotated[
    str,
    typer.Option(
        "--ray-address",
        envvar="MASKMILL_RAY_ADDRESS",
        metavar="ADDRESS",
        help="A cluster: auto, host:port or ray://host:port. Empty: a local Ray.",
    ),
]
OnOption = Annotated[str, typer.Option(metavar="REF", help="Whose human masks are the truth.")]
DataStoreOption = Annotated[
    str, typer.Option(metavar="URL", help="The store of --on; empty: the student's.")
]
SkipImagesOption = Annotated[int, typer.Option(min=0, help="Leave out the first images of --on.")]
MaxImagesOption = Annotated[int, typer.Option(min=0, help="Images of --on at most; 0: all.")]
