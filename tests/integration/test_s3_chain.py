"""The whole chain against a real S3 server, with images in the bucket too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO


@pytest.fixture
def maskmill() -> Callable[..., Any]:
    """Runs the real command with --json and returns what it printed."""

    def run(*arguments: str, code: int = 0) -> Any:
        command = [str(Path(sys.executable).with_name("maskmill")), *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, timeout=240, check=False)
        assert done.returncode == code, done.stderr.decode()[-2000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture
def photos_url(s3_url: str) -> str:
    """A few pictures and their COCO JSON in the bucket."""
    rng = np.random.default_rng(1)
    document: dict[str, list[Any]] = {
        "images": [], "annotations": [], "categories": [{"id": 3, "name": "square"}],
    }  # fmt: skip
    filesystem = fsspec.filesystem("s3")
    for number in range(1, 7):
        pixels = rng.integers(20, 90, (120, 90, 3), dtype=np.uint8)
        pixels[30:80, 20:60] = rng.integers(200, 250, (50, 40, 3))
        with filesystem.open(f"{s3_url}-photos/images/{number}.png", "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        document["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": 120, "width": 90}
        )
        document["annotations"].append(
            {"id": number, "image_id": number, "category_id": 3, "bbox": [20, 30, 40, 50]}
        )
    filesystem.pipe_file(f"{s3_url}-photos/boxes.json", json.dumps(document).encode())
    return f"{s3_url}-photos"


def test_the_whole_chain_on_s3(
    s3_url: str, photos_url: str, maskmill: Callable[..., Any], tmp_path: Path
) -> None:
    store = ("--store", f"{s3_url}/store")
    maskmill("init", *store)
    source = ("coco", f"{photos_url}/boxes.json", f"{photos_url}/images")
    ingested = maskmill("ingest", *source, *store, "--shard-images", "3")
    assert ingested["is_new"]
    labelled = maskmill("label", "grabcut", *store)
    [entry] = labelled["ledger"]
    assert (entry["inputs"], entry["kept"]) == (6, 6)
    maskmill("filter", *store, "--set", 'teachers=["grabcut"]')
    maskmill("tag", "first", *store)
    maskmill("export", "coco", str(tmp_path / "out"), *store, "--ref", "first")
    coco = COCO(str(tmp_path / "out" / "instances.json"))
    assert len(coco.anns) == 6
    mask = coco.annToMask(coco.anns[1])
    truth = np.zeros((120, 90), bool)
    truth[30:80, 20:60] = True
    assert (mask.astype(bool) & truth).sum() / (mask.astype(bool) | truth).sum() > 0.9
    log = maskmill("log", *store)
    assert [commit["operation"]["name"] for commit in log] == ["filter", "label", "ingest", "init"]
    again = maskmill("label", "grabcut", *store, "--inline")
    assert not again["is_new"]


def test_exit_codes_on_s3(s3_url: str, maskmill: Callable[..., Any]) -> None:
    body = maskmill("log", "--store", f"{s3_url}/nothing", code=4)
    assert "maskmill init" in body["error"]["message"]
    bucket = s3_url.split("/")[2]
    body = maskmill("init", "--store", s3_url.replace(bucket, "no-such-bucket"), code=4)
    assert "bucket" in body["error"]["message"]
