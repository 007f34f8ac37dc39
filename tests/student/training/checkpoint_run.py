"""A run of a few steps on the tiny network, and its checkpoints in a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from manifests.dataset import Dataset
from manifests.store import Store
from student.checkpoint import DataVersion, Lineage
from student.config import StudentConfig
from student.config_files import config_values, load_config
from student.training.checkpoints import Checkpoints
from student.training.optimizer import set_learning_rates
from student.training.trainee import Trainee
from tests.student.training.tiny import SumLoss, batch, network

CONFIG = load_config(
    None, ["name=shoes", "train.steps=20", "train.warmup_steps=0", "train.ema=0.9"], size="tiny"
)
MACHINE = {"device": "cpu", "workers": 1}


def new_lineage(store: Store) -> Lineage:
    """Of a run on the store's first commit."""
    data = DataVersion(store=store.url, commit=Dataset.open(store).commit_id)
    return Lineage(
        student=config_values(CONFIG), step=0, run="run-1", parent=None, data=(data,),
        categories=("bag", "hat"), text={"encoder": "hashed"},
    )  # fmt: skip


def new_trainee(config: StudentConfig = CONFIG) -> Trainee:
    """Before its first step."""
    return Trainee.new(network(), config.train)


def take_steps(trainee: Trainee, count: int, config: StudentConfig = CONFIG) -> None:
    """Steps on images that depend on the step alone."""
    for _ in range(count):
        step = trainee.steps
        set_learning_rates(trainee.optimizer, step, config.train)
        one = batch(range(step, step + 3))
        output = trainee.network(one.images, one.padding, one.texts, one.targets)
        loss = SumLoss()(output, one, num_targets=3, generator=torch.Generator())
        trainee.optimizer.zero_grad()
        loss.total.backward()
        trainee.optimizer.step()
        trainee.average.update()
        trainee.steps += 1


def checkpoints(store: Store, lineage: Lineage, **more: Any) -> Checkpoints:
    """Of the student `shoes`."""
    return Checkpoints(store, lineage, name=CONFIG.name, **more)


def write(store: Store, lineage: Lineage, trainee: Trainee) -> str:
    """A checkpoint; its commit id."""
    return checkpoints(store, lineage).write(trainee, message="a", machine=MACHINE).commit_id


def of_run(lineage: Lineage, run: str) -> Lineage:
    """The same of another run."""
    return replace(lineage, run=run)
