"""Scanning a source into plain rows, with the schema of every batch checked on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.sources.protocol import (
    ANNOTATION_ENTRIES,
    CATEGORY_ENTRIES,
    IMAGE_ENTRIES,
    SourceConfig,
)
from engine.sources.registry import open_source

SCHEMAS = {
    "images": IMAGE_ENTRIES,
    "categories": CATEGORY_ENTRIES,
    "annotations": ANNOTATION_ENTRIES,
}


@dataclass(slots=True)
class Found:
    """All rows of a scan, by kind."""

    images: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def image(self, source_image_id: str) -> dict[str, Any]:
        return next(row for row in self.images if row["source_image_id"] == source_image_id)

    def defects(self) -> list[str | None]:
        return [row["defect"] for row in self.annotations]


@pytest.fixture
def scan() -> Callable[..., Found]:
    def run(format: str, annotations: object, images: object = "unused", **options: Any) -> Found:
        config = SourceConfig(
            format=format,
            annotations=str(annotations),
            images=str(images),
            name="test",
            options=options,
        )
        found = Found()
        for batch in open_source(config).scan():
            assert batch.table.schema == SCHEMAS[batch.kind]
            assert batch.table.num_rows > 0
            batch.table.validate(full=True)
            for name in batch.table.column_names:
                nullable = batch.table.schema.field(name).nullable
                assert nullable or not batch.table[name].null_count
            getattr(found, batch.kind).extend(batch.table.to_pylist())
        return found

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    def run(files: Mapping[str, str | bytes]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return run


@pytest.fixture
def shared_data() -> Path:
    default = Path(__file__).resolve().parents[4] / "shared"
    folder = Path(os.environ.get("MASKMILL_SHARED", default)) / "data"
    if not folder.is_dir():
        pytest.skip(f"no development photos at {folder}: set MASKMILL_SHARED")
    return folder
