"""Real workers under Ray Train, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from engine.ray_session import ray_session
from manifests.errors import JobError
from student.checkpoint import read_checkpoint
from student.config import TrainConfig
from student.train import TrainOptions, train
from student.training.step import StepOutcome
from student.training.worker_size import cpus_per_worker
from tests.student.small_run import Watcher, small_config, small_store


def _size(workers: int, *nodes: dict[str, float], grows: bool = False, **train: float) -> float:
    config = TrainConfig(workers=workers, batch=workers, **train)  # type: ignore[arg-type]
    return cpus_per_worker(config, nodes, may_grow=grows)


def test_workers_get_all_cpus_there_are_for_each() -> None:
    assert _size(2, {"CPU": 16}) == 8
    # 10 for each of three would leave room for one on each node only.
    assert _size(3, {"CPU": 16}, {"CPU": 16}) == 8
    assert _size(2, {"CPU": 16, "GPU": 1}, {"CPU": 8, "GPU": 1}, gpus_per_worker=1) == 8
    assert _size(4, {"CPU": 64, "GPU": 4}, gpus_per_worker=1, cpus_per_worker=6) == 6


def test_too_few_cpus_are_shared_or_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    assert _size(4, {"CPU": 2}) == 0.5
    assert "4 workers share CPUs: 0.50 for each" in caplog.text
    assert _size(4, {"CPU": 2}, grows=True) == 1
    assert "holds 2 of 4 workers of 1 CPUs and 0 GPUs; waiting for nodes" in caplog.text


def test_what_never_fits_is_refused() -> None:
    with pytest.raises(JobError, match=r"expected 2 workers of 1 CPUs and 1 GPUs, .* room for 1"):
        _size(2, {"CPU": 8, "GPU": 1}, gpus_per_worker=1)
    with pytest.raises(JobError, match=r"expected 1 workers of 9 CPUs and 0 GPUs, .* room for 0"):
        _size(1, {"CPU": 8}, cpus_per_worker=9, grows=True)


class _Killer(Watcher):
    """Kills a worker's process once, when it hears of a step."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after, self._is_done = after, False

    def took(self, outcome: StepOutcome, *, seconds: float) -> None:
        super().took(outcome, seconds=seconds)
        if outcome.step + 1 >= self._after and not self._is_done:
            self._is_done = True
            os.kill(_a_worker(), signal.SIGKILL)


def _a_worker() -> int:
    """Of this process's own Ray."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")")[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):  # it has just ended
            continue
    workers = [pid for pid, name in names.items() if name.startswith(b"ray::RayTrainWorker")]
    return max(pid for pid in workers if os.getpid() in _ancestors(pid, parents))


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found = set()
    while pid in parents:
        pid = parents[pid]
        found.add(pid)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_worker_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    store, _ = small_store(tmp_path)
    whole, watched = Watcher(), _Killer(after=5)
    settings = ("train.steps=30", "train.checkpoint_steps=4", "train.cpus_per_worker=1")
    quiet = TrainOptions(run_folder=str(tmp_path / "run"), is_quiet=True)
    two = small_config(tmp_path, *settings, "train.workers=2")
    with ray_session(""):
        result = train(store, "photos", two, options=quiet, session=ray_session, observer=watched)
    assert len(watched.starts) == 2
    assert watched.starts[1] >= 4
    assert watched.starts[1] % 4 == 0
    assert (result.steps, result.first_step) == (30, 0)
    inline = TrainOptions(inline=True, run_folder=str(tmp_path / "run"), is_quiet=True)
    one = small_config(tmp_path, *settings, "name=whole")
    train(store, "photos", one, options=inline, observer=whole)
    for step, image_ids in whole.image_ids.items():
        # The first worker's images, twice where a step was taken twice.
        seen = watched.image_ids[step]
        assert seen[:2] == seen[-2:] == image_ids[::2]
    assert read_checkpoint(store, "small").lineage.step == 30


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_would_fail_again_is_not_tried_again(tmp_path: Path) -> None:
    store, _ = small_store(tmp_path)
    watcher = Watcher()
    config = small_config(
        tmp_path, "train.workers=2", "train.learning_rate=1e30", "train.clip_norm=0"
    )
    quiet = TrainOptions(run_folder=str(tmp_path / "run"), is_quiet=True)
    with pytest.raises(JobError, match=r"expected finite numbers, got .* on "):
        train(store, "photos", config, options=quiet, session=ray_session, observer=watcher)
    assert watcher.starts == [0]
    assert {path.name[-1] for path in (tmp_path / "run").glob("bad-step-*")} == {"0", "1"}
