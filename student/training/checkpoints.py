"""Writing checkpoints, and reading the one that a run goes on from.

The objects are uploaded first, then the commit, and only then the branch moves: whatever happens on
the way, the branch is at a whole checkpoint, and those before it stay in its log.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
from safetensors.torch import save_file
from torch import Tensor

from manifests.commit import Commit, default_author, now
from manifests.dataset import operation
from manifests.errors import CommitConflictError, CommitStateUnknownError, InputError
from manifests.file_system import NoAnswerError
from manifests.models import STATE, TRAIN, WEIGHTS
from manifests.pins import check_objects, pinned
from manifests.refs import RefEntry, Refs
from manifests.store import Store
from student.checkpoint import (
    VERSION,
    Checkpoint,
    Lineage,
    branch_of,
    parse_checkpoint,
    read_tensors,
)
from student.data.patience import Patience
from student.training.trainee import Trainee

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "safetensors", "scipy")


class Checkpoints:
    """The checkpoints of one run on its branch; one worker writes them."""

    def __init__(
        self,
        store: Store,
        lineage: Lineage,
        *,
        name: str,
        begun_at: int = 0,
        patience: Patience = Patience(),
    ) -> None:
        """
        Args:
            store: where they are.
            lineage: what all of them have in common; its `step` and `parent` do not count.
            name: the student's.
            begun_at: entry of the branch's log at which the run began; 0: there was none.
            patience: with the store.

        Raises:
            RefError, InputError: the branch has something else than checkpoints.
            CommitConflictError: another run has moved the branch since.
        """
        self._begun_at = begun_at
        self._store, self._lineage, self._branch = store, lineage, branch_of(name)
        self._refs, self._patience = Refs(store), patience
        self._entry, self.newest = patience.ask(self._look, what="looking for checkpoints")

    def _look(self) -> tuple[RefEntry | None, Checkpoint | None]:
        """The branch's newest entry, and the run's newest checkpoint; None before its first."""
        entry = self._refs.head(self._branch)
        newest = self._parsed(entry) if entry else None
        if newest and newest.lineage.run == self._lineage.run:
            return entry, newest
        if entry and entry.number != self._begun_at:
            raise CommitConflictError(branch=self._branch, expected=None, found=entry.commit)
        return entry, None

    def _parsed(self, entry: RefEntry) -> Checkpoint | None:
        """None: another version wrote it, and this run begins anew after it."""
        try:
            return parse_checkpoint(entry.commit, self._store)
        except InputError:
            if entry.number != self._begun_at:
                raise
            return None

    def restore(self, trainee: Trainee) -> None:
        """Brings a trainee to where the newest checkpoint is; without one it is left as it is.

        Raises:
            ObjectMissingError, ObjectDamagedError: the checkpoint cannot be read.
            InputError: it is of another network.
        """
        if newest := self.newest:
            average, state = (
                self._patience.ask(partial(read_tensors, self._store, newest, role), what=role)
                for role in (WEIGHTS, STATE)
            )
            trainee.restore(average, state, steps=newest.lineage.step)

    def write(
        self, trainee: Trainee, *, message: str, machine: Mapping[str, str | int]
    ) -> Checkpoint:
        """Uploads and publishes a checkpoint.

        Raises:
            CommitConflictError: the branch moved, as by a second run of the same name.
            StoreError: the store could not be reached for long.
        """
        what = f"checkpoint of step {trainee.steps}"
        roles = {WEIGHTS: trainee.average_tensors(), STATE: trainee.state_tensors()}
        attached = {
            role: self._patience.ask(partial(self._upload, tensors), what=what)
            for role, tensors in roles.items()
        }
        parent = self.newest.commit_id if self.newest else None
        lineage = replace(self._lineage, step=trainee.steps, parent=parent)
        commit = self._patience.ask(
            lambda: self._commit(lineage, attached, message, machine), what=what
        )
        self._patience.ask(lambda: self._publish(commit), what=what)
        self.newest = parse_checkpoint(self._entry_commit(), self._store)
        return self.newest

    def _commit(
        self,
        lineage: Lineage,
        attached: Mapping[str, str],
        message: str,
        machine: Mapping[str, str | int],
    ) -> Commit:
        """On the dataset alone: a checkpoint before it is not its parent, or `gc` could never take
        it."""
        here = dict.fromkeys(data.commit for data in lineage.data if data.store == self._store.url)
        first, *others = here
        dataset = Commit.load(self._store, first)
        return Commit(
            parents=(first, *others),
            manifest=dataset.manifest,
            author=default_author(),
            message=message,
            time=now(),
            operation=operation(
                TRAIN, version=VERSION, config=msgspec.to_builtins(lineage),
                packages=_PACKAGES, machines=(machine,),
            ),
            categories=dataset.categories,
            removed=dataset.removed,
            changes={},
            attached=attached,
        )  # fmt: skip

    def _publish(self, commit: Commit) -> None:
        """Stores the commit and moves the branch; see manifests.pins for the order."""
        commit_id = commit.save(self._store)
        with pinned(self._store, commit_id):
            needed = (commit_id, commit.manifest, *commit.hanging)
            check_objects(self._store, needed)
            self._advance(commit_id)
        number = self._entry.number if self._entry else 0
        self._entry = self._refs.head(self._branch, after=number + 1)

    def _advance(self, commit_id: str) -> None:
        try:
            self._refs.advance(self._branch, expected=self._entry, commit=commit_id, reason=TRAIN)
        except CommitStateUnknownError as error:
            raise NoAnswerError(str(error)) from error  # asked again, it is known
        except CommitConflictError as error:
            if error.found != commit_id:  # else it was moved, and only the answer got lost
                raise

    def _entry_commit(self) -> str:
        return self._entry.commit if self._entry else ""

    def _upload(self, tensors: Mapping[str, Tensor]) -> str:
        """Through a file: three copies of a large network in memory are two too many."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tensors.safetensors"
            copies = {name: value.detach().to("cpu", copy=True).contiguous()
                      for name, value in tensors.items()}  # fmt: skip
            save_file(copies, path)
            return self._store.put_file(path).object_id
