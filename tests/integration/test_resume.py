"""Killed at any moment and started again, a job redoes only unfinished work and ends the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from manifests.dataset import Dataset
from manifests.store import Store

NUM_IMAGES = 60
SHARD_IMAGES = 5


def maskmill(*arguments: str, **popen: object) -> subprocess.Popen[bytes]:
    """Starts the real command."""
    command = [str(Path(sys.executable).with_name("maskmill")), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **popen
    )  # type: ignore[call-overload]


def finish(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err.decode()[-2000:]
    return out.decode()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs on noise with a box around each: enough for GrabCut to have something to do."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir()
    for number in range(1, NUM_IMAGES + 1):
        pixels = rng.integers(60, 120, (160, 200, 3), dtype=np.uint8)
        x, y = int(rng.integers(20, 100)), int(rng.integers(20, 80))
        pixels[y : y + 50, x : x + 60] = rng.integers(180, 250, (50, 60, 3))
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 160, "width": 200})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, 60, 50]}
        annotations.append(box)
    document = {
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "blob"}],
    }  # fmt: skip
    (folder / "boxes.json").write_text(json.dumps(document))
    return folder


def ingest(photos: Path, store: Path, *more: str) -> tuple[str, ...]:
    return (
        "ingest", "coco", str(photos / "boxes.json"), str(photos / "images"),
        "--store", str(store), "--shard-images", str(SHARD_IMAGES), *more,
    )  # fmt: skip


def cells(store: Path) -> list[tuple[str, str, str]]:
    """What a dataset is made of, byte for byte: cells are named by their content."""
    manifest = Dataset.open(Store(str(store))).manifest
    return [(cell.shard, cell.layer, cell.object_id) for cell in manifest]


def num_results(store: Path) -> int:
    return len(list(store.glob("results/*/*")))


def kill_during(store: Path, arguments: tuple[str, ...], *, after_results: int) -> None:
    """SIGKILL once that many more results are there; what it started must die with it."""
    before = num_results(store)
    process = maskmill(*arguments)
    family = []
    for _ in range(1200):
        if num_results(store) >= before + after_results or process.poll() is not None:
            break
        time.sleep(0.05)
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    # Ray's own agents take about a minute to notice; nothing that works or listens may outlive us.
    agents = [member for member in family if "Agent" in name_of(member)]
    _, alive = psutil.wait_procs(set(family) - set(agents), timeout=60)
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()
    assert not alive


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The cells of an uninterrupted run."""
    store = tmp_path_factory.mktemp("uninterrupted") / "store"
    finish(maskmill("init", "--store", str(store)))
    finish(maskmill(*ingest(photos, store, "--inline")))
    finish(maskmill("label", "grabcut", "--store", str(store), "--inline"))
    return cells(store)


def test_ingest_and_label_killed_twice_in_a_row_on_ray(
    photos: Path, tmp_path: Path, expected: list[tuple[str, str, str]]
) -> None:
    store = tmp_path / "store"
    finish(maskmill("init", "--store", str(store)))
    for after_results in (2, 3):
        kill_during(store, ingest(photos, store), after_results=after_results)
    finish(maskmill(*ingest(photos, store)))
    label = ("label", "grabcut", "--store", str(store), "--workers", "2", "--cpus-per-worker", "1")
    for after_results in (2, 3):
        kill_during(store, label, after_results=after_results)
    done = num_results(store)
    stamps = {path: path.stat().st_mtime_ns for path in store.glob("results/*/*")}
    finish(maskmill(*label))
    assert cells(store) == expected
    assert num_results(store) >= done
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_label_killed_at_random_moments(
    photos: Path, tmp_path: Path, expected: list[tuple[str, str, str]]
) -> None:
    store = tmp_path / "store"
    finish(maskmill("init", "--store", str(store)))
    finish(maskmill(*ingest(photos, store, "--inline")))
    label = ("label", "grabcut", "--store", str(store), "--inline")
    rng = random.Random(7)
    for _ in range(4):
        process = maskmill(*label)
        time.sleep(rng.uniform(0.8, 2.5))
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
        Dataset.open(Store(str(store)))  # a reader sees a whole commit at any moment
    if process.returncode:
        finish(maskmill(*label))
    assert cells(store) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    store = tmp_path / "store"
    finish(maskmill("init", "--store", str(store)))
    finish(maskmill(*ingest(photos, store, "--inline")))
    before = num_results(store)
    process = maskmill("label", "grabcut", "--store", str(store), "--inline")
    for _ in range(600):
        if num_results(store) > before:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"run the same command again" in err
    assert b"Traceback" not in err
