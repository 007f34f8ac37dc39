"""What several of the student's commands have: options, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from student.evaluation.result import Evaluation

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


def usable_device(name: str) -> str:
    """As torch names it. Raises InputError where this machine has none of that name."""
    import torch

    from manifests.errors import InputError

    if not name:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        detail = str(error).splitlines()[0]
        raise InputError(f"device '{name}' cannot be used: {detail}; leave --device out") from error
    return name


def trained_on(found: Evaluation) -> str:
    """That a student was judged on images that it was trained on."""
    return (
        f"the student was trained on {found.num_taught or 0:,} of these {found.num_images:,} "
        "images: on others it will be worse; see --on, --skip-images and --max-images"
    )
