"""The command export-model: a student as ONNX, TorchScript or torch.export, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import JsonOption, StoreOption, examples, open_store, say, show

if TYPE_CHECKING:
    from student.export_model import ExportResult


def export_model(
    store: StoreOption,
    student: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT", help="A student's name, or any ref of one of its checkpoints."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Of the network.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="onnx, torchscript or torch_export.")
    ] = "onnx",
    image_side: Annotated[
        int, typer.Option(min=0, help="Of the canvas in pixels; 0: as it was trained.")
    ] = 0,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", help="Names to embed; default: those it was taught."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help='A phrase to embed, e.g. "red bag".')
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that the file takes at once.")] = 1,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of scores, boxes and mask probabilities.")
    ] = 1e-3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a student's network into a file, if it says there what it says here."""
    from student.checkpoint import load_student
    from student.export_model import ExportOptions, export_student

    options = ExportOptions(
        format=format, image_side=image_side, texts=tuple(category or ()),
        phrases=tuple(text or ()), batch=batch, tolerance=tolerance, overwrite=overwrite,
    )  # fmt: skip
    result = export_student(load_student(open_store(store), student), target, options=options)
    show(result, as_json=as_json, human=lambda: _print(result))


def _print(result: ExportResult) -> None:
    texts = "any number of texts" if result.num_texts is None else f"{result.num_texts} texts"
    say(
        f"wrote {result.path}: {result.format}, {result.num_bytes / 1e6:.1f} MB, takes "
        f"{result.batch} x {result.image_side} px and {texts}"
    )
    found = result.difference
    say(
        f"largest difference: scores {found.scores:.1e}, boxes {found.boxes:.1e}, mask "
        f"probabilities {found.masks:.1e}"
    )


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "export-model": (
        export_model,
        examples(
            "maskmill export-model bags bags.onnx --store st",
            'maskmill export-model bags bag.onnx --category bag --text "red bag"',
            "maskmill export-model models/bags~1 bags.pt2 --format torch_export --image-side 512",
        ),
    ),
}
"""Name -> command and what its --help shows at the end."""
