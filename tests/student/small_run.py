"""A store of a few small photos, and a student that takes a step in milliseconds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests.commit import Category
from manifests.dataset import Dataset, init
from manifests.refs import Refs
from manifests.store import Store
from student.checkpoint import Checkpoint
from student.config import StudentConfig
from student.config_files import load_config
from student.train import TrainOptions, train
from student.training.step import StepOutcome
from tests.manifests.conftest import DatasetBuilder

NAMES = ("bag", "hat", "shoe")
SMALL = (
    "name=small", "model.backbone.name=test_resnet", "model.backbone.weights=none",
    "model.backbone.frozen_stages=0", "model.text.encoder=hashed", "model.transformer.dim=32",
    "model.transformer.heads=2", "model.transformer.points=2", "model.transformer.feedforward=32",
    "model.transformer.encoder_layers=1", "model.transformer.decoder_layers=1",
    "model.transformer.learnable_queries=4", "model.transformer.conditional_queries=6",
    "denoising.queries=6", "loss.points=64", "data.image_side=64", "data.masks=masks/human",
    "train.steps=6", "train.batch=4", "train.micro_batch=2", "train.warmup_steps=2",
    "train.checkpoint_steps=2", "train.log_steps=2", "train.ema=0.9",
)  # fmt: skip


def small_config(folder: Path, *words: str) -> StudentConfig:
    """Six steps of four images in micro-batches of two, and a checkpoint every second step."""
    cache = f"data.cache_folder={folder / 'cache'}"
    return load_config(None, [*SMALL, cache, *words], size="tiny")


def small_store(folder: Path, *, num_images: int = 10) -> tuple[Store, Dataset]:
    """Photos of noise with one to three human masks, on the branch `photos`."""
    store = Store(str(folder / "store"))
    init(store)
    return store, add_photos(store, "photos", num_images)


def trained_store(folder: Path) -> Store:
    """A store with the student `small`, two steps old, and its photos on the branch `photos`."""
    store, _ = small_store(folder)
    options = TrainOptions(inline=True, run_folder=str(folder / "run"))
    train(store, "photos", small_config(folder, "train.steps=2"), options=options)
    return store


def add_photos(store: Store, branch: str, num_images: int) -> Dataset:
    """A branch with so many photos."""
    builder = DatasetBuilder(store)
    for number in range(num_images):
        builder.image(f"{number}.jpg", size_hw=(48, 64), source_image_id=str(number))
        for place in range(1 + number % 3):
            left = 4.0 + 12 * place
            mask = np.zeros((48, 64), np.uint8)
            mask[6:30, int(left) : int(left) + 16] = 1
            builder.box(
                NAMES[(number + place) % 3], (left, 6.0, left + 16, 30.0), teacher="human",
                mask=mask,
            )  # fmt: skip
    builder.shard(verdicts=False)
    dataset = builder.commit(tuple(Category(name=name) for name in NAMES))
    Refs(store).create_branch(branch, dataset.commit_id)
    return dataset


@dataclass
class Watcher:
    """Remembers the images of each step, and may stop the run after one."""

    stop_after: int = 0
    stop: BaseException = field(default_factory=lambda: KeyboardInterrupt())
    starts: list[int] = field(default_factory=list)
    image_ids: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    losses: list[float] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)

    def started(self, *, first_step: int, last_step: int) -> None:
        self.starts.append(first_step)

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        self.image_ids[outcome.step] += outcome.image_ids
        self.losses.append(outcome.loss)
        if outcome.step + 1 == self.stop_after:
            raise self.stop

    def wrote(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint.lineage.step)


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two networks have the same weights, bit by bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in mine.items()
    )
