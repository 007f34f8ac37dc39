"""Which commits, teacher, weights, calibrator and policy made an annotation what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifests import schemas
from manifests.commit import Commit
from manifests.commit_reader import CommitReader
from manifests.computed import calibrator_of
from manifests.dataset import Dataset
from manifests.find_annotation import Found, find_annotation
from manifests.manifest import Cell
from manifests.refs import Refs
from manifests.trace import RowTracer, Trail

_MASKS = schemas.masks_layer("")
_FILTER, _CALIBRATE = "filter", "calibrate"
_SHOWN_SIGNALS = [
    field.name for field in schemas.MASK_FIELDS if field.name not in ("counts", "mask_box_xyxy")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A commit as a step in an annotation's life; all that is needed to know how it came about."""

    commit_id: str
    time: str
    author: str
    operation: str
    message: str
    config: Mapping[str, Any]  # Any: JSON
    teacher: Mapping[str, Any] | None  # Any: JSON
    code: Mapping[str, str]

    @staticmethod
    def of(writer: tuple[str, Commit]) -> Step:
        """The step that a commit is."""
        commit_id, commit = writer
        made = commit.operation
        return Step(
            commit_id=commit_id, time=commit.time, author=commit.author, operation=made.name,
            message=commit.message, config=made.config, teacher=made.teacher, code=made.code,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBlame:
    """One layer's row of the annotation.

    Attributes:
        layer, status, reason: as the layer says.
        signals: what was measured, without nulls; empty unless the status is `ok`.
        drawn: the commit that made this very row.
        carried: later commits that wrote the cell again and carried the row over, newest first.
    """

    layer: str
    status: str
    reason: str | None
    signals: Mapping[str, float]
    drawn: Step
    carried: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBlame:
    """The expected IoU of the annotation's masks.

    Attributes:
        confidence, layer, candidate: as CONFIDENCE_SCHEMA says; `layer` is its `teacher`.
        outputs: output -> its expected IoU, without nulls.
        calibrator: object id of what computed it; "" if the cell names none.
        given: the `calibrate` commit that is in force for it.
    """

    confidence: float | None
    layer: str | None
    candidate: int
    outputs: Mapping[str, float]
    calibrator: str
    given: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictBlame:
    """The annotation's verdict.

    Attributes:
        keep, reason, layer, candidate, weight: as VERDICTS_SCHEMA says; `layer` is its `teacher`.
        given: the commit whose policy is in force for it.
        since: the oldest commit from which on the verdict is this one.
    """

    keep: bool
    reason: str | None
    layer: str | None
    candidate: int
    weight: float | None
    given: Step
    since: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """An annotation and everything that made it what it is.

    Attributes:
        commit_id: the commit that was asked.
        image: its row of `image_index`: image_id, file_name, height, width, quarantine ...
        box: its row of `boxes`.
        brought: the commit that brought the box in.
        confidence, verdict: None if its shard has no such layer.
    """

    commit_id: str
    shard: str
    row: int
    annotation_id: str
    image: Mapping[str, Any]  # Any: JSON
    box: Mapping[str, Any]  # Any: JSON
    brought: Step
    masks: tuple[MaskBlame, ...]
    confidence: ConfidenceBlame | None
    verdict: VerdictBlame | None


def blame(dataset: Dataset, annotation: str, *, ref: str = "") -> Blame:
    """Traces an annotation.

    Args:
        dataset: the commit to ask.
        annotation: as `find_annotation` takes it.
        ref: the branch the commit is the head of, whose log lets history be read faster.

    Raises:
        InputError: `annotation` means none or several, or its image was taken down.
        ObjectMissingError, ObjectDamagedError: an object on the way back cannot be read.
    """
    found = find_annotation(dataset, annotation)
    is_head = ref and Refs(dataset.store).branches().get(ref) == dataset.commit_id
    reader = CommitReader(dataset.store, branches=[ref] if is_head else [])
    tracer = RowTracer(reader, found.annotation_id)
    box = _row(dataset, found, schemas.BOXES)
    layers = [
        layer for layer in dataset.manifest.layers()
        if layer.startswith(_MASKS) and dataset.manifest.get(found.shard, layer)
    ]  # fmt: skip
    scored = dataset.manifest.get(found.shard, schemas.CONFIDENCE)
    judged = dataset.manifest.get(found.shard, schemas.VERDICTS)
    return Blame(
        commit_id=dataset.commit_id, shard=found.shard, row=found.row,
        annotation_id=found.annotation_id, box=box, image=_image(dataset, found, box),
        brought=Step.of(tracer.trail(dataset.commit_id, found.shard, schemas.BOXES).origin),
        masks=tuple(_mask(dataset, tracer, found, layer) for layer in layers),
        confidence=_confidence(dataset, tracer, found, scored) if scored else None,
        verdict=_verdict(dataset, tracer, found) if judged else None,
    )  # fmt: skip


def _mask(dataset: Dataset, tracer: RowTracer, found: Found, layer: str) -> MaskBlame:
    trail = tracer.trail(dataset.commit_id, found.shard, layer)
    row = _row(dataset, found, layer, ["status", "reason", *_SHOWN_SIGNALS])
    return MaskBlame(
        layer=layer, status=row["status"], reason=row["reason"],
        signals={name: row[name] for name in _SHOWN_SIGNALS if row[name] is not None},
        drawn=Step.of(trail.origin), carried=tuple(map(Step.of, trail.rewrites)),
    )  # fmt: skip


def _confidence(dataset: Dataset, tracer: RowTracer, found: Found, cell: Cell) -> ConfidenceBlame:
    trail = tracer.trail(dataset.commit_id, found.shard, cell.layer)
    row = _row(dataset, found, cell.layer)
    known = schemas.CONFIDENCE_SCHEMA.names
    return ConfidenceBlame(
        confidence=row["confidence"], layer=row["teacher"], candidate=row["candidate"],
        outputs={n: value for n, value in row.items() if n not in known and value is not None},
        calibrator=calibrator_of(cell), given=Step.of(_in_force(trail, _CALIBRATE)),
    )  # fmt: skip


def _verdict(dataset: Dataset, tracer: RowTracer, found: Found) -> VerdictBlame:
    trail = tracer.trail(dataset.commit_id, found.shard, schemas.VERDICTS)
    row = _row(dataset, found, schemas.VERDICTS, schemas.VERDICTS_SCHEMA.names)
    return VerdictBlame(
        keep=row["keep"], reason=row["reason"], layer=row["teacher"], candidate=row["candidate"],
        weight=row["weight"], given=Step.of(_in_force(trail, _FILTER)),
        since=Step.of(trail.origin),
    )  # fmt: skip


def _in_force(trail: Trail, operation: str) -> tuple[str, Commit]:
    """A takedown or a merge writes a row again as it is; the operation was what gave it."""
    made = (writer for writer in trail.writers if writer[1].operation.name == operation)
    return next(made, trail.origin)


def _image(dataset: Dataset, found: Found, box: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    columns = [
        "image_id",
        "file_name",
        "height",
        "width",
        "source",
        "source_image_id",
        "quarantine",
    ]
    table = dataset.table(found.shard, schemas.IMAGE_INDEX, columns=columns)
    row: dict[str, Any] = table.slice(box["image_row"], 1).to_pylist()[0]
    return row


def _row(
    dataset: Dataset, found: Found, layer: str, columns: list[str] | None = None
) -> dict[str, Any]:  # Any: one value of each column
    table = dataset.table(found.shard, layer, columns=columns)
    row: dict[str, Any] = table.slice(found.row, 1).to_pylist()[0]
    return row
