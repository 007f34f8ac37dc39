"""Pictures of the synthetic store: a few hundred bytes each, all different, of one colour.

Legend: n images of one shard.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import schemas
from manifests.digest import content_id

TOO_DARK = "too_dark"
"""Why the image policy keeps the black ones from teachers."""
_SIZES_HW = np.array([[480, 640], [480, 640], [640, 480], [427, 640], [333, 500]])
_BLACK = 0.002
_DARK_LUMA = 16
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """What one shard is to hold.

    Attributes:
        seed, number: of the store, and of the shard in it; they decide everything random.
        source: name of the source the images claim to come from.
        first_image, num_images: the images' numbers in that source.
        first_annotation, num_masks: likewise, of the boxes.
        teachers: names; each gets a layer with a mask for every box.
        candidates: further masks in each row of those layers; SAM gives 2.
        has_human: whether there is a `masks/human`.
    """

    seed: int
    number: int
    source: str
    first_image: int
    num_images: int
    first_annotation: int
    num_masks: int
    teachers: tuple[str, ...]
    candidates: int
    has_human: bool

    def generator(self, stream: int) -> np.random.Generator:
        """Random numbers of one layer."""
        return np.random.default_rng([self.seed, self.number, stream])


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos:
    """[n] pictures of one colour each, `luma` being its brightness."""

    data: list[bytes]
    ids: list[str]
    size_hw: NDArray[np.int64]
    luma: NDArray[np.int64]

    @property
    def is_dark(self) -> NDArray[np.bool_]:
        """[n] whether the image policy keeps it from teachers."""
        return self.luma < _DARK_LUMA


def draw_photos(plan: ShardPlan) -> Photos:
    """Pictures of 1 bit a pixel, all of one colour, each with a comment of its own."""
    rng, count = plan.generator(0), plan.num_images
    size_hw = _SIZES_HW[rng.integers(0, len(_SIZES_HW), count)]
    colours = rng.integers(40, 216, (count, 3)) * (rng.random((count, 1)) >= _BLACK)
    pixels = {(h, w): zlib.compress(bytes((1 + -(-w // 8)) * h), 9) for h, w in _SIZES_HW.tolist()}
    data = [
        _png(size, bytes(colour), f"{plan.source} {plan.first_image + n}".encode(), pixels[size])
        for n, (size, colour) in enumerate(
            zip(map(tuple, size_hw.tolist()), colours.tolist(), strict=True)
        )
    ]
    # cv2's own integers for luma, which `engine.measure` uses.
    luma = (colours @ np.array([9798, 19235, 3735]) + (1 << 14)) >> 15
    return Photos(data=data, ids=[content_id(png) for png in data], size_hw=size_hw, luma=luma)


def index_table(plan: ShardPlan, photos: Photos, offsets: list[int]) -> pa.Table:
    """[n] rows of IMAGE_INDEX_SCHEMA; sharpness and exposure as `engine.measure` finds them."""
    count = len(photos.data)
    numbers = range(plan.first_image, plan.first_image + count)
    origin = {
        "source": pa.array([plan.source] * count, pa.string()),
        "source_image_id": pa.array([str(number) for number in numbers], pa.string()),
        "file_name": pa.array([f"{number:09}.png" for number in numbers], pa.string()),
    }
    origins = pa.StructArray.from_arrays([*origin.values()], fields=[*schemas.ORIGIN])
    columns = {
        **origin,
        "image_id": photos.ids,
        "height": photos.size_hw[:, 0],
        "width": photos.size_hw[:, 1],
        "offset": offsets,
        "size": [len(data) for data in photos.data],
        "format": ["png"] * count,
        "origins": pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), origins),
        "transforms": [[]] * count,
        "sharpness": np.zeros(count),
        "brightness": photos.luma,
        "dark_fraction": photos.is_dark * 1.0,
        "bright_fraction": np.zeros(count),
        "quarantine": [TOO_DARK if is_dark else None for is_dark in photos.is_dark],
        "not_exhaustive": [[]] * count,
        "negative": [[]] * count,
    }
    return arrow_table(columns, schemas.IMAGE_INDEX_SCHEMA)


def arrow_table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:  # Any: arrays
    """Columns by name, arrays of any kind, brought to the schema's order and types."""
    arrays = [
        columns[field.name].cast(field.type)
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _png(size_hw: tuple[int, int], rgb: bytes, comment: bytes, pixels: bytes) -> bytes:
    """One colour, 1 bit a pixel, palette; `pixels` are the packed rows, all zeros."""
    height, width = size_hw
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", rgb + rgb), (b"tEXt", b"Comment\0" + comment),
              (b"IDAT", pixels), (b"IEND", b""))  # fmt: skip
    return _PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
