"""A student whose data and checkpoints are in a bucket of a real S3 server."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from manifests.dataset import init
from manifests.errors import JobInterruptedError
from manifests.store import Store
from student.checkpoint import load_student
from student.train import TrainOptions, train
from tests.conftest import S3Server
from tests.student.small_run import Watcher, add_photos, same_tensors, small_config, small_store


def test_a_run_in_a_bucket_is_stopped_goes_on_and_is_the_run_on_a_disk(
    s3_url: str, tmp_path: Path
) -> None:
    store = Store(s3_url)
    init(store)
    add_photos(store, "photos", 10)
    options = TrainOptions(inline=True, run_folder=str(tmp_path / "run"))
    config = small_config(tmp_path)
    stopped, resumed, whole = Watcher(stop_after=5), Watcher(), Watcher()
    with pytest.raises(JobInterruptedError):
        train(store, "photos", config, options=options, observer=stopped)
    result = train(store, "photos", config, options=options, observer=resumed)
    assert (result.first_step, result.steps) == (4, 6)
    local, _ = small_store(tmp_path)
    train(local, "photos", config, options=options, observer=whole)
    assert dict(stopped.image_ids | resumed.image_ids) == dict(whole.image_ids)
    assert same_tensors(
        load_student(store, "small").segmenter, load_student(local, "small").segmenter
    )


_SILENT_S = 60


class _Silencer(Watcher):
    """Stops the server's process in the middle of the run, and lets it go on after a minute."""

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self._group = os.getpgid(server.pid)
        self.timer = threading.Timer(_SILENT_S, self.wake)
        self.woke = False

    def took(self, outcome: Any, **more: Any) -> None:
        super().took(outcome, **more)
        if outcome.step == 0:
            os.killpg(self._group, signal.SIGSTOP)
            self.timer.start()

    def wake(self) -> None:
        self.woke = True
        os.killpg(self._group, signal.SIGCONT)


@pytest.mark.slow
def test_a_server_that_is_silent_for_a_minute_is_waited_for(
    s3_server: S3Server, s3_url: str, tmp_path: Path
) -> None:
    """Connections are taken and nothing is answered, neither to the loader nor to checkpoints."""
    store = Store(s3_url)
    init(store)
    add_photos(store, "photos", 10)
    options = TrainOptions(inline=True, run_folder=str(tmp_path / "run"))
    # Without a cache every image of every step is asked for.
    config = small_config(tmp_path, "data.cache_bytes=0", "train.steps=8")
    silencer = _Silencer(s3_server)
    try:
        result = train(store, "photos", config, options=options, observer=silencer)
        is_over = silencer.woke
    finally:
        silencer.timer.cancel()
        silencer.wake()
    assert (result.steps, silencer.starts) == (8, [0])
    assert silencer.checkpoints == [2, 4, 6, 8]
    assert is_over
    local, _ = small_store(tmp_path)
    train(local, "photos", config, options=options, observer=Watcher())
    assert same_tensors(
        load_student(store, "small").segmenter, load_student(local, "small").segmenter
    )
