"""A checkpoint is a commit like others: looked at, copied, checked, kept, and loaded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import student.checkpoint as module
from manifests import layout
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import InputError, ObjectDamagedError, ObjectMissingError, RefError
from manifests.fsck import FsckOptions, fsck
from manifests.gc import GcOptions, collect_garbage
from manifests.models import STATE, WEIGHTS
from manifests.refs import Refs
from manifests.schemas import IMAGE_INDEX
from manifests.status import status
from manifests.store import Store
from manifests.takedown import take_down
from manifests.transfer import clone
from student.checkpoint import Checkpoint, load_student, read_checkpoint
from student.train import TrainOptions, train
from tests.command_line import Maskmill, command_line
from tests.student.evaluation.colours import Album
from tests.student.small_run import same_tensors, small_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two steps of the student `small`, and a checkpoint after each."""
    folder = tmp_path_factory.mktemp("trained")
    album = Album(folder / "album")
    for left in (8, 24, 40, 56):
        album.add(("red", left, 16, 40, 60), ("blue", 100, 20, 48, 40))
    store = album.ingested(str(folder / "store")).store
    config = small_config(folder, "train.steps=2", "train.checkpoint_steps=1")
    options = TrainOptions(inline=True, run_folder=str(folder / "run"), is_quiet=True)
    train(store, "main", config, options=options)
    return store


@pytest.fixture
def copy(trained: Store, tmp_path: Path) -> Store:
    """To be changed."""
    shutil.copytree(trained.url, tmp_path / "copy")
    return Store(str(tmp_path / "copy"))


@pytest.fixture
def maskmill(capsys: pytest.CaptureFixture[str]) -> Maskmill:
    return command_line(capsys)


def test_a_clone_has_the_same_student(trained: Store, tmp_path: Path) -> None:
    made = Store(str(tmp_path / "clone"))
    clone(trained, made)
    one, other = load_student(trained, "small"), load_student(made, "models/small")
    assert one.commit_id == other.commit_id
    assert same_tensors(one.segmenter, other.segmenter)


def test_any_name_of_a_checkpoint_will_do(trained: Store) -> None:
    newest = Refs(trained).resolve("models/small")
    older = Refs(trained).history("models/small")[0].commit
    for ref in ("small", "models/small", newest, newest[:8]):
        assert read_checkpoint(trained, ref).commit_id == newest
    assert read_checkpoint(trained, "models/small@{1}").commit_id == older
    assert read_checkpoint(trained, newest).lineage.parent == older


def test_what_is_no_checkpoint_is_refused(trained: Store) -> None:
    with pytest.raises(RefError, match=r"no checkpoint but the outcome of 'ingest'; .*: small; "):
        load_student(trained, "main")
    with pytest.raises(RefError, match=r"no branch, tag or commit 'smaller'"):
        load_student(trained, "smaller")
    with pytest.raises(RefError, match=r"is no checkpoint but the outcome of 'init'"):
        load_student(trained, "main~1")


def _told_otherwise(monkeypatch: pytest.MonkeyPatch, found: Checkpoint) -> None:
    monkeypatch.setattr(module, "parse_checkpoint", lambda commit_id, store: found)


def test_another_architecture_is_named(trained: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_checkpoint(trained, "small")
    transformer = replace(found.config.model.transformer, feedforward=16)
    model = replace(found.config.model, transformer=transformer)
    _told_otherwise(monkeypatch, replace(found, config=replace(found.config, model=model)))
    with pytest.raises(InputError, match=r"checkpoint .*: expected .* of another architecture"):
        load_student(trained, "small")


def test_another_text_encoder_is_named(trained: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_checkpoint(trained, "small")
    text = {**found.lineage.text, "version": "0"}
    _told_otherwise(monkeypatch, replace(found, lineage=replace(found.lineage, text=text)))
    with pytest.raises(InputError, match=r"expected the text encoder .*version 0, got .*version 1"):
        load_student(trained, "small")


def test_a_newer_version_says_who_wrote_it(copy: Store) -> None:
    commit = Commit.load(copy, Refs(copy).resolve("models/small"))
    newer = replace(commit, operation=replace(commit.operation, version=99)).save(copy)
    with pytest.raises(InputError, match=r"has version 99, expected 1; use the maskmill that"):
        read_checkpoint(copy, newer)


def test_damaged_weights_are_named(copy: Store) -> None:
    attached = Commit.load(copy, Refs(copy).resolve("models/small")).attached or {}
    path = Path(copy.url, layout.object_path(attached[WEIGHTS]))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ObjectDamagedError, match=r"damaged: its .* bytes do not hash to its name"):
        load_student(copy, "small")
    assert fsck(copy).is_sound  # looks for checkpoints, but does not read them
    [finding] = fsck(copy, FsckOptions(full=True, quarantine=False)).findings
    assert "models/small cannot be used as students, nor trained on" in finding.sentence
    copy.remove(layout.object_path(attached[WEIGHTS]))
    copy.remove(layout.object_path(attached[STATE]))
    with pytest.raises(ObjectMissingError, match=r"is missing"):
        load_student(copy, "small")
    told = [finding.sentence for finding in fsck(copy).findings]
    assert len(told) == 2
    assert any("models/small cannot be trained on; restore it" in sentence for sentence in told)
    assert load_student(copy, "models/small@{1}").commit_id


def test_a_takedown_deletes_images_a_student_was_trained_on(
    copy: Store, maskmill: Maskmill
) -> None:
    dataset = Dataset.open(copy)
    shard = dataset.manifest.shards()[0]
    image_id = dataset.table(shard, IMAGE_INDEX, columns=["image_id"])["image_id"][0].as_py()
    done = take_down(copy, "main", {shard: [image_id]}, reason="asked for it")
    assert (done.still_in, done.trained_on) == ((), ("models/small",))
    collect_garbage(copy, GcOptions(grace_s=0, keep_log_s=0))
    assert copy.object_size(shard) is None
    assert load_student(copy, "small")
    assert fsck(copy).is_sound
    assert maskmill("fsck", "--full", "--store", copy.url).code == 0
    assert maskmill("show", "models/small", "--store", copy.url).code == 0
    assert maskmill("status", "models/small", "--store", copy.url).code == 0


def test_other_commands_on_a_checkpoint(trained: Store, maskmill: Maskmill) -> None:
    log = maskmill("log", "--store", trained.url, "--ref", "models/small")
    assert "train by " in log.out
    assert "train small: step 2 of 2" in log.out
    shown = maskmill("show", "models/small", "--store", trained.url)
    assert "what it was trained with" in shown.out
    assert "reproduce" not in shown.out
    assert "student.train.learning_rate = 0.0004" in shown.out
    assert "step = 2" in shown.out
    again = maskmill("reproduce", "models/small", "--store", trained.url)
    assert again.code == 3
    assert "is a checkpoint of a student: 'reproduce' makes commits of data again" in again.err
    chain = maskmill("reproduce", "models/small", "--chain", "--inline", "--store", trained.url)
    assert "is a checkpoint of a student" in chain.err
    of_student, of_data = (status(Dataset.open(trained, ref)) for ref in ("models/small", "main"))
    assert replace(of_student, commit_id="") == replace(of_data, commit_id="")
    merged = maskmill("merge", "models/small", "--store", trained.url)
    assert merged.code == 5
    assert "is a checkpoint of a student and has no data of its own; merge commit " in merged.err
    labelled = maskmill("label", "box", "--branch", "models/small", "--store", trained.url)
    assert labelled.code == 5
    assert "holds the checkpoints of a student, so no data can be committed to it" in labelled.err
