"""A student whose data and checkpoints are in a bucket of a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.dataset import init
from manifests.errors import JobInterruptedError
from manifests.store import Store
from student.checkpoint import load_student
from student.train import TrainOptions, train
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
