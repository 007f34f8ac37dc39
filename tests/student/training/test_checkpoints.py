"""Checkpoints: whole, exact, and the last good one always there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from manifests import layout
from manifests.commit import Commit
from manifests.dataset import init
from manifests.errors import CommitConflictError, CommitError, InputError
from manifests.file_system import NoAnswerError
from manifests.fsck import fsck
from manifests.gc import GcOptions, collect_garbage
from manifests.refs import Refs
from manifests.store import Store, StoredObject
from student.checkpoint import read_checkpoint
from student.data.patience import Patience
from student.training.trainee import Trainee
from tests.student.training.checkpoint_run import (
    CONFIG,
    MACHINE,
    checkpoints,
    new_lineage,
    new_trainee,
    of_run,
    take_steps,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With an empty dataset."""
    made = Store(str(tmp_path / "store"))
    init(made)
    return made


def _check_same(one: Trainee, other: Trainee) -> None:
    """Bit by bit: weights, averages and the optimiser's moments."""
    assert one.steps == other.steps
    assert one.average.num_updates == other.average.num_updates
    for mine, theirs in (
        (one.network.state_dict(), other.network.state_dict()),
        (one.average_tensors(), other.average_tensors()),
        (one.state_tensors(), other.state_tensors()),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_going_on_from_a_checkpoint_equals_never_having_stopped(store: Store) -> None:
    lineage = new_lineage(store)
    whole, first, second = new_trainee(), new_trainee(), new_trainee()
    take_steps(whole, 9)
    take_steps(first, 5)
    write(store, lineage, first)
    found = checkpoints(store, lineage)
    found.restore(second)
    _check_same(first, second)
    assert found.newest is not None
    assert found.newest.lineage.step == second.steps == 5
    take_steps(second, 4)
    _check_same(whole, second)


def test_frozen_weights_are_stored_once() -> None:
    trainee = new_trainee()
    trainee.network.backbone.requires_grad_(False)
    trainee = Trainee.new(trainee.network, CONFIG.train)
    take_steps(trainee, 2)
    names = trainee.state_tensors().keys()
    assert not any(name.startswith("raw/backbone") for name in names)
    assert "raw/head.weight" in names
    assert "optimizer/head.weight/exp_avg_sq" in names


def test_a_checkpoint_says_what_it_came_from(store: Store) -> None:
    lineage = new_lineage(store)
    trainee = new_trainee()
    take_steps(trainee, 3)
    first = write(store, lineage, trainee)
    take_steps(trainee, 3)
    second = write(store, lineage, trainee)
    commit = Commit.load(store, second)
    data = lineage.data[0].commit
    assert commit.parents == (data,)
    assert commit.manifest == Commit.load(store, data).manifest
    assert commit.operation.machines == (MACHINE,)
    assert {"maskmill", "torch", "timm"} <= commit.operation.code.keys()
    found = read_checkpoint(store, "shoes")
    assert found.commit_id == second
    assert (found.lineage.step, found.lineage.parent) == (6, first)
    assert found.config == CONFIG
    assert [entry.commit for entry in Refs(store).history("models/shoes")] == [first, second]


def test_gc_keeps_the_newest_and_lets_old_ones_go_after_the_logs_grace(store: Store) -> None:
    lineage = new_lineage(store)
    trainee = new_trainee()
    take_steps(trainee, 1)
    old = write(store, lineage, trainee)
    take_steps(trainee, 1)
    new = write(store, lineage, trainee)
    assert fsck(store).findings == ()
    collect_garbage(store, GcOptions(grace_s=0))
    assert all(store.object_size(id_) for id_ in (old, *Commit.load(store, old).hanging))
    collect_garbage(store, GcOptions(grace_s=0, keep_log_s=0))
    gone = Commit.load(store, new).hanging
    assert store.object_size(old) is None
    assert all(store.object_size(id_) for id_ in (new, *gone))
    checkpoints(store, lineage).restore(new_trainee())


class _Unplugged(Store):
    """A store whose network is cut for the next `num_failures` writes of files or refs.

    Or, `after_the_fact`, when a ref was written and its writer has yet to hear of it.
    """

    num_failures = 0
    after_the_fact = False

    def put_file(self, path: Path) -> StoredObject:
        if not self.after_the_fact:
            self._fail()
        return super().put_file(path)

    def create_if_absent(self, key: str, data: bytes) -> None:
        if self.after_the_fact:
            super().create_if_absent(key, data)
        self._fail()
        super().create_if_absent(key, data)

    def _fail(self) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise NoAnswerError("no answer")


def _impatient(total_s: float, slept: list[float]) -> Patience:
    return Patience(total_s=total_s, sleep=slept.append, clock=lambda: sum(slept))


def test_a_store_that_is_away_for_a_minute_is_waited_for(store: Store) -> None:
    lineage = new_lineage(store)
    cut, slept = _Unplugged(store.url), list[float]()
    trainee = new_trainee()
    take_steps(trainee, 1)
    found = checkpoints(cut, lineage, patience=_impatient(600, slept))
    cut.num_failures = 6
    found.write(trainee, message="a", machine=MACHINE)
    assert sum(slept) >= 60
    assert read_checkpoint(store, "shoes").lineage.step == 1


def test_but_not_for_ever_and_the_last_good_one_stays(store: Store) -> None:
    lineage, trainee = new_lineage(store), new_trainee()
    take_steps(trainee, 1)
    good = write(store, lineage, trainee)
    take_steps(trainee, 1)
    cut = _Unplugged(store.url)
    found = checkpoints(cut, lineage, patience=_impatient(60, []))
    cut.num_failures = 1000
    with pytest.raises(NoAnswerError):
        found.write(trainee, message="a", machine=MACHINE)
    assert read_checkpoint(store, "shoes").commit_id == good
    assert fsck(store).findings == ()


def test_an_answer_that_got_lost_is_no_conflict(store: Store) -> None:
    """The ref moved, but nobody said so: asked again, it is seen to be ours."""
    lineage, trainee = new_lineage(store), new_trainee()
    take_steps(trainee, 1)
    cut = _Unplugged(store.url)
    found = checkpoints(cut, lineage, patience=_impatient(60, []))
    cut.num_failures, cut.after_the_fact = 3, True
    first = found.write(trainee, message="a", machine=MACHINE)
    take_steps(trainee, 1)
    second = found.write(trainee, message="b", machine=MACHINE)
    logged = [entry.commit for entry in Refs(store).history("models/shoes")]
    assert logged == [first.commit_id, second.commit_id]


class _Swept(Store):
    """A store whose `gc`, with a grace period that is too short, takes what was just uploaded."""

    uploaded = ""

    def put_file(self, path: Path) -> StoredObject:
        stored = super().put_file(path)
        self.uploaded = stored.object_id
        return stored

    def put_bytes(self, data: bytes) -> StoredObject:
        self.remove(layout.object_path(self.uploaded))
        return super().put_bytes(data)


def test_what_gc_took_on_the_way_is_missed_before_the_branch_moves(store: Store) -> None:
    lineage, trainee = new_lineage(store), new_trainee()
    take_steps(trainee, 1)
    good = write(store, lineage, trainee)
    take_steps(trainee, 1)
    with pytest.raises(CommitError, match="'maskmill gc' took it for a leftover"):
        write(_Swept(store.url), lineage, trainee)
    assert read_checkpoint(store, "shoes").commit_id == good


def test_two_runs_of_one_name_do_not_mix(store: Store) -> None:
    lineage, trainee = new_lineage(store), new_trainee()
    take_steps(trainee, 1)
    mine = checkpoints(store, lineage)
    write(store, of_run(lineage, "run-2"), trainee)
    with pytest.raises(CommitConflictError, match="branch 'models/shoes' moved"):
        mine.write(trainee, message="a", machine=MACHINE)
    with pytest.raises(CommitConflictError):  # nor after the loss of a worker
        checkpoints(store, lineage)
    assert checkpoints(store, lineage, begun_at=1).newest is None  # a restart begins there
    other = checkpoints(store, of_run(lineage, "run-2")).newest
    assert other is not None
    assert other.lineage.step == 1


def test_weights_of_another_network_are_refused(store: Store) -> None:
    lineage, trainee = new_lineage(store), new_trainee()
    take_steps(trainee, 1)
    write(store, lineage, trainee)
    other = new_trainee()
    other.network.head = torch.nn.Linear(8, 2)
    with pytest.raises(InputError, match=r"'head.weight' of shape \[2, 8\], got \[1, 8\]: they"):
        checkpoints(store, lineage).restore(other)
