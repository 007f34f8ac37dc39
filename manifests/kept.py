"""What a commit has to show, shard by shard: boxes joined by position with their chosen masks.

A row's mask is the one its verdict names, or a single layer's own choice. Crowds and group-of boxes
are never prompted, so they come through whatever the verdict says, with a human mask or with none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError, RefError
from manifests.kept_confidence import gather_confidence
from manifests.kept_masks import KEPT_MASK_FIELDS, Choice, aligned_table, gather_masks
from manifests.schemas import (
    ABSENT,
    BOXES,
    BOXES_SCHEMA,
    CONFIDENCE_SCHEMA,
    IMAGE_INDEX,
    IMAGE_INDEX_SCHEMA,
    MASKS_HUMAN,
    OK,
    VERDICTS,
    VERDICTS_SCHEMA,
    masks_layer,
)

IMAGE_QUARANTINED = "image_quarantined"
UNEXPLAINED = "unexplained"
_LAYER_PREFIX = masks_layer("")

KEPT_IMAGES_SCHEMA = IMAGE_INDEX_SCHEMA.append(
    # The row in the shard's `image_index`, which annotations refer to.
    pa.field("image_row", pa.int32(), nullable=False)
)

KEPT_SCHEMA = pa.schema(
    [
        # The columns of `boxes`, whose score must not be mistaken for the mask's.
        *(
            entry.with_name("box_score") if entry.name == "score" else entry
            for entry in BOXES_SCHEMA
        ),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # Whose mask it is ("human" for the humans'); null: a crowd or group-of box without one.
        pa.field("teacher", pa.string()),
        *KEPT_MASK_FIELDS,
        # Expected IoU of that very mask, and what the verdict says that it counts for in training;
        # null where nobody said.
        CONFIDENCE_SCHEMA.field("confidence"),
        VERDICTS_SCHEMA.field("weight"),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOptions:
    """Which rows and whose masks.

    Attributes:
        layer: a `masks/<teacher>` whose own choices to take without verdicts, or `boxes`: every
            box, without masks; None: verdicts.
        include_quarantined: also images that the ingest policy keeps away from teachers.
        boxes_only_crowds: also crowd and group-of boxes, which as a rule have no mask.
    """

    layer: str | None = None
    include_quarantined: bool = False
    boxes_only_crowds: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptShard:
    """One shard's share: `skipped` says by reason what became of every other row of `boxes`.

    Attributes:
        images: KEPT_IMAGES_SCHEMA, in the order of `image_index`.
        annotations: KEPT_SCHEMA, in the order of `boxes`.
    """

    shard: str
    images: pa.Table
    annotations: pa.Table
    skipped: Mapping[str, int]


def kept_images(dataset: Dataset, shard: str, *, include_quarantined: bool = False) -> pa.Table:
    """A shard's images with KEPT_IMAGES_SCHEMA, quarantined ones only if asked for."""
    index = dataset.table(shard, IMAGE_INDEX)
    rows = pa.array(np.arange(index.num_rows, dtype=np.int32))
    images = pa.table([*index.columns, rows], schema=KEPT_IMAGES_SCHEMA)
    return images if include_quarantined else images.filter(pc.is_null(images["quarantine"]))


def kept_shards(dataset: Dataset, options: KeptOptions) -> Iterator[KeptShard]:
    """The shards in the order of ingest, each read when it is asked for.

    Raises:
        RefError: the commit, or a shard of it, lacks the verdicts or the layer.
        ObjectDamagedError: layers of a shard contradict each other.
    """
    check_layer(dataset, options.layer)
    for shard in dataset.manifest.shards():
        yield _kept_shard(dataset, shard, options)


def check_layer(dataset: Dataset, layer: str | None) -> None:
    """Looks, in the manifest alone, whether every shard has what masks are to be chosen by.

    Raises:
        RefError: none has, or some have not; the message says what to run.
    """
    wanted = layer or VERDICTS
    boxes = [cell for cell in dataset.manifest.of_layer(BOXES) if cell.num_rows]
    have = {cell.shard for cell in dataset.manifest.of_layer(wanted)}
    lacking = [cell.shard for cell in boxes if cell.shard not in have]
    here = f"commit {dataset.commit_id[:12]}"
    if boxes and not have:
        names = [name for name in dataset.manifest.layers() if name.startswith("masks/")]
        raise RefError(
            f"{here} has no layer '{wanted}'; run 'maskmill filter' first, or export a layer of "
            f"masks without verdicts: {', '.join(names) or 'there is none yet'}"
        )
    if lacking and wanted != MASKS_HUMAN:  # many a source has no human masks
        step = "label" if layer else "filter"
        raise RefError(
            f"{here} has no '{wanted}' for {len(lacking)} of {len(boxes)} shards, the first is "
            f"{lacking[0][:12]}; run 'maskmill {step}', then export its commit"
        )


def _kept_shard(dataset: Dataset, shard: str, options: KeptOptions) -> KeptShard:
    images = kept_images(dataset, shard, include_quarantined=options.include_quarantined)
    cell = dataset.manifest.get(shard, BOXES)
    if cell is None or not cell.num_rows:
        nothing = KEPT_SCHEMA.empty_table()
        return KeptShard(shard=shard, images=images, annotations=nothing, skipped={})
    boxes = dataset.table(shard, BOXES)
    choice = choose(dataset, shard, boxes, options)
    on_image = _is_in(boxes["image_row"], images["image_row"])
    wanted = choice.wanted & on_image
    reasons = np.where(on_image, choice.reasons, IMAGE_QUARANTINED)[~wanted]
    rows = np.flatnonzero(wanted)
    return KeptShard(
        shard=shard,
        images=images,
        annotations=_join(dataset, shard, boxes, choice, rows),
        skipped=dict(sorted(Counter(reasons.tolist()).items())),
    )


def choose(dataset: Dataset, shard: str, boxes: pa.Table, options: KeptOptions) -> Choice:
    """Whose mask each of a shard's boxes has, without reading masks.

    Args:
        boxes: the shard's `boxes`; of its columns `is_crowd` and `is_group_of` are needed, if
            crowds are asked for.
        options: of it `layer` and `boxes_only_crowds`.

    Raises:
        RefError, ObjectDamagedError: as `kept_shards`.
    """
    if options.layer == BOXES:
        return _choose_every_box(boxes.num_rows)
    choice = (
        _choose_by_layer(dataset, shard, boxes, options.layer)
        if options.layer
        else _choose_by_verdicts(dataset, shard, boxes)
    )
    crowds = _as_numpy(pc.or_(boxes["is_crowd"], boxes["is_group_of"]))
    if not options.boxes_only_crowds or not crowds.any():
        return choice
    bare = crowds & ~choice.wanted
    humans = bare & (_statuses(dataset, shard, MASKS_HUMAN, boxes.num_rows) == OK)
    layers = choice.layers.copy()
    layers[bare], layers[humans] = None, MASKS_HUMAN
    weights = choice.weights
    return Choice(
        wanted=choice.wanted | crowds,
        layers=layers,
        candidates=np.where(bare, 0, choice.candidates),
        reasons=choice.reasons,
        weights=None if weights is None else np.where(bare, np.float32(np.nan), weights),
    )


def _choose_every_box(num_rows: int) -> Choice:
    nothing = np.full(num_rows, None, dtype=object)
    return Choice(
        wanted=np.ones(num_rows, dtype=bool),
        layers=nothing,
        candidates=np.zeros(num_rows, dtype=np.int64),
        reasons=nothing,
    )


def _choose_by_layer(dataset: Dataset, shard: str, boxes: pa.Table, layer: str) -> Choice:
    statuses = _statuses(dataset, shard, layer, boxes.num_rows)
    return Choice(
        wanted=statuses == OK,
        layers=np.full(boxes.num_rows, layer, dtype=object),
        candidates=np.zeros(boxes.num_rows, dtype=np.int64),
        reasons=statuses,
    )


def _statuses(dataset: Dataset, shard: str, layer: str, num_rows: int) -> NDArray[np.object_]:
    """[N] status, or the reason where one is given; a shard without human masks is all absent."""
    if dataset.manifest.get(shard, layer) is None:
        return np.full(num_rows, ABSENT, dtype=object)
    table = aligned_table(dataset, shard, layer, num_rows, columns=["status", "reason"])
    is_ok = pc.equal(table["status"], OK)
    shown = pc.if_else(is_ok, OK, pc.coalesce(table["reason"], table["status"]))
    return _as_numpy(shown)


def _choose_by_verdicts(dataset: Dataset, shard: str, boxes: pa.Table) -> Choice:
    columns = VERDICTS_SCHEMA.names
    verdicts = aligned_table(dataset, shard, VERDICTS, boxes.num_rows, columns=columns)
    wanted = _as_numpy(verdicts["keep"])
    layers = _as_numpy(verdicts["teacher"])
    if (wanted & (layers == None)).any():  # noqa: E711  elementwise
        raise ObjectDamagedError(
            f"verdicts of shard {shard[:12]} keep a row without naming a teacher; "
            "run 'maskmill filter' again"
        )
    return Choice(
        wanted=wanted,
        layers=layers,
        candidates=_as_numpy(verdicts["candidate"]).astype(np.int64),
        reasons=_as_numpy(pc.coalesce(verdicts["reason"], UNEXPLAINED)),
        weights=_as_numpy(verdicts["weight"]).astype(np.float32),
    )


def _join(
    dataset: Dataset, shard: str, boxes: pa.Table, choice: Choice, rows: NDArray[np.int64]
) -> pa.Table:
    boxes_kept = boxes.take(pa.array(rows))
    sizes = dataset.table(shard, IMAGE_INDEX, columns=["height", "width"]).take(
        boxes_kept["image_row"]
    )
    masks = gather_masks(dataset, shard, choice, rows, num_rows=boxes.num_rows)
    columns: dict[str, Any] = {  # Any: Arrow arrays have no types
        name: boxes_kept["score" if name == "box_score" else name]
        for name in KEPT_SCHEMA.names[:11]
    }
    columns |= {"height": sizes["height"], "width": sizes["width"]}
    teachers = [name and name.removeprefix(_LAYER_PREFIX) for name in choice.layers[rows]]
    columns["teacher"] = pa.array(teachers, pa.string())
    columns |= {name: masks[name] for name in masks.column_names}
    columns["confidence"] = gather_confidence(dataset, shard, choice, rows, num_rows=boxes.num_rows)
    weights = np.full(len(rows), np.nan) if choice.weights is None else choice.weights[rows]
    columns["weight"] = pa.array(weights, pa.float32(), mask=np.isnan(weights))
    return pa.table(columns, schema=KEPT_SCHEMA)


def _is_in(values: pa.ChunkedArray, wanted: pa.ChunkedArray) -> NDArray[np.bool_]:
    return _as_numpy(pc.is_in(values, value_set=wanted.combine_chunks()))


def _as_numpy(column: pa.ChunkedArray) -> NDArray[Any]:  # Any: the column's own type
    values: NDArray[Any] = np.asarray(column.to_numpy())
    return values
