"""A whole run: begun, stopped, gone on with, finished, refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import (
    CommitConflictError,
    InputError,
    JobError,
    JobInterruptedError,
    RefError,
    WeightsError,
)
from manifests.refs import Refs
from manifests.store import Store
from student.checkpoint import Student, load_student, read_checkpoint
from student.config import StudentConfig
from student.data.order import World
from student.train import TrainOptions, TrainResult, prepare, train
from student.training.run_log import FILE_NAME, read_json_lines
from student.training.worker import work
from tests.command_line import Maskmill, command_line
from tests.student.small_run import (
    SMALL,
    Watcher,
    add_photos,
    same_tensors,
    small_config,
    small_store,
)


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Store, Dataset]:
    return small_store(tmp_path)


@pytest.fixture
def run(tmp_path: Path, photos: tuple[Store, Dataset]) -> Callable[..., TrainResult]:
    """Trains in this process; words are settings."""

    def do(
        *words: str,
        watcher: Watcher | None = None,
        ref: str = "photos",
        restart: bool = False,
        folder: str = "run",
    ) -> TrainResult:
        options = TrainOptions(
            inline=True, restart=restart, run_folder=str(tmp_path / folder), is_quiet=True
        )
        config = small_config(tmp_path, *words)
        return train(photos[0], ref, config, options=options, observer=watcher)

    return do


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watcher, Student]:
    """A run that nobody stopped, on the same photos as all others."""
    folder, watcher = tmp_path_factory.mktemp("whole"), Watcher()
    store, _ = small_store(folder)
    options = TrainOptions(inline=True, run_folder=str(folder / "run"), is_quiet=True)
    train(store, "photos", small_config(folder), options=options, observer=watcher)
    return watcher, load_student(store, "small")


Run = Callable[..., TrainResult]


def test_a_run_ends_in_a_student(run: Run, photos: tuple[Store, Dataset], tmp_path: Path) -> None:
    store, dataset = photos
    watcher = Watcher()
    result = run(watcher=watcher)
    assert (result.branch, result.steps, result.steps_now) == ("models/small", 6, 6)
    assert watcher.checkpoints == [2, 4, 6]
    assert result.loss is not None
    assert math.isfinite(result.loss)
    assert result.images_per_s > 0
    student = load_student(store, "small")
    assert student.commit_id == result.commit_id == Refs(store).resolve("models/small")
    assert student.categories == ("bag", "hat", "shoe")
    assert student.config == small_config(tmp_path)
    assert not student.segmenter.training
    with torch.inference_mode():
        texts = student.texts.vectors(student.categories)
        found = student.segmenter(
            torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool), texts
        )
    assert found.last.class_logits.shape == (1, 10, 3)
    assert Commit.load(store, result.commit_id).parents == (dataset.commit_id,)


def test_every_image_comes_once_before_any_comes_again(whole: tuple[Watcher, Student]) -> None:
    seen = [image_id for step in range(6) for image_id in whole[0].image_ids[step]]
    assert len(set(seen[:10])) == len(set(seen[10:20])) == 10


@pytest.mark.parametrize(("killed_after", "at"), [(1, 0), (4, 2), (5, 4)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    run: Run,
    photos: tuple[Store, Dataset],
    whole: tuple[Watcher, Student],
    killed_after: int,
    at: int,
) -> None:
    """Bit by bit, from the last checkpoint; that of step 4 was not yet written when 4 ended."""
    uninterrupted, expected = whole
    first, second = Watcher(stop_after=killed_after), Watcher()
    with pytest.raises(JobInterruptedError, match="run the same command again to go on"):
        run(watcher=first)
    result = run(watcher=second)
    assert second.starts == [at]
    assert (result.first_step, result.steps, result.steps_now) == (at, 6, 6 - at)
    assert first.image_ids | second.image_ids == uninterrupted.image_ids
    assert second.losses == uninterrupted.losses[at:]
    assert same_tensors(load_student(photos[0], "small").segmenter, expected.segmenter)


def test_going_on_with_other_workers_sees_the_same_images(
    run: Run, photos: tuple[Store, Dataset], whole: tuple[Watcher, Student], tmp_path: Path
) -> None:
    """One worker takes 3 steps, two go on from step 2 and take 3, and one from step 4 ends it."""
    uninterrupted = whole[0].image_ids
    first, last = Watcher(stop_after=3), Watcher()
    with pytest.raises(JobInterruptedError):
        run(watcher=first)
    job, _ = prepare(photos[0], "photos", small_config(tmp_path, "train.micro_batch=1"))
    multiprocessing.start_processes(
        _one_of_two, (job, str(tmp_path)), nprocs=2, start_method="fork"
    )
    found = [json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in range(2)]
    assert read_checkpoint(photos[0], "small").lineage.step == 4
    for step in (2, 3):
        shares = [ids[str(step)] for ids in found]
        assert [*map(len, shares)] == [2, 2]
        assert {*shares[0], *shares[1]} == {*uninterrupted[step]}
    run(watcher=last)
    assert last.starts == [4]
    assert [last.image_ids[step] for step in (4, 5)] == [uninterrupted[4], uninterrupted[5]]


def _one_of_two(rank: int, job, folder: str) -> None:  # type: ignore[no-untyped-def]
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    watcher = Watcher(stop_after=5, stop=SystemExit(0))
    world = World(rank=rank, size=2)
    try:
        work(job, world=world, device=torch.device("cpu"), observer=watcher)
    except SystemExit:
        Path(folder, f"seen-{rank}").write_text(json.dumps(watcher.image_ids))
        dist.destroy_process_group()


def test_a_finished_run_has_nothing_to_do(run: Run) -> None:
    done = run("train.steps=1")
    watcher = Watcher()
    again = run("train.steps=1", watcher=watcher)
    assert (again.commit_id, again.steps, again.steps_now) == (done.commit_id, 1, 0)
    assert again.loss is None
    assert not watcher.starts


def test_how_the_work_is_done_may_change_but_not_what_comes_of_it(run: Run) -> None:
    with pytest.raises(JobInterruptedError):
        run(watcher=Watcher(stop_after=3))
    changed = "loss.points was 64, is 32; train.learning_rate was 0.0004, is 0.1"
    with pytest.raises(InputError, match=f"student 'small' is at step 2 .*{changed}.*--restart"):
        run("loss.points=32", "train.learning_rate=0.1")
    watcher = Watcher(stop_after=3)
    with pytest.raises(JobInterruptedError):
        run("train.micro_batch=4", "train.log_steps=1", "log.experiment=b", watcher=watcher)
    assert watcher.starts == [2]


def test_restart_begins_anew_and_what_was_there_stays_in_the_log(
    run: Run, photos: tuple[Store, Dataset]
) -> None:
    old = run("train.steps=1")
    watcher = Watcher(stop_after=1)
    with pytest.raises(JobInterruptedError):
        run("train.steps=2", watcher=watcher, restart=True)
    assert watcher.starts == [0]
    assert load_student(photos[0], "small").commit_id == old.commit_id  # until there is another
    new = run("train.steps=2", restart=True)
    assert new.first_step == 0
    before, now = (read_checkpoint(photos[0], ref) for ref in ("models/small@{1}", "small"))
    assert (before.commit_id, now.commit_id) == (old.commit_id, new.commit_id)
    assert before.lineage.run != now.lineage.run


def test_restart_takes_over_from_another_version(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("student.training.checkpoints.VERSION", 0)
        patched.setattr("student.checkpoint.VERSION", 0)
        run("train.steps=1")
    with pytest.raises(InputError, match="has version 0, expected 1"):
        run("train.steps=1")
    assert run("train.steps=1", restart=True).steps_now == 1
    assert run("train.steps=1").steps_now == 0


def test_what_is_to_be_run_again_does_not_begin_anew(run: Run) -> None:
    with pytest.raises(JobInterruptedError, match="the same command again without --restart to go"):
        run(watcher=Watcher(stop_after=3), restart=True)


def test_a_ref_that_moved_is_other_data(run: Run, photos: tuple[Store, Dataset]) -> None:
    store, dataset = photos
    with pytest.raises(JobInterruptedError):
        run(watcher=Watcher(stop_after=3))
    Refs(store).delete_branch("photos")
    moved = add_photos(store, "photos", 12).commit_id
    old, new = dataset.commit_id[:12], moved[:12]
    with pytest.raises(
        InputError, match=f"trained on commit {old}, not commit {new} .to go on, name"
    ):
        run()
    watcher = Watcher(stop_after=3)
    with pytest.raises(JobInterruptedError):
        run(ref=dataset.commit_id, watcher=watcher)
    assert watcher.starts == [2]


def test_a_run_goes_on_in_a_copy_of_its_store(
    run: Run, photos: tuple[Store, Dataset], tmp_path: Path
) -> None:
    with pytest.raises(JobInterruptedError):
        run(watcher=Watcher(stop_after=3))
    shutil.copytree(tmp_path / "store", tmp_path / "moved")
    options = TrainOptions(inline=True, run_folder=str(tmp_path / "run"), is_quiet=True)
    moved = Store(str(tmp_path / "moved"))
    result = train(moved, "photos", small_config(tmp_path), options=options)
    assert (result.first_step, result.steps) == (2, 6)
    assert Commit.load(moved, result.commit_id).parents == (photos[1].commit_id,)


def test_names_that_are_no_students(run: Run, photos: tuple[Store, Dataset]) -> None:
    store, dataset = photos
    with pytest.raises(RefError, match=r"outcome of 'test'; the students of .* are: none; train"):
        load_student(store, "photos")
    with pytest.raises(RefError, match=r"no branch, tag or commit 'photo' .*nearest is 'photos'"):
        run(ref="photo")
    Refs(store).create_branch("models/taken", dataset.commit_id)
    with pytest.raises(InputError, match=r"--name taken: commit .* is no checkpoint but the out"):
        run("name=taken")
    run("train.steps=1")
    with pytest.raises(RefError, match=r"the students of .* are: small, taken"):
        load_student(store, "photos")
    with pytest.raises(RefError, match="name"):
        run("name=a..b")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    run: Run, photos: tuple[Store, Dataset], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"step \d: expected finite numbers, got .* from images"):
        run("train.learning_rate=1e30", "train.clip_norm=0", "train.checkpoint_steps=1")
    [folder] = (tmp_path / "run").glob("bad-step-*")
    assert [path.name for path in sorted(folder.iterdir())] == [
        "batch-0.safetensors", "batch-1.safetensors",
    ]  # fmt: skip
    assert read_checkpoint(photos[0], "small").lineage.step >= 1


def test_a_second_run_of_the_same_name_is_stopped(run: Run, photos: tuple[Store, Dataset]) -> None:
    class Rival(Watcher):
        def took(self, outcome, *, seconds: float) -> None:  # type: ignore[no-untyped-def]
            if outcome.step == 0:
                run("train.steps=1", "train.learning_rate=0.5", folder="rival")

    with pytest.raises(CommitConflictError, match="branch 'models/small' moved"):
        run(watcher=Rival())


def test_a_second_run_in_the_same_folder_is_refused_and_cuts_no_log(
    run: Run, tmp_path: Path
) -> None:
    refused: list[str] = []

    class Rival(Watcher):
        def took(self, outcome, *, seconds: float) -> None:  # type: ignore[no-untyped-def]
            if outcome.step == 2:
                with pytest.raises(JobError) as error:
                    run("name=rival")
                refused.append(str(error.value))

    run(watcher=Rival())
    assert "another training is at work in" in refused[0]
    run("name=rival", "train.steps=1")  # the folder is free again


def test_each_run_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores may have a student of the same name, which is `student` unless somebody says."""
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache-of-all"))
    options = TrainOptions(inline=True, is_quiet=True)
    folders = []
    for place in ("one", "two"):
        store, _ = small_store(tmp_path / place)
        for steps in (1, 1):
            config = small_config(tmp_path, f"train.steps={steps}", "train.log_steps=1")
            folders.append(Path(train(store, "photos", config, options=options).run_folder))
    assert folders[0] == folders[1] != folders[2] == folders[3]
    for folder in folders:
        assert folder.parent == tmp_path / "cache-of-all" / "runs"
        assert len(read_json_lines(folder / FILE_NAME)) == 1


def test_the_log_has_each_step_once_although_the_run_was_stopped(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        run("train.batch=0")
    run("train.steps=4", "train.log_steps=1")
    lines = read_json_lines(tmp_path / "run" / FILE_NAME)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["loss"] > 0 for line in lines)


def test_sizes_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    store, _ = small_store(tmp_path, num_images=1)
    config = small_config(tmp_path, "train.workers=3")
    with pytest.raises(InputError, match=r"--inline has one worker, got train.workers 3"):
        train(store, "no-such-ref", config, options=TrainOptions(inline=True))
    with pytest.raises(InputError, match="expected a multiple of the 3 training processes, got 4"):
        train(store, "no-such-ref", config)


def test_settings_that_no_worker_could_work_with_are_refused_before_there_is_one(
    photos: tuple[Store, Dataset], tmp_path: Path
) -> None:
    for words, message in (
        ("model.backbone.weights=no-such-file", "backbone.weights: there is no file"),
        ("model.backbone.name=nothing", "backbone.name: expected mobile_sam or a model of timm"),
        ("data.human_weight=0", "no image with a mask is left to train on: each has weight 0"),
    ):
        with pytest.raises((InputError, WeightsError), match=message):
            prepare(photos[0], "photos", small_config(tmp_path, words))


def test_folders_that_cannot_be_made(photos: tuple[Store, Dataset], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    config = small_config(tmp_path, f"data.cache_folder={file / 'cache'}")
    with pytest.raises(InputError, match=r"data.cache_folder: expected a folder that can be w"):
        prepare(photos[0], "photos", config)
    options = TrainOptions(inline=True, run_folder=str(file / "run"))
    with pytest.raises(InputError, match=r"--run-folder: expected a folder that can be written"):
        train(photos[0], "photos", small_config(tmp_path), options=options)
    options = TrainOptions(inline=True, run_folder=str(tmp_path / "run"))
    config = small_config(tmp_path, f"log.tensorboard={json.dumps(str(file))}")
    with pytest.raises(InputError, match=r"log.tensorboard: expected a folder that can be written"):
        train(photos[0], "photos", config, options=options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train.milestones=[88, 96]", "train.milestones: expected from 0 to 1, got 88"),
        ("train.milestones=[0.9, 0.8]", "train.milestones: expected rising shares"),
        ("train.seed=99999999999999999999", "train.seed: expected from 0 to"),
    ],
)
def test_numbers_that_mean_nothing(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        small_config(tmp_path, words)


def test_another_architecture_or_text_encoder_is_named(
    run: Run, photos: tuple[Store, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("train.steps=1")
    import student.checkpoint as module

    read = module.parse_checkpoint

    def other_model(commit_id: str, store: Store):  # type: ignore[no-untyped-def]
        found = read(commit_id, store)
        transformer = replace(found.config.model.transformer, feedforward=16)
        model = replace(found.config.model, transformer=transformer)
        config: StudentConfig = replace(found.config, model=model)
        return replace(found, config=config)

    monkeypatch.setattr(module, "parse_checkpoint", other_model)
    with pytest.raises(InputError, match="of another architecture, or of another version"):
        load_student(photos[0], "small")

    def other_text(commit_id: str, store: Store):  # type: ignore[no-untyped-def]
        found = read(commit_id, store)
        text = {**found.lineage.text, "version": "0"}
        return replace(found, lineage=replace(found.lineage, text=text))

    monkeypatch.setattr(module, "parse_checkpoint", other_text)
    with pytest.raises(InputError, match=r"expected the text encoder .*version 0, got .*version 1"):
        load_student(photos[0], "small")


@pytest.fixture
def maskmill(capsys: pytest.CaptureFixture[str]) -> Maskmill:
    return command_line(capsys)


def test_command_line(maskmill: Maskmill, photos: tuple[Store, Dataset], tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    words = _settings(tmp_path)
    config.write_text('name = "small"\nsize = "tiny"\n')
    where = ("--store", photos[0].url, "--config", config, "--run-folder", tmp_path / "run")
    call = ("train", "photos", *where, *words, "--inline")
    first = maskmill(*call, "--name", "shoes", "--json")
    assert first.code == 0
    assert (first.json["steps"], first.json["branch"]) == (2, "models/shoes")
    again = maskmill(*call, "--name", "shoes")
    assert again.code == 0
    assert "nothing to do: 'shoes' has taken all of its 2 steps" in again.err
    other = maskmill(*call, "--name", "shoes", "--set", "train.seed=1", "--json")
    assert other.code == 3
    assert "train.seed was 0, is 1" in other.json["error"]["message"]
    dated = maskmill(*call, "--name", "2025-01-01", "--json")
    assert (dated.code, dated.json["branch"]) == (0, "models/2025-01-01")
    both = maskmill(*call, "--name", "both", "--workers", "2")
    assert (both.code, "--inline has one worker, got train.workers 2" in both.err) == (3, True)
    anew = maskmill(*call, "--name", "shoes", "--set", "train.seed=1", "--restart")
    assert "took 2 steps" in anew.out
    assert maskmill("train", "nothing", *where, *words, "--inline").code == 5


def _settings(folder: Path) -> list[str]:
    words = [*SMALL[1:], "train.steps=2", f"data.cache_folder={folder / 'cache'}"]
    return [text for word in words for text in ("--set", word)]
