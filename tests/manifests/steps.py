"""The steps of a real dataset made by hand: ingest, label, filter and more boxes, on any branch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import schemas
from manifests.cells import read_table, write_cell
from manifests.dataset import Dataset, init, operation
from manifests.digest import content_id
from manifests.ledger import Ledger
from manifests.manifest import Cell, Manifest
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.writer import Draft, Writer
from tests.manifests.computed_cells import computed_cell, confidence_table, shares
from tests.manifests.conftest import DatasetBuilder, filled_box, mask_row

SIZE_HW = (12, 20)
BOX = (2.0, 2.0, 12.0, 9.0)
Row = dict[str, Any]


class Steps:
    """One store with a chain of commits; every step but `ingest` returns its commit id."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.first = init(self.store)
        self._builder = DatasetBuilder(self.store)

    def dataset(self, ref: str = "main") -> Dataset:
        return Dataset.open(self.store, ref)

    def ids(self, ref: str = "main") -> list[str]:
        """Annotation ids, in the order of shards and rows."""
        dataset = self.dataset(ref)
        return [
            annotation_id
            for shard in dataset.manifest.shards()
            for annotation_id in dataset.table(shard, "boxes")["annotation_id"].to_pylist()
        ]

    def commit(
        self, manifest: Manifest, name: str, *, branch: str = "main",
        config: Mapping[str, Any] | None = None, teacher: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        return Writer(self.store, branch).commit(
            manifest,
            operation=operation(name, version=1, config=config or {}, teacher=teacher),
            ledger=Ledger(),
            message=f"{name} on {branch}",
        )

    def ingest(
        self, images: Mapping[str, Collection[str]], *, source: str = "shop",
        human: Collection[str] = (), branch: str = "main",
    ) -> str:  # fmt: skip
        """A shard of images with boxes of these categories; returns its id.

        Categories in `human` get human masks; if it is empty, there is no such layer.
        """
        builder = self._builder
        num_cells = len(builder.cells)
        for file_name, categories in images.items():
            builder.image(file_name, source=source)
            for category in categories:
                mask = filled_box(BOX, SIZE_HW) if category in human else None
                layers = {schemas.MASKS_HUMAN: mask_row(mask, SIZE_HW)} if human else {}
                builder.box(category, BOX, teacher=None, layers=layers, source=source)
        shard = builder.shard(verdicts=False)
        cells = self._linked(builder.cells[num_cells:])
        manifest = Writer(self.store, branch).dataset.manifest.with_cells(cells)
        self.commit(manifest, "ingest", branch=branch, config={"source": {"name": source}})
        return shard

    def label(
        self, teacher: str, *, weights: int = 0, branch: str = "main",
        shards: Collection[str] | None = None, fails: bool = False,
    ) -> str:  # fmt: skip
        """Draws what is pending or new, and all of it with other weights than before."""
        dataset = Writer(self.store, branch).dataset
        layer, made = schemas.masks_layer(teacher), []
        x0, y0, x1, y1 = BOX
        mask = filled_box((x0, y0, x1 - weights, y1), SIZE_HW)
        drawn = mask_row(None if fails else mask, SIZE_HW, predicted_iou=0.5 + weights / 100)
        drawn |= {"status": schemas.FAILED, "reason": "teacher_error"} if fails else {}
        for shard in dataset.manifest.shards() if shards is None else shards:
            boxes, known = dataset.cell(shard, "boxes"), dataset.manifest.get(shard, layer)
            rows = [drawn] * boxes.num_rows
            if known and not weights:
                before = dataset.table(shard, layer).to_pylist()
                rows = [drawn if row["status"] == schemas.PENDING else row for row in before]
            made.append(self._cell(shard, layer, rows, schemas.MASKS_SCHEMA, (boxes.object_id,)))
        identity = {"name": teacher, "version": 1, "config": {"size": 1024},
                    "weights_sha256": f"{weights:064x}"}  # fmt: skip
        return self.commit(
            dataset.manifest.with_cells(made), "label", branch=branch, teacher=identity,
            config={"teacher": teacher, "teacher_config": {}},
        )  # fmt: skip

    def agree(self, *teachers: str, branch: str = "main") -> str:
        """An IoU of 0.5 wherever two of these teachers have a mask."""
        dataset, made = Writer(self.store, branch).dataset, []
        for shard in dataset.manifest.shards():
            drawn = self._drawn(dataset, shard, teachers)
            columns = {
                schemas.pair_name(a, b): [
                    0.5 if x and y else None for x, y in zip(drawn[a], drawn[b], strict=True)
                ]
                for a, b in combinations(sorted(drawn), 2)
            }
            if columns:
                table = pa.table(shares(columns))
                made.append(computed_cell(dataset, shard, schemas.AGREEMENT, table))
        manifest = dataset.manifest.with_cells(made)
        return self.commit(manifest, "agree", branch=branch, config={"teachers": list(teachers)})

    def calibrate(
        self, *teachers: str, calibrator: bytes = b"calibrator", branch: str = "main",
        config: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Falling from teacher to teacher, and another for every calibrator; gold is attached."""
        writer, made = Writer(self.store, branch), []
        calibrator_id = self.store.put_bytes(calibrator).object_id
        best = 0.9 - sum(calibrator) % 97 / 1000
        for shard in writer.dataset.manifest.shards():
            drawn = self._drawn(writer.dataset, shard, teachers)
            values = {
                name: [best - n / 10 if there else None for there in drawn[name]]
                for n, name in enumerate(teachers)
                if name in drawn
            }
            table = confidence_table(values)
            made.append(
                computed_cell(writer.dataset, shard, schemas.CONFIDENCE, table, calibrator_id)
            )
        gold = self.store.put_bytes(b"gold of " + calibrator).object_id
        draft = Draft.on(
            writer.dataset, writer.dataset.manifest.with_cells(made), ledger=Ledger(),
            operation=operation("calibrate", version=1, config=config or {"prior": False}),
            message=f"calibrate on {branch}", attached={"calibrator": calibrator_id, "gold": gold},
        )  # fmt: skip
        return writer.publish(draft)

    def _drawn(
        self, dataset: Dataset, shard: str, teachers: Collection[str]
    ) -> dict[str, list[bool]]:
        """Teacher -> whether each row has a mask, of those that the shard knows."""
        return {
            name: [status == schemas.OK for status in table["status"].to_pylist()]
            for name in teachers
            if dataset.manifest.get(shard, schemas.masks_layer(name))
            for table in [dataset.table(shard, schemas.masks_layer(name), columns=["status"])]
        }

    def filter(
        self, policy: str, *teachers: str, keep: bool = True, branch: str = "main",
        by_confidence: bool = False, quality: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """The first teacher's mask for every row, kept or dropped as `policy`."""
        dataset, made = Writer(self.store, branch).dataset, []
        layers = list(map(schemas.masks_layer, teachers))
        verdict = {"keep": keep, "reason": None if keep else policy, "teacher": layers[0],
                   "candidate": 0}  # fmt: skip
        for shard in dataset.manifest.shards():
            boxes = dataset.cell(shard, "boxes")
            wanted = [*layers, schemas.CONFIDENCE] if by_confidence else layers
            found = [dataset.manifest.get(shard, layer) for layer in wanted]
            inputs = (boxes.object_id, *(cell.object_id for cell in found if cell))
            rows = [verdict] * boxes.num_rows
            made.append(self._cell(shard, "verdicts", rows, schemas.VERDICTS_SCHEMA, inputs))
        config = {"name": policy, "teachers": list(teachers), "rules": {"min_area_px": 4.0}}
        draft = Draft.on(
            dataset, dataset.manifest.with_cells(made), ledger=Ledger(), quality=quality,
            operation=operation("filter", version=1, config=config), message=f"filter on {branch}",
        )  # fmt: skip
        return Writer(self.store, branch).publish(draft)

    def more_boxes(self, shard: str, category: str, *, branch: str = "main") -> str:
        """As an ingest does that finds another box for the shard's first image.

        The box comes behind the image's other rows; masks are realigned, verdicts taken out.
        """
        dataset = Writer(self.store, branch).dataset
        boxes = dataset.table(shard, "boxes").to_pylist()
        place = sum(row["image_row"] == 0 for row in boxes)
        added = boxes[0] | {
            "annotation_id": content_id(boxes[0]["image_id"], "again", category),
            "category": category, "source": "again", "source_annotation_id": "1",
        }  # fmt: skip
        boxes.insert(place, added)
        index = dataset.cell(shard, "image_index")
        made = [self._cell(shard, "boxes", boxes, schemas.BOXES_SCHEMA, (index.object_id,))]
        for cell in dataset.manifest.of_shard(shard):
            if cell.layer.startswith("masks/"):
                status = "absent" if cell.layer == schemas.MASKS_HUMAN else "pending"
                rows = dataset.table(shard, cell.layer).to_pylist()
                rows.insert(place, mask_row(None, SIZE_HW, status=status))
                inputs = (made[0].object_id,)
                made.append(self._cell(shard, cell.layer, rows, schemas.MASKS_SCHEMA, inputs))
        manifest = dataset.manifest.without(shard, "verdicts").with_cells(made)
        return self.commit(manifest, "ingest", branch=branch, config={"source": {"name": "again"}})

    def _cell(
        self, shard: str, layer: str, rows: list[Row], schema: pa.Schema, inputs: tuple[str, ...]
    ) -> Cell:
        table = pa.Table.from_pylist(rows, schema=schema)
        return write_cell(self.store, table, shard=shard, layer=layer, inputs=inputs,
                          statistics=cell_statistics(layer, table))  # fmt: skip

    def _linked(self, cells: Collection[Cell]) -> list[Cell]:
        """With the inputs and statistics that an ingest gives."""
        by_layer = {cell.layer: cell for cell in cells}
        inputs = {"image_index": "images", "boxes": "image_index", "masks/human": "boxes"}
        found = []
        for cell in cells:
            if cell.layer != schemas.IMAGES:
                table = read_table(self.store, cell.object_id)
                source = by_layer[inputs[cell.layer]].object_id
                statistics = cell_statistics(cell.layer, table)
                cell = replace(cell, inputs=(source,), statistics=statistics)
            found.append(cell)
        return found


def area_px(weights: int) -> int:
    """Pixels of the mask that `Steps.label` draws with these weights."""
    x0, y0, x1, y1 = BOX
    return int(np.prod((x1 - weights - x0, y1 - y0)))
