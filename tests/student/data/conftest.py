"""Small real stores for the loader: photos with colours that say where a pixel was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.commit import Category
from manifests.dataset import Dataset, init
from manifests.store import Store
from student.config import DataConfig, StudentConfig, TrainConfig
from student.data.training_data import TrainingData
from student.text.encoder import build_text_encoder
from student.text.table import TextTable
from tests.manifests.conftest import DatasetBuilder

NAMES = ("bag", "hat", "shoe")
BOX = (4.0, 3.0, 28.0, 21.0)


def categories(*names: str, source: str = "") -> tuple[Category, ...]:
    """Categories of a commit; of every source, or of one."""
    ids = {source: "1"} if source else {}
    return tuple(Category(name=name, source_ids=ids) for name in names or NAMES)


def config_of(folder: Path, **values: Any) -> DataConfig:
    """A small canvas without jitter, and a cache of its own."""
    defaults: dict[str, Any] = {
        "image_side": 64, "scale_min": 1.0, "scale_max": 1.0, "flip": 0.0, "workers": 0,
        "cache_folder": str(folder / "cache"), "cache_bytes": 2**24,
    }  # fmt: skip
    return DataConfig(**defaults | values)


@pytest.fixture
def builder(tmp_path: Path) -> DatasetBuilder:
    """An empty dataset on a disk."""
    store = Store(str(tmp_path / "store"))
    init(store)
    return DatasetBuilder(store)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., TrainingData]:
    """Opens a commit with some values of DataConfig."""

    def do(dataset: Dataset, **values: Any) -> TrainingData:
        return TrainingData.open(dataset.store, dataset.commit_id, config_of(tmp_path, **values))

    return do


def many_images(builder: DatasetBuilder, num: int, *, shard: int = 5) -> Dataset:
    """Images with one to three boxes, some shards of them."""
    for number in range(num):
        builder.image(f"{number}.jpg", size_hw=(24, 32), source_image_id=str(number))
        for place in range(1 + number % 3):
            builder.box(NAMES[(number + place) % 3], BOX)
        if (number + 1) % shard == 0 or number + 1 == num:
            builder.shard()
    return builder.commit(categories())


def student_config(data: DataConfig, **train: Any) -> StudentConfig:
    """A run with a few images a step."""
    values: dict[str, Any] = {"batch": 4, "micro_batch": 2, "seed": 1}
    return StudentConfig(data=data, train=TrainConfig(**values | train))


def hashed_texts() -> TextTable:
    """Embeddings without weights."""
    from student.config import TextConfig

    return TextTable(build_text_encoder(TextConfig(encoder="hashed")))
