"""The commands `gold propose` and `gold import`: photos go out to people, and masks come back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.console import (
    BranchOption,
    JsonOption,
    MessageOption,
    RefOption,
    StoreOption,
    examples,
    note,
    open_store,
    print_table,
    say,
    show,
    warn,
)

if TYPE_CHECKING:
    from engine.confidence.import_gold import GoldSummary
    from engine.confidence.proposal import ProposalSummary

_SHOWN = 20

gold_app = typer.Typer(
    help="Human masks: which images people should draw next, and what they drew.",
    rich_markup_mode=None, add_completion=False,
)  # fmt: skip


def mount(app: typer.Typer) -> None:
    """Adds `gold` and its commands."""
    app.add_typer(gold_app, name="gold")


@gold_app.command(
    "propose",
    epilog=examples(
        "maskmill gold propose to-draw --count 50 --store st",
        "maskmill gold propose to-draw --count 50 --certify 50 --boxes-only",
        "maskmill gold propose to-draw --format label-studio --overwrite",
    ),
)
def propose(
    target: Annotated[str, typer.Argument(metavar="OUT", help="The folder or URL to write.")],
    store: StoreOption,
    count: Annotated[int, typer.Option(help="Images to propose.")] = 50,
    certify: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many of them certify, drawn at random; none: half."),
    ] = None,
    certify_share: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of all images that certify; as calibrate's."),
    ] = None,
    format: Annotated[str, typer.Option(help="coco (CVAT and others) or label-studio.")] = "coco",
    boxes_only: Annotated[
        bool, typer.Option("--boxes-only", help="No masks to correct: people draw from nothing.")
    ] = False,
    image_url: Annotated[
        str, typer.Option(metavar="PREFIX", help="Before a photo's name, in Label Studio's tasks.")
    ] = "/data/local-files/?d=images/",
    seed: Annotated[int, typer.Option(help="Of the random order.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a proposal that is there.")
    ] = False,
    ref: RefOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Write the images that people should draw next, for CVAT or Label Studio."""
    from typing import cast

    from engine.confidence.proposal import Format, ProposalOptions
    from engine.confidence.proposal import propose as write
    from engine.confidence.proposed import ProposeConfig
    from manifests.dataset import Dataset
    from manifests.prior import warn_of_prior

    config = ProposeConfig(count=count, num_certify=certify, certify_share=certify_share, seed=seed)
    options = ProposalOptions(
        format=cast(Format, format), masks=not boxes_only, overwrite=overwrite, image_url=image_url
    )
    dataset = Dataset.open(open_store(store), ref)
    warn_of_prior(dataset)
    made = write(dataset, target, config=config, options=options, ref=ref)
    if not made.has_confidence:
        note(
            "there is no confidence layer: which masks are doubtful is judged by what the teachers "
            "say of themselves (predicted IoU x stability); 'maskmill calibrate' makes one"
        )
    if made.num_images < count:
        note(f"only {made.num_images:,} images are left to propose, {count:,} were asked for")
    show(made, as_json=as_json, human=lambda: _print_proposal(made))


def _print_proposal(made: ProposalSummary) -> None:
    print_table(
        "images to draw",
        ("image", "role", "boxes", "masks", "expected IoU", "why"),
        [
            (row["image_id"][:12], row["role"], row["num_boxes"], row["num_masks"],
             row["expected_iou"], row["why"])
            for row in made.images[:_SHOWN]
        ],
        right=("boxes", "masks", "expected IoU"),
    )  # fmt: skip
    if made.num_images > _SHOWN:
        note(f"and {made.num_images - _SHOWN:,} more; {made.target}/proposal.csv lists all")
    roles = ", ".join(f"{count:,} {role}" for role, count in sorted(made.num_by_role.items()))
    say(
        f"wrote {made.num_images:,} images ({roles}) with {made.num_boxes:,} boxes, of which "
        f"{made.num_masks:,} have a mask to correct, to {made.target}"
    )


@gold_app.command(
    "import",
    epilog=examples(
        "maskmill gold import instances_default.json --store st",
        "maskmill gold import cvat-export.zip --message 'round 1'",
        "maskmill gold import drawn/ --min-box-iou 0.6 --json",
    ),
)
def import_command(
    answers: Annotated[
        str, typer.Argument(metavar="ANSWERS", help="The file, zip or folder that a tool exported.")
    ],
    store: StoreOption,
    branch: BranchOption = "main",
    message: MessageOption = "",
    min_box_iou: Annotated[
        float, typer.Option(help="IoU that a mask's own box must have with the label's box.")
    ] = 0.5,
    accept_unchanged: Annotated[
        bool,
        typer.Option("--accept-unchanged", help="Also images in which no mask was changed at all."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take the masks that people drew into masks/human. COCO, or Label Studio's JSON."""
    from engine.confidence.gold_shard import GoldRules
    from engine.confidence.import_gold import GoldImportConfig, import_gold
    from engine.confidence.untouched import UNCHANGED
    from manifests.errors import NothingToCommitError

    rules = GoldRules(min_box_iou=min_box_iou, accept_unchanged=accept_unchanged)
    config = GoldImportConfig(answers=answers, rules=rules, branch=branch, message=message)
    try:
        made = import_gold(open_store(store), config)
    except NothingToCommitError as error:
        commit_id = error.commit_id
        body = {"commit_id": commit_id, "is_new": False}
        show(body, as_json=as_json, human=lambda: say(f"commit {commit_id[:12]}"))
        note("nothing changed: these masks are there already")
        return
    summary = made.summary
    if unchanged := summary.not_used.get(UNCHANGED):
        warn(
            f"{unchanged:,} masks were not used: they belong to images in which every mask is as a "
            "teacher drew it; --accept-unchanged takes them if somebody looked at them"
        )
    body = {
        "commit_id": made.commit_id, "is_new": True,
        **{name: value for name, value in asdict(summary).items() if name != "ledger"},
        "ledger": [asdict(row) for row in summary.ledger.totals()],
    }  # fmt: skip
    show(body, as_json=as_json, human=lambda: _print_import(made.commit_id, summary))


def _print_import(commit_id: str, summary: GoldSummary) -> None:
    from manifests.cli import print_ledgers

    print_ledgers([("", summary.ledger)])
    say(
        f"{summary.num_images:,} images were answered: {summary.num_new:,} boxes got their first "
        f"human mask, {summary.num_replaced:,} another one, {summary.num_kept:,} keep theirs"
    )
    if summary.num_unanswered:
        note(f"{summary.num_unanswered:,} images have no answer and stay as they were")
    if summary.num_unknown:
        note(f"{summary.num_unknown:,} images of the file are not on this branch")
    say(f"commit {commit_id[:12]}: gold")
