"""Photos of coloured rectangles, and a student that sees nothing but colours.

It finds every rectangle of a pure colour whose edges lie on multiples of 4 pixels exactly, one in
the left half of a photo and one in the right half.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import Dataset, init
from manifests.store import Store
from student.checkpoint import Student
from student.config_files import load_config
from student.data.decode import DEVIATION, MEAN
from student.records import Predictions, SegmenterOutput

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIZE_HW = (120, 160)
_SURE = 12.0
Rectangle = tuple[str, int, int, int, int]
"""Category, then x, y, width, height."""


def photo(rectangles: Sequence[Rectangle], seed: int) -> bytes:
    """A PNG; `seed` keeps photos apart that show the same."""
    grey = np.random.default_rng(seed).integers(90, 110, (*SIZE_HW, 1), dtype=np.uint8)
    pixels = np.repeat(grey, 3, axis=2)
    for colour, x, y, width, height in rectangles:
        pixels[y : y + height, x : x + width] = COLOURS.get(colour, (100, 100, 100))
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


class Album:
    """A COCO source under construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        names = [*COLOURS, "invisible"]
        self.document: dict[str, Any] = {
            "images": [], "annotations": [],
            "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
        }  # fmt: skip

    def add(
        self, *rectangles: Rectangle, masks: bool = True, crowds: int = 0, **fields: Any
    ) -> None:
        """A photo; without `masks` it has boxes alone. The last `crowds` ones are crowds."""
        number = len(self.document["images"]) + 1
        (self.folder / "images" / f"{number}.png").write_bytes(photo(rectangles, number))
        self.document["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": SIZE_HW[0],
             "width": SIZE_HW[1], **fields}
        )  # fmt: skip
        names = [entry["name"] for entry in self.document["categories"]]
        for place, (name, x, y, width, height) in enumerate(rectangles):
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation = {
                "id": len(self.document["annotations"]) + 1, "image_id": number,
                "category_id": names.index(name) + 1, "bbox": [x, y, width, height],
                "iscrowd": int(place >= len(rectangles) - crowds), "area": width * height,
            }  # fmt: skip
            if masks:
                annotation["segmentation"] = [corners]
            self.document["annotations"].append(annotation)

    def without_mask(self, annotation: int) -> None:
        """Takes one annotation's segmentation away."""
        del self.document["annotations"][annotation]["segmentation"]

    def ingested(self, url: str, **policy: Any) -> Dataset:
        """In a new store."""
        store = Store(url)
        init(store)
        path = self.folder / "masks.json"
        path.write_text(json.dumps(self.document))
        source = SourceConfig(
            format="coco", name="album", annotations=str(path), images=str(self.folder / "images")
        )
        config = IngestConfig(
            source=source, policy=ImagePolicy(**policy), pool=PoolConfig(executor="inline"),
            shard_images=3,
        )  # fmt: skip
        ingest(store, config)
        return Dataset.open(store)


class ColourSegmenter:
    """Two queries for each colour; `blind` ones find nothing."""

    def __init__(self, *, blind: bool = False) -> None:
        self._blind = blind
        self.batches: list[int] = []

    def __call__(self, images: Tensor, padding: Tensor, texts: Tensor) -> SegmenterOutput:
        self.batches.append(len(images))
        mean, deviation = (torch.from_numpy(one)[:, None, None] for one in (MEAN, DEVIATION))
        rgb = (images * deviation + mean) * ~padding[:, None]
        small = torch.nn.functional.avg_pool2d(rgb, 4)  # [B, 3, h, w]
        colours = torch.tensor(list(COLOURS.values())).float()
        distance = (small[:, None] - colours[None, :, :, None, None]).abs().amax(dim=2)
        seen = (distance < 60) & (not self._blind)  # [B, colours, h, w]
        middle = SIZE_HW[1] // 8
        left, right = seen.clone(), seen.clone()
        left[..., middle:], right[..., :middle] = False, False
        masks = torch.cat([left, right], dim=1)  # [B, Q, h, w]
        scores = torch.cat([colours, colours]) / 255 @ texts.T * masks.any(-1).any(-1)[..., None]
        last = Predictions(
            class_logits=(scores - 0.5) * 2 * _SURE,
            boxes_cxcywh=_boxes(masks),
            mask_embeddings=torch.eye(masks.shape[1]).expand(len(images), -1, -1),
        )
        pixels = torch.where(masks, _SURE, -_SURE)
        return SegmenterOutput(
            layers=(last,), proposals=None, denoised=None, pixel_embeddings=pixels, num_learnable=3
        )


def student_that_sees(segmenter: ColourSegmenter) -> Student:
    """With a canvas as wide as the photos."""
    config = load_config(None, size="tiny")
    config = replace(config, data=replace(config.data, image_side=SIZE_HW[1]))
    vectors = {name: np.eye(3, dtype=np.float32)[n] for n, name in enumerate(COLOURS)}
    table = SimpleNamespace(
        dim=3,
        vectors=lambda names: torch.tensor(
            np.array([vectors.get(name, np.zeros(3, np.float32)) for name in names])
        ),
    )
    return Student(
        segmenter=segmenter,  # type: ignore[arg-type]  # it answers like one
        config=config, texts=table,  # type: ignore[arg-type]
        categories=("red", "green"), commit_id="5" * 64, data=(),
    )  # fmt: skip


def _boxes(masks: Tensor) -> Tensor:
    """[B, Q, 4] cxcywh of each mask in [0, 1]; zeros where it is empty."""
    boxes = torch.zeros(*masks.shape[:2], 4)
    height, width = masks.shape[-2:]
    for image, query in masks.any(-1).any(-1).nonzero().tolist():
        rows, columns = masks[image, query].nonzero(as_tuple=True)
        y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        boxes[image, query] = torch.stack(
            [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        )
    return boxes
