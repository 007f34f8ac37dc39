"""Confidence that is the true IoU, written without a fit: for tests of what is made of it."""

from __future__ import annotations

import numpy as np

from engine.confidence.apply import confidence_table, scores_of
from engine.confidence.calibrator import Calibrator, Curve, Head
from engine.confidence.choice import Choice
from engine.confidence.gold import gold_table, read_gold
from engine.confidence.outputs import Floats, Output, read_outputs, teachers_of
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, operation
from manifests.ledger import Ledger
from manifests.parquet import table_to_parquet
from manifests.statistics import cell_statistics
from manifests.writer import Draft, Writer
from tests.engine.confidence.planted_masks import identity

FULL_AREA = 160
"""Pixels of a human mask of `planted_masks`."""
CHOICE = Choice(base=Output.of("a"), margin=0.1)


def head(teacher: str) -> Head:
    """One that nobody asks."""
    one = np.zeros(1, np.float32)
    return Head(
        teacher=identity(teacher), features=("predicted_iou",), mean=one, scale=one + 1,
        weights_in=np.zeros((1, 1, 1), np.float32), bias_in=one[None], weights_out=one[None],
        bias_out=one, curve=Curve(x=one, y=one),
    )  # fmt: skip


def knowing(
    dataset: Dataset, *, origin: str = "by hand", is_prior: bool = False, branch: str = "main"
) -> Dataset:
    """A commit with `confidence` of all teachers, a calibrator, and gold of half of the images."""
    store, teachers = dataset.store, teachers_of(dataset.manifest)
    attached = {}
    if not is_prior:
        gold = read_gold(dataset, dict.fromkeys(teachers, ("predicted_iou",)), certify_share=0.5)
        data = table_to_parquet(gold_table(CHOICE, gold, gold.iou).combine_chunks())
        attached["gold"] = store.put_bytes(data).object_id
    flat = np.array([0, 1], np.float32)
    calibrator = Calibrator(
        heads={name: head(name) for name in teachers}, choice=CHOICE,
        chosen=Curve(x=flat, y=flat), certify_share=0.5, gold=attached.get("gold"), origin=origin,
    )  # fmt: skip
    attached["calibrator"] = store.put_bytes(calibrator.to_bytes()).object_id
    layers = [schemas.BOXES, *map(schemas.masks_layer, teachers), schemas.AGREEMENT]
    cells = []
    for shard in dataset.manifest.shards():
        there = [dataset.manifest.get(shard, layer) for layer in layers]
        inputs = (*(cell.object_id for cell in there if cell), attached["calibrator"])
        outputs, values = true_ious(dataset, shard)
        names = dataset.table(shard, schemas.BOXES, columns=["category"])["category"]
        categories = names.combine_chunks().dictionary_encode()
        table = confidence_table(scores_of(calibrator, outputs, values, categories))
        cells.append(
            write_cell(
                store, table, shard=shard, layer=schemas.CONFIDENCE, inputs=inputs,
                statistics=cell_statistics(schemas.CONFIDENCE, table),
            )
        )  # fmt: skip
    draft = Draft.on(
        dataset, dataset.manifest.with_cells(cells),
        operation=operation("calibrate", version=1, config={}), ledger=Ledger(), message="by hand",
        attached=attached,
    )  # fmt: skip
    return Dataset(store, Writer(store, branch).publish(draft))


def true_ious(dataset: Dataset, shard: str) -> tuple[tuple[Output, ...], Floats]:
    """The outputs of a shard, and [N, O] their IoU with what a human draws; NaN without a mask."""
    teachers = teachers_of(dataset.manifest)
    size = dataset.cell(shard, schemas.BOXES).num_rows
    found = read_outputs(dataset, shard, teachers, ["area_px"], num_rows=size)
    outputs = tuple(sorted(found))
    columns = [found[output].numbers("area_px") / np.float32(FULL_AREA) for output in outputs]
    values = np.stack(columns, 1) if columns else np.zeros((size, 0), np.float32)
    return outputs, values


def calibrator_in(dataset: Dataset) -> Calibrator:
    """The calibrator that hangs on a commit."""
    assert dataset.commit.attached is not None
    return Calibrator.load(dataset.store, dataset.commit.attached["calibrator"])
