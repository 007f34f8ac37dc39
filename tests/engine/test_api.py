"""The Python API: what it offers, that it is light to import, and that it does the whole chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import api


def test_all_names_every_public_member_once() -> None:
    public = {
        name
        for name, member in vars(api).items()
        if not name.startswith("_") and not isinstance(member, ModuleType)
    }
    public -= {"annotations", "Path", "DEFAULT_BRANCH", "Refs", "history", "write_report"}
    public -= {"create_branch", "create_tag"}
    assert set(api.__all__) == public
    assert len(api.__all__) == len(set(api.__all__))


def test_every_error_is_offered() -> None:
    from manifests import errors

    tree = {
        name
        for name, member in vars(errors).items()
        if isinstance(member, type) and issubclass(member, errors.MaskmillError)
    }
    internal = {"LedgerImbalanceError"}  # a bug of ours, which nobody should catch
    assert tree - set(api.__all__) == internal


def test_importing_it_imports_neither_torch_nor_ray() -> None:
    code = "import sys, engine.api; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not {"torch", "ray", "cv2", "rich", "typer"} & set(done.stdout.split())


def test_the_whole_chain_in_python(photos: Any, tmp_path: Path) -> None:
    photos.add("a.jpg", [10, 5, 20, 30], [1, 2, 3, 4])
    store = api.Store(str(tmp_path / "st"))
    api.init(store)
    api.ingest(store, photos.config())
    here = api.PoolConfig(executor="inline")
    api.label(store, api.LabelConfig(teacher="box", pool=here))
    policy = api.Policy(name="p", teachers=("box",), rules={"min_area_px": 50})
    commit_id = api.filter_masks(store, api.FilterConfig(policy=policy))
    with pytest.raises(api.NothingToCommitError):
        api.filter_masks(store, api.FilterConfig(policy=policy))
    assert api.tag(store, "v1") == commit_id
    assert api.branch(store, "exp", "v1~1") == api.log(store)[1].commit_id
    assert api.tags(store) == {"v1": commit_id}
    assert set(api.branches(store)) == {"main", "exp"}
    dataset = api.show(store, "v1")
    assert api.stats(dataset).num_boxes == 2
    assert [table["reason"].to_pylist() for table in api.rejects(dataset)] == [["too_small"]]
    assert api.export(dataset, str(tmp_path / "out"), format="coco").num_annotations == 1
    assert api.report(dataset, tmp_path / "page.html").num_photos == 1
    assert api.log(store, "exp")[0].commit.operation.name == "label"


def test_versions_in_python(photos: Any, tmp_path: Path) -> None:
    photos.add("a.jpg", [10, 5, 20, 30], [1, 2, 3, 4])
    photos.add("b.jpg", [10, 5, 20, 30])
    store = api.Store(str(tmp_path / "st"))
    api.init(store)
    api.branch(store, "side")
    api.ingest(store, photos.config())
    here = api.PoolConfig(executor="inline")
    api.label(store, api.LabelConfig(teacher="box", pool=here))
    assert api.merge_into(store, "side", "main").outcome == "fast_forward"
    found = api.find_images(api.show(store), api.Wanted(file_names=("b.jpg",)))
    api.take_down(store, "main", found, reason="asked")
    assert api.diff(api.show(store, "main~1"), api.show(store)).images.removed == 1
    assert api.collect_garbage(store).num_taken_down == 0  # `side` still shows it
    api.merge_into(store, "side", "main")
    assert api.collect_garbage(store).num_taken_down == 1
    assert api.reproduce(store, "main").is_same
    copy = api.Store(str(tmp_path / "copy"))
    assert api.clone(store, copy).num_withheld == 1
    assert api.fsck(copy, api.FsckOptions(full=True)).is_sound
    assert api.checkout(api.show(copy), tmp_path / "out", ref="main").num_images == 1
    with api.SqlSession(api.show(copy)) as session:
        assert session.query("select count(*) as n from boxes").head(1).to_pylist() == [{"n": 2}]
    assert [todo.command for todo in api.status(api.show(copy)).todo] == ["maskmill filter"]


def test_a_whole_job_in_python(photos: Any, tmp_path: Path) -> None:
    photos.add("a.jpg", [10, 5, 20, 30])
    job = api.JobConfig(
        store=str(tmp_path / "st"),
        source=(photos.config().source,),
        label=(api.LabelSettings(teacher="box"),),
        pool=api.PoolConfig(executor="inline"),
    )
    assert [step.is_new for step in api.run(job).steps] == [True, True]


def test_teachers_and_weights() -> None:
    found = {status.name: status for status in api.teachers()}
    assert found["box"].is_available
    assert found["box"].weights is None
    names = {status.file.name for status in api.weights()}
    assert {status.weights for status in found.values()} - {None} <= names
