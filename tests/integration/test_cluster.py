"""An existing Ray cluster of several nodes, one of which dies in the middle of the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.ray_session import ENVIRONMENT, LOOPBACK_ENVIRONMENT
from manifests.dataset import Dataset
from manifests.store import Store

MASKMILL = str(Path(sys.executable).with_name("maskmill"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A head without CPUs and two workers of one CPU each, on 127.0.0.1."""
    for name, value in (ENVIRONMENT | LOOPBACK_ENVIRONMENT).items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    impatient = {
        "health_check_initial_delay_ms": 500,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": impatient}
    )
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Forty noisy pictures, five a shard, ingested."""
    rng = np.random.default_rng(0)
    document: dict[str, list[object]] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "blob"}],
    }  # fmt: skip
    (tmp_path / "images").mkdir()
    for number in range(1, 41):
        pixels = rng.integers(60, 120, (400, 500, 3), dtype=np.uint8)
        pixels[100:300, 100:380] += 90
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        document["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": 400, "width": 500}
        )
        document["annotations"] += [
            {"id": 10 * number + k, "image_id": number, "category_id": 1,
             "bbox": [100 - k, 100 - k, 280 + 2 * k, 200 + 2 * k]}
            for k in range(5)
        ]  # fmt: skip
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    store = tmp_path / "store"
    run("init", "--store", str(store))
    run(
        "ingest", "coco", str(tmp_path / "boxes.json"), str(tmp_path / "images"),
        "--store", str(store), "--shard-images", "5", "--inline",
    )  # fmt: skip
    return store


def run(*arguments: str) -> None:
    done = subprocess.run([MASKMILL, *arguments], capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.slow
def test_a_job_outlives_a_node(cluster: object, store: Path) -> None:
    """The dead node's shard is done by the other one; nothing fails, nothing is missing."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]  # type: ignore[attr-defined]
    before = len(list(store.glob("results/*/*")))
    job = subprocess.Popen(
        [
            MASKMILL, "label", "grabcut", "--store", str(store), "--workers", "2",
            "--cpus-per-worker", "1", "--ray-address", cluster.address,  # type: ignore[attr-defined]
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy(),
    )  # fmt: skip
    for _ in range(1200):
        if len(list(store.glob("results/*/*"))) > before:
            break
        time.sleep(0.05)
    assert job.poll() is None, job.communicate()
    cluster.remove_node(nodes[0], allow_graceful=False)  # type: ignore[attr-defined]
    _, err = job.communicate(timeout=200)
    assert job.returncode == 0, err.decode()[-3000:]
    dataset = Dataset.open(Store(str(store)))
    [entry] = dataset.commit.ledger.totals()
    assert (entry.layer, entry.inputs, entry.kept) == ("masks/grabcut", 200, 200)


def test_no_cluster_there_is_a_sentence(store: Path) -> None:
    done = subprocess.run(
        [MASKMILL, "label", "box", "--store", str(store), "--ray-address", "127.0.0.1:1"],
        capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 8
    assert b"no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert b"Traceback" not in done.stderr
