"""The same inputs and settings give the same contents anywhere, and commits record them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.again import Again, ReproduceConfig
from engine.ingest import ingest
from engine.label import LabelConfig, label, plan_label
from engine.label_worker import LabelWorker
from engine.pool import PoolConfig
from engine.remake import ingest_config, label_config
from engine.reproduce import reproduce
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.refs import Refs
from manifests.results import find_result
from manifests.store import Store
from teachers.box import BoxTeacher
from teachers.protocol import TeacherIdentity
from tests.engine.chain import (
    HERE,
    INLINE,
    ROOT,
    chain_on,
    files,
    fill,
    other_photo,
)
from tests.engine.conftest import PhotoSet


@pytest.fixture
def head(store: Store, photos: PhotoSet) -> str:
    """The last commit of a chain on `main`."""
    return chain_on(store, fill(photos))


class TestMachines:
    """What a machine chose by itself the first time is asked for the second time."""

    def config(self, store: Store, head: str, *machines: Mapping[str, str | int]) -> LabelConfig:
        commit = Commit.load(store, Refs(store).resolve("main~1"))
        settings = {"teacher": "sam_vit_t", "teacher_config": {"box_batch": 3}, "image_batch": 5}
        made = replace(
            commit.operation, config=settings, machines=machines,
            teacher={"config": {"precision": "float32"}},
        )  # fmt: skip
        again = Again(
            store=store, commit_id=head, commit=replace(commit, operation=made), base=None,
            config=HERE,
        )  # fmt: skip
        return label_config(again)

    def test_threads_and_batches_are_those_of_the_first_time(self, store: Store, head: str) -> None:
        cpu = {"device": "cpu", "instructions": "AVX512", "num_threads": 7, "box_batch": 2}
        found = self.config(store, head, cpu)
        assert found.teacher_config == {
            "precision": "float32", "box_batch": 2, "device": "cpu", "num_threads": 7,
        }  # fmt: skip
        assert found.image_batch == 5

    def test_a_gpu_is_not_asked_for_and_of_two_machines_nothing(
        self, store: Store, head: str
    ) -> None:
        gpu = {"device": "cuda", "gpu": "X", "image_batch": 8, "box_batch": 64}
        assert self.config(store, head, gpu).teacher_config == {
            "precision": "float32", "box_batch": 64, "image_batch": 8,
        }  # fmt: skip
        both = self.config(store, head, gpu, {"device": "cpu"})
        assert both.teacher_config == {"precision": "float32", "box_batch": 3}


class BoundBoxes(BoxTeacher):
    """Says that it depends on the machine."""

    machine: ClassVar[dict[str, str | int]] = {"device": "cpu", "num_threads": 3}


def test_a_commit_says_which_machines_drew_what_is_new_in_it(
    store: Store, photos: PhotoSet, more_photos: PhotoSet
) -> None:
    """Not those that ask, but those that did the work, perhaps long before and elsewhere."""

    def drawn(dataset: Dataset) -> Commit:
        identity = TeacherIdentity(name="box", version=1)
        for payload in plan_label(dataset, "box", asdict(identity)):
            if not find_result(store, payload.work_key):
                LabelWorker(store, teachers.pop(0)).run(payload)
        return Commit.load(store, label(store, LabelConfig(teacher="box", pool=INLINE)))

    teachers = [BoundBoxes(), BoundBoxes(), BoxTeacher()]
    photos.add("a.jpg", [10, 5, 20, 30])
    photos.add("b.jpg", [10, 5, 20, 30])
    first = drawn(Dataset(store, ingest(store, replace(photos.config(), shard_images=1))))
    assert first.operation.machines == ({"device": "cpu", "num_threads": 3},)
    more_photos.add("new.jpg", [2, 2, 20, 20], content=other_photo())
    second = drawn(Dataset(store, ingest(store, more_photos.config("second"))))
    assert second.operation.machines == ()


def test_all_of_the_configuration_is_recorded(store: Store, photos: PhotoSet) -> None:
    photos.add("a.jpg", [10, 5, 20, 30])
    wanted = replace(photos.config(min_sharpness=1.5), shard_images=7, shard_bytes=10**6)
    commit_id = ingest(store, wanted)
    labelled = label(
        store, LabelConfig(teacher="grabcut", teacher_config={"iterations": 1}, image_batch=3,
                           retry_failed=True, pool=INLINE)
    )  # fmt: skip
    again = [
        Again(store=store, commit_id=name, commit=Commit.load(store, name), base=None, config=HERE)
        for name in (commit_id, labelled)
    ]
    assert ingest_config(again[0]) == wanted
    found = label_config(again[1])
    assert (found.image_batch, found.retry_failed) == (3, True)
    assert found.teacher_config["iterations"] == 1


_ELSEWHERE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.ingest_config import IngestConfig
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.commit import Commit
from manifests.dataset import init
from manifests.store import Store
from dataclasses import asdict

if __name__ == "__main__":
    url, photos, pool = sys.argv[1], sys.argv[2], PoolConfig(**json.loads(sys.argv[3]))
    store = Store(url)
    init(store)
    source = SourceConfig(format="coco", annotations=f"{photos}/boxes.json",
                          images=f"{photos}/images", name="set")
    made = [ingest(store, IngestConfig(source=source, shard_images=2, pool=pool))]
    for teacher in ("box", "grabcut"):
        made.append(label(store, LabelConfig(teacher=teacher, pool=pool)))
    policy = Policy(name="test", teachers=("grabcut", "box"), rules={"min_box_iou": 0.5})
    made.append(filter_masks(store, FilterConfig(policy=policy)))
    found = []
    for commit_id in made:
        commit = Commit.load(store, commit_id)
        found.append([commit.manifest, commit.rejects, asdict(commit.ledger),
                      [asdict(category) for category in commit.categories]])
    print(json.dumps(found))
"""


def made_elsewhere(
    folder: Path, photos: str, *, pool: Mapping[str, Any], threads: int, **environment: str
) -> Any:
    """Manifest, rejects, ledger and categories of each commit of a chain made in a new process."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, "a store", photos, json.dumps(pool)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads),
             "OPENBLAS_NUM_THREADS": str(threads), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_machine_makes_the_same_contents(photos: PhotoSet, tmp_path: Path) -> None:
    """Other path, other folder to stand in, hash seed, threads, time zone, locale, CPU features."""
    import shutil

    fill(photos).config()
    here = made_elsewhere(
        tmp_path / "here", "../photos", pool={"executor": "inline"}, threads=1, PYTHONHASHSEED="1",
        TZ="UTC", LC_ALL="C.UTF-8",
    )  # fmt: skip
    elsewhere = tmp_path / "another place" / "copied photos"
    shutil.copytree(photos.folder, elsewhere, symlinks=True)
    there = made_elsewhere(
        tmp_path / "a folder with a longer name", str(elsewhere), pool={"executor": "inline"},
        threads=3, PYTHONHASHSEED="4242", TZ="Pacific/Auckland", LC_ALL="C",
        OPENCV_CPU_DISABLE="AVX512-SKX,AVX2",
        NPY_DISABLE_CPU_FEATURES="AVX512_SKX AVX512F AVX512CD",
    )  # fmt: skip
    assert here == there
    assert here[0][1]  # rejects, which once held memory addresses and paths


@pytest.mark.slow
def test_workers_on_ray_make_the_same_contents_and_keep_their_records_apart(
    store: Store, photos: PhotoSet
) -> None:
    head = chain_on(store, fill(photos))
    before = files(store)
    on_ray = ReproduceConfig(pool=PoolConfig(workers=2, cpus_per_worker=1))
    for ref in (f"{head}~3", f"{head}~1"):
        assert reproduce(store, ref, on_ray).is_same
    assert files(store) == before
