"""Small photos and COCO files for tests of ingest, label and filter, made on the fly."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import Dataset, init
from manifests.store import Store

INLINE = PoolConfig(executor="inline")


def make_photo(seed: int, *, size_hw: tuple[int, int] = (60, 80)) -> Image.Image:
    """A sharp, colourful picture that no other seed gives."""
    noise = np.random.default_rng(seed).integers(30, 220, (*size_hw, 3), dtype=np.uint8)
    return Image.fromarray(noise)


class PhotoSet:
    """A COCO dataset under construction in `folder`: images/ and boxes.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        self.document: dict[str, list[dict[str, Any]]] = {
            "images": [], "annotations": [], "categories": [{"id": 7, "name": "shoe"}],
        }  # fmt: skip

    def add(
        self,
        file_name: str,
        *boxes_xywh: list[Any],
        content: bytes | None = None,
        size_hw: tuple[int, int] | None = (60, 80),
        **fields: Any,
    ) -> int:
        """An image entry, its file, and a box annotation for each of `boxes_xywh`."""
        image_id = len(self.document["images"]) + 1
        if content is None:
            content = jpeg(make_photo(image_id))
        if content:
            (self.images / file_name).write_bytes(content)
        entry = {"id": image_id, "file_name": file_name, **fields}
        if size_hw:
            entry |= {"height": size_hw[0], "width": size_hw[1]}
        self.document["images"].append(entry)
        for box in boxes_xywh:
            self.annotate(image_id, box)
        return image_id

    def annotate(self, image_id: Any, box_xywh: Any, **fields: Any) -> None:
        """One more annotation."""
        number = len(self.document["annotations"]) + 1
        self.document["annotations"].append(
            {"id": number, "image_id": image_id, "category_id": 7, "bbox": box_xywh} | fields
        )

    def config(self, name: str = "set", **policy: Any) -> IngestConfig:
        """Writes the JSON file and returns what to ingest."""
        path = self.folder / "boxes.json"
        path.write_text(json.dumps(self.document))
        source = SourceConfig(
            format="coco", annotations=str(path), images=str(self.images), name=name
        )
        return IngestConfig(source=source, policy=ImagePolicy(**policy), pool=INLINE)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=92, **options)
    return sink.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> PhotoSet:
    return PhotoSet(tmp_path / "photos")


@pytest.fixture
def more_photos(tmp_path: Path) -> PhotoSet:
    return PhotoSet(tmp_path / "more-photos")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "store"))
    init(made)
    return made


@pytest.fixture
def ingested(store: Store) -> Callable[..., Dataset]:
    """Ingests a photo set into the store and opens the result."""

    def do(
        photo_set: PhotoSet, name: str = "set", shard_images: int = 1000, **policy: Any
    ) -> Dataset:
        config = replace(photo_set.config(name, **policy), shard_images=shard_images)
        return Dataset(store, ingest(store, config))

    return do


@pytest.fixture
def make_jpeg() -> Callable[..., bytes]:
    """JPEG bytes of a PIL image."""
    return jpeg


@pytest.fixture
def make_image() -> Callable[..., Image.Image]:
    """A sharp, colourful picture that no other seed gives."""
    return make_photo
