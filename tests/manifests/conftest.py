"""Small datasets, built with the manifests API alone: images, boxes, masks and verdicts by hand."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests import boxes as box_math
from manifests import rle, schemas
from manifests.cells import write_cell
from manifests.commit import Category, Commit
from manifests.dataset import Dataset, init, operation
from manifests.digest import content_id
from manifests.image_tar import ImageTarWriter
from manifests.manifest import Cell, Manifest
from manifests.store import Store

_EXTENSIONS = {"jpeg": "jpg", "png": "png"}
_TIME = "2026-11-23T20:00:00Z"


def mask_row(mask: np.ndarray | None, size_hw: tuple[int, int], **more: Any) -> dict[str, Any]:
    """A row of MASKS_SCHEMA with one mask, or without."""
    row: dict[str, Any] = dict.fromkeys(schemas.MASKS_SCHEMA.names)
    row |= {"height": size_hw[0], "width": size_hw[1], "candidates": []}
    if mask is None:
        return row | {"status": schemas.ABSENT} | more
    counts = rle.encode(mask)
    flat = {"counts": counts, "area_px": int(mask.sum()), "predicted_iou": 0.875}
    flat["mask_box_xyxy"] = rle.box_xyxy(counts, size_hw=size_hw).tolist()
    return row | {"status": schemas.OK} | flat | more


class DatasetBuilder:
    """Images, then their boxes, shard by shard; `commit` makes a Dataset of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cells: list[Cell] = []
        self._clear()

    def _clear(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.data: list[bytes] = []
        self.boxes: list[dict[str, Any]] = []
        self.verdicts: list[dict[str, Any]] = []
        self.masks: dict[str, list[dict[str, Any]]] = {}

    def image(
        self,
        file_name: str,
        *,
        size_hw: tuple[int, int] = (12, 20),
        source: str = "shop",
        source_image_id: str = "1",
        image_format: str = "jpeg",
        **more: Any,
    ) -> str:
        """Adds an image of noise and returns its id."""
        seed = len(self.cells) * 1000 + len(self.images)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, image_format)
        self.data.append(file.getvalue())
        origin = {"source": source, "source_image_id": source_image_id, "file_name": file_name}
        row = {
            **dict.fromkeys(("sharpness", "brightness", "dark_fraction", "bright_fraction"), 0.5),
            "image_id": content_id(self.data[-1]),
            "height": size_hw[0],
            "width": size_hw[1],
            "format": image_format,
            "origins": [origin],
            "transforms": [],
            "quarantine": None,
            "not_exhaustive": [],
            "negative": [],
        }
        self.images.append(row | origin | more)
        return str(self.images[-1]["image_id"])

    def box(
        self,
        category: str,
        box_xyxy: tuple[float, float, float, float],
        *,
        mask: np.ndarray | None = None,
        teacher: str | None = "mobile_sam",
        keep: bool = True,
        candidate: int = 0,
        reason: str | None = None,
        layers: dict[str, dict[str, Any]] | None = None,
        **more: Any,
    ) -> str:
        """Adds a box to the newest image, with a filled-box mask of `teacher` unless one is given.

        `layers` are ready rows for masks layers, by name; layers without a row get an absent one.
        """
        image = self.images[-1]
        size_hw = image["height"], image["width"]
        row = {
            "annotation_id": content_id(image["image_id"], str(len(self.boxes)), category),
            "image_id": image["image_id"],
            "image_row": len(self.images) - 1,
            "category": category,
            "box_xyxy": list(box_xyxy),
            "is_crowd": False,
            "is_group_of": False,
            "flags": [],
            "score": None,
            "source": image["source"],
            "source_annotation_id": str(len(self.boxes) + 1),
        }
        self.boxes.append(row | more)
        rows = dict(layers or {})
        if teacher and schemas.masks_layer(teacher) not in rows:
            shown = filled_box(box_xyxy, size_hw) if mask is None else mask
            rows[schemas.masks_layer(teacher)] = mask_row(shown, size_hw)
        for layer in {*self.masks, *rows}:
            column = self.masks.setdefault(layer, [])
            column += [mask_row(None, size_hw)] * (len(self.boxes) - 1 - len(column))
            column.append(rows.get(layer, mask_row(None, size_hw)))
        layer = schemas.masks_layer(teacher) if teacher else None
        verdict = {"keep": keep, "reason": reason, "teacher": layer, "candidate": candidate}
        self.verdicts.append(verdict)
        return str(self.boxes[-1]["annotation_id"])

    def shard(self, *, verdicts: bool = True, boxes: bool = True) -> str:
        """Stores what was added as one shard and returns its id."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.tar"
            with ImageTarWriter(path) as tar:
                for row, data in zip(self.images, self.data, strict=True):
                    extension = _EXTENSIONS[row["format"]]
                    row["offset"] = tar.add(
                        image_id=row["image_id"], extension=extension, data=data
                    )
                    row["size"] = len(data)
            stored = self.store.put_file(path)
        shard = stored.object_id
        images = Cell(
            shard=shard,
            layer=schemas.IMAGES,
            object_id=shard,
            num_rows=len(self.images),
            num_bytes=stored.num_bytes,
        )
        self.cells.append(images)
        self._cell(shard, schemas.IMAGE_INDEX, self.images, schemas.IMAGE_INDEX_SCHEMA)
        if boxes:
            self._cell(shard, schemas.BOXES, self.boxes, schemas.BOXES_SCHEMA)
            for layer, rows in self.masks.items():
                self._cell(shard, layer, rows, schemas.MASKS_SCHEMA)
        if boxes and verdicts:
            self._cell(shard, schemas.VERDICTS, self.verdicts, schemas.VERDICTS_SCHEMA)
        self._clear()
        return shard

    def _cell(self, shard: str, layer: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        table = pa.Table.from_pylist(rows, schema=schema)
        self.cells.append(write_cell(self.store, table, shard=shard, layer=layer))

    def commit(self, categories: tuple[Category, ...] = ()) -> Dataset:
        """A Dataset of the shards so far."""
        commit = Commit(
            parents=(),
            manifest=Manifest(self.cells).save(self.store),
            author="test",
            message="built by hand",
            time=_TIME,
            operation=operation("test", version=1, config={}),
            categories=categories,
        )
        return Dataset(self.store, commit.save(self.store))


def filled_box(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> np.ndarray:
    """[H, W] mask of the pixels inside a box."""
    clipped = box_math.clip(np.array([box_xyxy], np.float32), size_hw=size_hw)[0].astype(int)
    x0, y0, x1, y1 = clipped
    mask = np.zeros(size_hw, dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


@pytest.fixture
def store(store_url: str) -> Store:
    """An empty store on each protocol in turn."""
    made = Store(store_url)
    init(made)
    return made


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """An empty store on a disk."""
    made = Store(str(tmp_path / "store"))
    init(made)
    return made


@pytest.fixture
def builder(tmp_path: Path) -> DatasetBuilder:
    """An empty builder on a store of its own."""
    store = Store(str(tmp_path / "store"))
    init(store)
    return DatasetBuilder(store)
