"""Import gold: what people drew becomes `masks/human` of the images that they drew in.

    read answers -> find their images -> match answers to boxes, shard by shard -> commit

Every answer and every box of an answered image is accounted for. An image without any answer was
not answered: tools list all images they were given, also those that nobody opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.confidence.answers import AnswerFile, read_answers
from engine.confidence.drawn import DrawnImage
from engine.confidence.find_drawn import FoundImages, find_drawn
from engine.confidence.gold_account import GoldAccount
from engine.confidence.gold_shard import DrawnShard, GoldRules, draw_in_shard
from engine.sources.protocol import absolute
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.errors import InputError
from manifests.ledger import Ledger
from manifests.manifest import Cell, Manifest
from manifests.parquet import table_to_parquet
from manifests.statistics import value_counts
from manifests.store import Store
from manifests.writer import Draft, Writer

VERSION = 1
"""Raised when the human masks from the same answers would come out different."""

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldImportConfig:
    """Settings of one import.

    Attributes:
        answers: the file, folder or zip that a tool exported; a path or fsspec URL.
        rules: see GoldRules.
        branch: the branch to read and to commit to.
        message: the commit's message; empty: one is made.
    """

    answers: str
    rules: GoldRules = GoldRules()
    branch: str = DEFAULT_BRANCH
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldSummary:
    """What an answer file holds, and what came of it.

    Attributes:
        num_images, num_unanswered, num_unknown: images of the file that were answered, that nobody
            drew in, and that the dataset does not have.
        num_answers, num_used: what people drew, and what of it is gold now.
        not_used: why the others are not -> how many.
        num_new, num_replaced, num_kept: boxes that got their first human mask, that got another
            one in its place, and that were not drawn again and keep theirs.
        ledger: the same, of every answer and of every box of an answered image, by category.
    """

    num_images: int
    num_unanswered: int
    num_unknown: int
    num_answers: int
    num_used: int
    not_used: Mapping[str, int]
    num_new: int
    num_replaced: int
    num_kept: int
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldImport:
    """A commit with new human masks."""

    commit_id: str
    summary: GoldSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldDraft:
    """An import that is not committed yet."""

    draft: Draft
    summary: GoldSummary


def import_gold(store: Store, config: GoldImportConfig) -> GoldImport:
    """Puts what people drew into the branch's `masks/human`, and commits.

    Raises:
        InputError: the answers cannot be read, are for other images, or none of them can be used.
        NothingToCommitError: all of it is there already.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, config.branch)
    made = draft_gold(writer.dataset, config)
    return GoldImport(commit_id=writer.publish(made.draft), summary=made.summary)


def draft_gold(dataset: Dataset, config: GoldImportConfig) -> GoldDraft:
    """What an import makes of a commit; no branch is touched. Raises as `import_gold`."""
    answers = read_answers(config.answers)
    found = find_drawn(dataset, answers.images)
    drawn = _by_image(config, answers, found)
    account = GoldAccount()
    account.add_file(answers.images, found.ids)
    cells: list[Cell] = []
    for shard, image_ids in found.by_shard.items():
        mine = {image_id: drawn[image_id] for image_id in sorted(image_ids) if image_id in drawn}
        if mine and dataset.manifest.get(shard, schemas.BOXES):
            result = draw_in_shard(dataset, shard, mine, config.rules)
            account.add_shard(result)
            cells += _changed(dataset, shard, result)
    summary = _summary(answers, found, drawn, account)
    _require_some(config, summary)
    rejects = account.rejects()
    draft = Draft.on(
        dataset,
        _with_human(dataset.manifest, cells),
        operation=operation(
            "gold", version=VERSION, config=lineage(config), packages=("scipy",),
            inputs=answers.inputs,
        ),
        ledger=summary.ledger,
        message=config.message or f"import {summary.num_used:,} masks that people drew",
        rejects=dataset.store.put_bytes(table_to_parquet(rejects)).object_id
        if rejects.num_rows else None,
    )  # fmt: skip
    return GoldDraft(draft=draft, summary=summary)


def lineage(config: GoldImportConfig) -> dict[str, Any]:  # Any: JSON
    """The settings as the commit records them."""
    return {"answers": absolute(config.answers), "rules": asdict(config.rules)}


def _by_image(
    config: GoldImportConfig, answers: AnswerFile, found: FoundImages
) -> dict[str, list[DrawnImage]]:
    """Image id -> its places in the file; refuses a file that has none of the dataset's images."""
    drawn: dict[str, list[DrawnImage]] = defaultdict(list)
    for image, image_id in zip(answers.images, found.ids, strict=True):
        if image_id is not None and image.answers:
            drawn[image_id].append(image)
    if not drawn:
        names = [image.file_name for image in answers.images if image.answers]
        shown = ", ".join(repr(name) for name in names[:_SHOWN])
        raise InputError(
            f"{config.answers}: none of its {len(names):,} drawn images is on branch "
            f"'{config.branch}': expected files named by the image id, as 'maskmill gold propose' "
            f"names them, got {shown}"
        )
    return drawn


def _summary(
    answers: AnswerFile,
    found: FoundImages,
    drawn: Mapping[str, list[DrawnImage]],
    account: GoldAccount,
) -> GoldSummary:
    known = {image_id for image_id in found.ids if image_id is not None}
    return GoldSummary(
        num_images=len(drawn),
        num_unanswered=len(known - set(drawn)),
        num_unknown=sum(image_id is None for image_id in found.ids),
        num_answers=sum(len(image.answers) for image in answers.images),
        num_used=account.num_used,
        not_used=account.not_used,
        num_new=account.num_new,
        num_replaced=account.num_replaced,
        num_kept=account.num_kept,
        ledger=account.ledger(),
    )


def _require_some(config: GoldImportConfig, summary: GoldSummary) -> None:
    if summary.num_used:
        return
    why = ", ".join(f"{reason} {count:,}" for reason, count in summary.not_used.items())
    raise InputError(
        f"{config.answers}: none of its {summary.num_answers:,} answers can be used ({why}); see "
        "docs/gold.md for what each word means"
    )


def _changed(dataset: Dataset, shard: str, result: DrawnShard) -> list[Cell]:
    """The shard's new cell of human masks, also if it only says why there are none; or nothing."""
    before = dataset.manifest.get(shard, schemas.MASKS_HUMAN)
    boxes = dataset.cell(shard, schemas.BOXES).object_id
    cell = write_cell(
        dataset.store, result.human, shard=shard, layer=schemas.MASKS_HUMAN, inputs=(boxes,),
        statistics=value_counts(result.human["status"]),
    )  # fmt: skip
    return [] if before and before.object_id == cell.object_id else [cell]


def _with_human(manifest: Manifest, cells: list[Cell]) -> Manifest:
    """Takes out what was computed from human masks that are others now.

    That is what names the old cell as an input, and verdicts in any case: in a shard that had no
    human masks they were given without them.
    """
    touched = {cell.shard for cell in cells}
    old = {
        cell.object_id for cell in manifest.of_layer(schemas.MASKS_HUMAN) if cell.shard in touched
    }
    kept = [
        cell
        for cell in manifest
        if cell.shard not in touched
        or not (cell.layer == schemas.VERDICTS or old & set(cell.inputs))
    ]
    return Manifest(kept).with_cells(cells)
