"""A checkpoint is a commit: reading it, and the student that it holds.

It stands on a branch `models/<name>`; its parent is the dataset commit that it was trained on,
whose manifest it shares, and two objects hang on it: `weights`, the averaged ones that are handed
out, and `state`, what training goes on from. `student/training/checkpoints.py` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load

from manifests.commit import Commit
from manifests.errors import InputError, ObjectDamagedError, RefError
from manifests.models import MODELS, STATE, TRAIN, WEIGHTS, is_model
from manifests.refs import Refs
from manifests.store import Store
from student.config import StudentConfig
from student.config_files import config_from_values
from student.training.trainee import load_weights

if TYPE_CHECKING:
    from torch import Tensor

    from student.model.segmenter import Segmenter
    from student.text.table import TextTable

VERSION = 1
"""Raised when checkpoints of older versions cannot be trained on or loaded any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataVersion:
    """One dataset that a student saw: a commit of a store."""

    store: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a checkpoint's commit says of it, as its operation's configuration.

    Attributes:
        student: the StudentConfig, as JSON values.
        step: optimiser steps taken.
        run: a random name of the run, by which a resumed one knows its own checkpoints.
        parent: the checkpoint it was trained on from; None: the first of its run.
        data: what it was trained on; the first is the command's REF.
        categories: whose objects it was taught, in the order of its data.
        text: what decides the embeddings: the identity of the text encoder, and the template.
    """

    student: Mapping[str, Any]  # Any: JSON
    step: int
    run: str
    parent: str | None
    data: tuple[DataVersion, ...]
    categories: tuple[str, ...]
    text: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint without its weights."""

    commit_id: str
    lineage: Lineage
    config: StudentConfig
    attached: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A trained network, with its averaged weights, in evaluation mode.

    Attributes:
        segmenter: the network.
        config: what it was trained with.
        categories: whose objects it was taught; it can be asked for others.
        texts: the text encoder it was trained with.
        commit_id: the checkpoint.
        data: what it was trained on; the first is the command's REF.
    """

    segmenter: Segmenter
    config: StudentConfig
    categories: tuple[str, ...]
    texts: TextTable
    commit_id: str
    data: tuple[DataVersion, ...]


def branch_of(name: str) -> str:
    """The branch of a student's checkpoints."""
    return f"{MODELS}{name}"


def load_student(store: Store, ref: str, *, device: str = "cpu") -> Student:
    """The student of a checkpoint.

    Args:
        store: where it is.
        ref: a student's name, its branch `models/<name>`, or any ref of a checkpoint.
        device: where the network is to be.

    Raises:
        RefError: no such ref, or it is no checkpoint.
        InputError: it is of another architecture or text encoder than this version makes.
        ObjectMissingError, ObjectDamagedError: its weights cannot be read.
    """
    from student.model.segmenter import build_segmenter
    from student.text.encoder import build_text_encoder
    from student.text.table import TextTable

    found = read_checkpoint(store, ref)
    config = found.config
    texts = TextTable(build_text_encoder(config.model.text), config.model.text.template)
    check_texts(texts, found)
    segmenter = build_segmenter(
        config.model, config.denoising, text_dim=texts.dim, pretrained=False
    )
    load_weights(segmenter, read_tensors(store, found, WEIGHTS), whose=_name(found.commit_id))
    return Student(
        segmenter=segmenter.to(device).eval(), config=config, texts=texts,
        categories=found.lineage.categories, commit_id=found.commit_id, data=found.lineage.data,
    )  # fmt: skip


def read_checkpoint(store: Store, ref: str) -> Checkpoint:
    """What a checkpoint says of itself. Raises as `load_student`."""
    store.check_is_store()
    return parse_checkpoint(_resolved(store, ref), store)


def parse_checkpoint(commit_id: str, store: Store) -> Checkpoint:
    """The checkpoint that a commit is.

    Raises:
        RefError: it is none.
        InputError: a version wrote it that this one does not understand.
    """
    commit = Commit.load(store, commit_id)
    made, attached = commit.operation, commit.attached or {}
    if made.name != TRAIN or not {WEIGHTS, STATE} <= attached.keys():
        have = ", ".join(_students(store)) or "none"
        raise RefError(
            f"commit {commit_id[:12]} is no checkpoint but the outcome of '{made.name}'; the "
            f"students of {store.url} are: {have}; train one with 'maskmill train'"
        )
    if made.version != VERSION:
        raise InputError(
            f"{_name(commit_id)} has version {made.version}, expected {VERSION}; use the "
            f"maskmill that wrote it ({made.code.get('maskmill', 'unknown')}), or train again"
        )
    where = _name(commit_id)
    try:
        lineage = msgspec.convert(made.config, type=Lineage)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}; use the maskmill that wrote it") from error
    config = config_from_values(lineage.student, where=where)
    return Checkpoint(commit_id=commit_id, lineage=lineage, config=config, attached=attached)


def read_tensors(store: Store, checkpoint: Checkpoint, role: str) -> dict[str, Tensor]:
    """The tensors of `weights` or `state`, on the CPU.

    Raises:
        ObjectMissingError, ObjectDamagedError: they cannot be read.
    """
    object_id = checkpoint.attached[role]
    try:
        return load(store.get_bytes(object_id))
    except SafetensorError as error:
        raise ObjectDamagedError(
            f"the {role} of {_name(checkpoint.commit_id)} (object {object_id[:12]}) are "
            f"no safetensors: {error}; restore them from a copy, or use an older checkpoint"
        ) from error


def check_texts(texts: TextTable, checkpoint: Checkpoint) -> None:
    """Raises InputError if a checkpoint was trained with another text encoder than there is."""
    then, here = dict(checkpoint.lineage.text), dict(texts.identity)
    if then != here:
        raise InputError(
            f"{_name(checkpoint.commit_id)}: expected the text encoder {_words(then)}, "
            f"got {_words(here)}: its classes would mean something else; bring that encoder back, "
            "or train again"
        )


def _resolved(store: Store, ref: str) -> str:
    """A student's own name goes before a branch or tag that is called the same."""
    refs = Refs(store)
    if f"{MODELS}{ref}" in refs.branches():
        return refs.resolve(f"{MODELS}{ref}")
    return refs.resolve(ref)


def _name(commit_id: str) -> str:
    return f"checkpoint {commit_id[:12]}"


def _students(store: Store) -> Sequence[str]:
    names = Refs(store).branches()
    return [name.removeprefix(MODELS) for name in names if is_model(name)]


def _words(identity: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:60]}" for name, value in sorted(identity.items()))
