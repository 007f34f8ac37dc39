"""A store of demo photos on which the steps of a dataset are committed one by one, by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from engine.confidence.calibrator import Calibrator, Curve
from engine.confidence.choice import NEVER, Choice
from engine.confidence.gold import GOLD_SCHEMA
from engine.confidence.outputs import Output
from engine.demo import build_demo_set
from engine.demo_boxes import ASTRONAUT, COFFEE, DEMO_IMAGES, DemoPhoto
from engine.policy import Policy
from manifests import rle, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, init, operation
from manifests.digest import content_id
from manifests.image_tar import ImageTarWriter
from manifests.ledger import LedgerCounter
from manifests.manifest import Cell
from manifests.parquet import table_to_parquet
from manifests.store import Store
from manifests.writer import Draft, Writer

SIGNALS = {"predicted_iou": 0.91, "stability": 0.97, "box_iou": 0.83}


def ellipse(box_xyxy: tuple[float, ...], size_hw: tuple[int, int]) -> bytes:
    """Counts of the ellipse that fills a box."""
    mask = Image.new("L", (size_hw[1], size_hw[0]))
    x1, y1, x2, y2 = box_xyxy
    ImageDraw.Draw(mask).ellipse((x1, y1, x2 - 1, y2 - 1), fill=1)
    return rle.encode(np.asarray(mask))


class Chain:
    """A store of demo photos on which steps are committed one by one."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder / "store"))
        init(self.store)
        self._photos = folder / "photos"
        build_demo_set(self._photos)
        self.shard = ""
        self.boxes: list[dict[str, Any]] = []

    def commit(self, name: str, cells: list[Cell], **more: Any) -> Dataset:
        """Adds cells in a commit of an operation."""
        writer = Writer(self.store, "main")
        config = more.pop("config", {})
        made = operation(name, version=1, config=config, teacher=more.pop("teacher", None))
        counter = LedgerCounter()
        counter.add_inputs(name, "cat", 3)
        counter.add_kept(name, "cat", 1)
        counter.add_dropped(name, "cat", reason="test_drop", count=1)
        counter.add_failed(name, "cat", reason="test_failure", count=1)
        manifest = writer.dataset.manifest.with_cells(cells)
        message = more.pop("message", f"a {name} step")
        ledger = counter.ledger()
        draft = Draft.on(
            writer.dataset, manifest, operation=made, ledger=ledger, message=message,
            even_if_unchanged=True, **more,
        )  # fmt: skip
        writer.publish(draft)
        return Dataset.open(self.store)

    def ingest(
        self,
        photos: tuple[DemoPhoto, ...] = (ASTRONAUT, COFFEE),
        *,
        quarantined: tuple[DemoPhoto, ...] = (),
        category: str | None = None,
        with_images: bool = True,
        **more: Any,
    ) -> Dataset:
        """Images, index and boxes."""
        images, data = [], []
        for row, photo in enumerate((*photos, *quarantined)):
            entry = next(image for image in DEMO_IMAGES if image.photo == photo)
            data.append((self._photos / "images" / entry.file_name).read_bytes())
            images.append(self._image(row, entry.file_name, photo, data[-1], more))
            images[-1]["quarantine"] = "blurry" if photo in quarantined else None
            self.boxes += [
                self._box(row, images[-1], category or box.category, box.box_xyxy)
                for box in entry.boxes
            ]
        cells = self._images(images, data)
        cells.append(self._cell(schemas.BOXES, self.boxes, schemas.BOXES_SCHEMA))
        wanted = cells if with_images else cells[2:]
        return self.commit(
            "ingest", wanted, rejects=self._rejects(), message=more.get("message", "")
        )

    def label(self, teacher: str = "sam", *, absent: tuple[int, ...] = (), **more: Any) -> Dataset:
        """Ellipses in a layer `masks/<teacher>`, none for the rows in `absent`."""
        rows = []
        for row, box in enumerate(self.boxes):
            entry = dict.fromkeys(schemas.MASKS_SCHEMA.names) | {"candidates": []}
            entry |= {"height": box["size_hw"][0], "width": box["size_hw"][1]}
            if row in absent:
                entry |= {"status": schemas.SKIPPED, "reason": "crowd"}
            else:
                counts = ellipse(box["box_xyxy"], box["size_hw"])
                other = dict.fromkeys(field.name for field in schemas.MASK_FIELDS)
                other |= {"counts": counts, "predicted_iou": 0.11}
                entry |= {"status": schemas.OK, "counts": counts, "candidates": [other], **SIGNALS}
            rows.append(entry)
        cell = self._cell(schemas.masks_layer(teacher), rows, schemas.MASKS_SCHEMA)
        identity = {"name": teacher, "weights_sha256": "ab" * 32, "config": {"size": 1024}}
        return self.commit("label", [cell], teacher=identity, **more)

    def filter(
        self,
        dropped: dict[int, str],
        *,
        teacher: str = "sam",
        candidate: int = 0,
        policy: Policy | None = None,
        quality: dict[str, Any] | None = None,
    ) -> Dataset:
        """Verdicts that keep every row but the dropped ones, each with its reason."""
        rows = [
            {"keep": row not in dropped, "reason": dropped.get(row), "teacher": teacher,
             "candidate": candidate}
            for row in range(len(self.boxes))
        ]  # fmt: skip
        policy = policy or Policy(
            name="strict", teachers=("sam",), rules={"min_box_iou": 0.625}
        )  # fmt: skip
        cell = self._cell(schemas.VERDICTS, rows, schemas.VERDICTS_SCHEMA)
        return self.commit("filter", [cell], config=asdict(policy), quality=quality)

    def agree(self, iou: list[float], pair: tuple[str, str] = ("grabcut", "sam")) -> Dataset:
        """The IoU of two teachers' own choices, row by row."""
        table = pa.table({schemas.pair_name(*pair): pa.array(iou, pa.float32())})
        cell = write_cell(self.store, table, shard=self.shard, layer=schemas.AGREEMENT)
        return self.commit("agree", [cell])

    def calibrate(
        self,
        confidence: dict[str, list[float | None]],
        *,
        gold: pa.Table | None = None,
        figures: dict[str, Any] | None = None,
    ) -> Dataset:
        """A layer `confidence` that takes the first of the outputs; without gold from a prior."""
        gold_id = None
        if gold is not None:
            gold_id = self.store.put_bytes(table_to_parquet(gold)).object_id
        first = Output.of(next(iter(confidence)))
        curve = Curve(x=np.zeros(1, np.float32), y=np.zeros(1, np.float32))
        calibrator = Calibrator(
            heads={}, choice=Choice(base=first, margin=NEVER), chosen=curve, certify_share=0.5,
            figures=figures or {}, gold=gold_id, origin="fitted by hand",
        )  # fmt: skip
        calibrator_id = self.store.put_bytes(calibrator.to_bytes()).object_id
        best = confidence[first.name]
        columns: dict[str, pa.Array] = {
            "confidence": pa.array(best, pa.float32()),
            "teacher": pa.array([schemas.masks_layer(first.teacher)] * len(best)),
            "candidate": pa.array([first.candidate] * len(best), pa.int16()),
            **{name: pa.array(values, pa.float32()) for name, values in confidence.items()},
        }
        cell = write_cell(
            self.store, pa.table(columns), shard=self.shard, layer=schemas.CONFIDENCE,
            inputs=(calibrator_id,),
        )  # fmt: skip
        attached = {"calibrator": calibrator_id} | ({"gold": gold_id} if gold_id else {})
        return self.commit("calibrate", [cell], attached=attached)

    def gold(self, rows: list[tuple[int, str, float, float]]) -> pa.Table:
        """GOLD_SCHEMA: row of boxes, role, IoU and confidence of sam's own choice."""
        entries = [
            {
                "shard": self.shard, "row": row, "role": role, "teacher": "sam", "candidate": 0,
                "iou": iou, "confidence": confidence, "chosen": True,
                **{
                    name: self.boxes[row][name]
                    for name in ("image_id", "annotation_id", "source", "category")
                },
            }
            for row, role, iou, confidence in rows
        ]  # fmt: skip
        return pa.Table.from_pylist(entries, schema=GOLD_SCHEMA)

    def _image(
        self, row: int, file_name: str, photo: DemoPhoto, data: bytes, more: dict[str, Any]
    ) -> dict[str, Any]:
        origin = {"source": "demo", "source_image_id": str(row), "file_name": file_name}
        origin |= {name: more[name] for name in origin if name in more}
        measures = ("sharpness", "brightness", "dark_fraction", "bright_fraction")
        return {
            **dict.fromkeys(measures, 1.0),
            **{name: [] for name in ("transforms", "not_exhaustive", "negative")},
            **origin,
            "image_id": content_id(data),
            "height": photo.size_hw[0],
            "width": photo.size_hw[1],
            "format": "png",
            "origins": [origin],
        }

    def _box(
        self, row: int, image: dict[str, Any], category: str, box_xyxy: tuple[float, ...]
    ) -> dict[str, Any]:
        image_id = image["image_id"]
        entry = dict.fromkeys(schemas.BOXES_SCHEMA.names) | {
            "annotation_id": content_id(image_id, str(len(self.boxes)), category, str(box_xyxy)),
            "image_id": image_id,
            "image_row": row,
            "category": category,
            "box_xyxy": box_xyxy,
            "is_crowd": False,
            "is_group_of": False,
            "flags": [],
            "source": "demo",
        }
        return entry | {"size_hw": (image["height"], image["width"])}

    def _images(self, rows: list[dict[str, Any]], data: list[bytes]) -> list[Cell]:
        path = self._photos / "images.tar"
        with ImageTarWriter(path) as tar:
            for row, image in zip(rows, data, strict=True):
                row["offset"] = tar.add(image_id=row["image_id"], extension="png", data=image)
                row["size"] = len(image)
        stored = self.store.put_file(path)
        self.shard = stored.object_id
        images = Cell(
            shard=self.shard, layer=schemas.IMAGES, object_id=self.shard, num_rows=len(rows),
            num_bytes=stored.num_bytes,
        )  # fmt: skip
        return [images, self._cell(schemas.IMAGE_INDEX, rows, schemas.IMAGE_INDEX_SCHEMA)]

    def _cell(self, layer: str, rows: list[dict[str, Any]], schema: pa.Schema) -> Cell:
        table = pa.Table.from_pylist(rows, schema=schema)
        return write_cell(self.store, table, shard=self.shard, layer=layer)

    def _rejects(self) -> str:
        row = dict.fromkeys(schemas.REJECTS_SCHEMA.names) | {
            "layer": "images", "outcome": "failed", "reason": "undecodable", "source": "demo",
            "file_name": "broken.jpg", "detail": "the file ends early",
        }  # fmt: skip
        table = pa.Table.from_pylist([row], schema=schemas.REJECTS_SCHEMA)
        return self.store.put_bytes(table_to_parquet(table)).object_id
