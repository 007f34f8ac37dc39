"""The commands `agree` and `calibrate`: how alike teachers are, and what their masks are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manifests.console import (
    BranchOption,
    JsonOption,
    MessageOption,
    StoreOption,
    examples,
    open_store,
    print_table,
    say,
)

if TYPE_CHECKING:
    from engine.run import StepResult
    from manifests.store import Store

TeacherOption = Annotated[
    list[str] | None,
    typer.Option("--teacher", metavar="NAME", help="Of this teacher only; repeatable."),
]


def agree(
    store: StoreOption,
    teacher: TeacherOption = None,
    branch: BranchOption = "main",
    message: MessageOption = "",
    as_json: JsonOption = False,
) -> None:
    """How alike the masks of different teachers are. Reads masks, no image."""
    from engine.cli import show_step
    from engine.confidence.agree import AgreeConfig
    from engine.progress import ProgressListener
    from engine.run import run_agree

    config = AgreeConfig(teachers=tuple(teacher or ()), branch=branch, message=message)
    with ProgressListener(is_quiet=as_json) as listener:
        result = run_agree(open_store(store), config, listener)
    show_step(result, as_json=as_json)


def calibrate(
    store: StoreOption,
    teacher: TeacherOption = None,
    prior: Annotated[
        bool, typer.Option("--prior", help="Use maskmill's own calibrator, also if there is gold.")
    ] = False,
    from_ref: Annotated[
        str, typer.Option("--from", metavar="REF", help="Apply the calibrator of this ref.")
    ] = "",
    certify_share: Annotated[
        float, typer.Option(help="Share of the gold images kept for certificates.")
    ] = 0.5,
    branch: BranchOption = "main",
    message: MessageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Give every mask its expected IoU, learnt from human masks. Reads no image."""
    from engine.cli import show_step
    from engine.confidence.calibrate import CalibrateConfig
    from engine.progress import ProgressListener
    from engine.run import run_calibrate

    opened = open_store(store)
    config = CalibrateConfig(
        teachers=tuple(teacher or ()), prior=prior, certify_share=certify_share, branch=branch,
        message=message, calibrator=_calibrator_of(opened, from_ref) if from_ref else "",
    )  # fmt: skip
    with ProgressListener(is_quiet=as_json) as listener:
        result = run_calibrate(opened, config, listener)
    show_step(result, as_json=as_json, more=_figures(opened, result, as_json=as_json))


def _calibrator_of(store: Store, ref: str) -> str:
    """The calibrator behind the confidence of a ref. Raises InputError if there is none."""
    from engine.confidence.judge import calibrator_of
    from manifests.dataset import Dataset

    return calibrator_of(Dataset.open(store, ref))


def _figures(store: Store, result: StepResult, *, as_json: bool) -> Mapping[str, Any]:  # Any: JSON
    """The calibrator's figures, which are shown to people as a table."""
    from engine.confidence.calibrator import Calibrator
    from manifests.commit import Commit

    object_id = (Commit.load(store, result.commit_id).attached or {}).get("calibrator")
    if object_id is None:
        return {}
    calibrator = Calibrator.load(store, object_id)
    if not as_json:
        _print_figures(calibrator.origin, calibrator.figures)
    return {"calibrator": object_id, "figures": calibrator.figures}


def _print_figures(origin: str, figures: Mapping[str, Any]) -> None:  # Any: JSON
    say(f"calibrator: {origin}")
    columns = [("gold that calibrates, out of fold", figures)]
    if "certify" in figures:
        columns.append(("gold that certifies, never seen", figures["certify"]))
    if figures.get("mean_iou"):
        titles = ["figure", *(title for title, _ in columns)]
        described = [_described(found) for _, found in columns]
        rows = [[name, *(column.get(name, "-") for column in described)] for name in described[0]]
        print_table("", titles, rows, right=titles[1:])
    for source, found in figures.get("by_source", {}).items():
        say(
            f"judged on {source}, fitted on the others: calibration error "
            f"{found['calibration_error']:.3f}"
        )


def _described(found: Mapping[str, Any]) -> dict[str, str]:  # Any: JSON
    """Name of a figure -> its text."""
    return {
        "images": f"{found['num_images']:,}",
        "boxes": f"{found['num_boxes']:,}",
        **{f"mean IoU, {name}": _number(value) for name, value in found["mean_iou"].items()},
        "AUROC of IoU under 0.7": _number(found["auroc"]),
        "calibration error": _number(found["calibration_error"]),
        "kept if 5% may be under 0.7": f"{found['share_kept_at_5_percent']:.1%}",
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "agree": (agree, examples("maskmill agree --store st")),
    "calibrate": (
        calibrate,
        examples(
            "maskmill calibrate --store st",
            "maskmill calibrate --store st --branch autumn --from main",
            "maskmill calibrate --store st --prior",
        ),
    ),
}
