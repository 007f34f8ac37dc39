"""What is missing or has changed is said before a commit is made again."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from engine import label
from engine.reproduce import reproduce
from manifests import layout, schemas
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import (
    InputError,
    ObjectMissingError,
    WeightsError,
)
from manifests.refs import Refs
from manifests.store import Store
from manifests.takedown import take_down
from tests.engine.chain import (
    HERE,
    chain_on,
    fill,
    saved,
)
from tests.engine.conftest import PhotoSet


@pytest.fixture
def head(store: Store, photos: PhotoSet) -> str:
    """The last commit of a chain on `main`."""
    return chain_on(store, fill(photos))


class TestBeforehand:
    def test_weights_of_another_digest_are_refused(self, store: Store, head: str) -> None:
        commit_id = Refs(store).resolve("main~1")
        teacher = {**(Commit.load(store, commit_id).operation.teacher or {})}
        teacher["weights_sha256"] = "ab" * 32
        other = saved(store, commit_id, operation={"teacher": teacher})
        with pytest.raises(WeightsError, match=f"weights of SHA-256 {'ab' * 32}, but 'grabcut'"):
            reproduce(store, other, HERE)

    def test_damaged_weights_are_refused(
        self, store: Store, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from teachers import registry

        (tmp_path / "u2netp.onnx").write_bytes(b"not these")
        monkeypatch.setenv("MASKMILL_WEIGHTS", str(tmp_path))
        teacher = asdict(registry.identity("u2netp"))
        config = {"teacher": "u2netp", "teacher_config": {}}
        other = saved(
            store, Refs(store).resolve("main~1"),
            operation={"teacher": teacher, "config": config},
        )  # fmt: skip
        with pytest.raises(WeightsError, match=r"u2netp\.onnx has the wrong digest"):
            reproduce(store, other, HERE)

    def test_another_version_of_teacher_operation_and_code_is_only_told(
        self, store: Store, head: str
    ) -> None:
        commit_id = Refs(store).resolve("main~1")
        made = Commit.load(store, commit_id).operation
        code = {**made.code, "numpy": "0.1", "gone-package": "2"}
        teacher = {**(made.teacher or {}), "version": 0}
        machines = ({"device": "cuda", "gpu": "X"},)
        changes = {"version": 0, "code": code, "teacher": teacher, "machines": machines}
        older = saved(store, commit_id, operation=changes)
        found = reproduce(store, older, HERE)
        assert found.is_same
        version, packages, changed, machine = found.warnings
        assert f"version 0 of 'label', this is version {label.VERSION}" in version
        assert "numpy 0.1 (here " in packages
        assert "gone-package 2 (here none)" in packages
        assert "'grabcut' changed since: its version was 0, here it is 1" in changed
        assert "device cuda, gpu X, now on none" in machine

    @pytest.mark.parametrize("lost", ["boxes.json", "images"])
    def test_a_source_that_is_gone_is_one_sentence(
        self, store: Store, head: str, photos: PhotoSet, lost: str
    ) -> None:
        (photos.folder / lost).rename(photos.folder / "elsewhere")
        with pytest.raises(InputError, match=rf"no (file|such folder).*|{lost}"):
            reproduce(store, "main~3", HERE)
        moves = {str(photos.folder / lost): str(photos.folder / "elsewhere")}
        assert reproduce(store, "main~3", replace(HERE, moves=moves)).is_same

    def test_a_folder_is_moved_but_not_its_namesake(
        self, store: Store, head: str, photos: PhotoSet, tmp_path: Path
    ) -> None:
        moves = {str(photos.folder)[:-1]: "/nowhere"}
        assert reproduce(store, "main~3", replace(HERE, moves=moves)).is_same
        moved = photos.folder.rename(tmp_path / "new place")
        moves = {f"{photos.folder}/": str(moved)}
        assert reproduce(store, "main~3", replace(HERE, moves=moves)).is_same

    def test_a_missing_parent_is_told(self, store: Store, head: str) -> None:
        parent = Commit.load(store, head).parents[0]
        store.fs.rm_file(f"{store.root}/{layout.object_path(parent)}")
        with pytest.raises(ObjectMissingError, match=f"commit {parent[:12]} is missing"):
            reproduce(store, head, HERE)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": "polish"}, "made by 'polish', which this version cannot make again; it can"),
            ({"config": {"name": "x", "teachers": ["box"], "sieve": 3}}, "unknown key 'sieve'"),
            ({"name": "label", "config": {"teacher": "oracle"}}, "no teacher is called 'oracle'"),
            ({"name": "label", "config": {}}, "no teacher is called ''"),
            ({"name": "ingest", "config": {}}, "commit .*format"),
        ],
    )
    def test_what_this_version_does_not_know_is_refused(
        self, store: Store, head: str, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            reproduce(store, saved(store, head, operation=fields), HERE)

    def test_a_step_without_a_parent_is_refused(self, store: Store, head: str) -> None:
        with pytest.raises(InputError, match="has no parent to start from"):
            reproduce(store, saved(store, head, parents=()), HERE)

    def test_old_commits_are_made_again_with_defaults(self, store: Store, head: str) -> None:
        first, second = (Refs(store).resolve(ref) for ref in ("main~3", "main~1"))
        old_ingest = saved(store, first, operation={"inputs": {}})
        found = reproduce(store, old_ingest, HERE)
        assert found.is_same
        [warning] = found.warnings
        assert "does not say what digest its annotations had" in warning
        config = {"teacher": "grabcut", "teacher_config": {}}
        assert reproduce(store, saved(store, second, operation={"config": config}), HERE).is_same


class TestTakenDown:
    @pytest.fixture
    def shard(self, store: Store, head: str) -> str:
        """A shard of `head` whose first image was taken down later."""
        shard = Dataset(store, head).manifest.shards()[0]
        index = Dataset(store, head).table(shard, schemas.IMAGE_INDEX)
        image_id = index["image_id"][0].as_py()
        take_down(store, "main", {shard: [image_id]}, reason="not ours")
        return shard

    def test_no_ingest_brings_images_back(self, store: Store, head: str, shard: str) -> None:
        store.fs.rm_file(f"{store.root}/{layout.object_path(shard)}")
        with pytest.raises(ObjectMissingError, match=r"bring back what was taken down.*not ours"):
            reproduce(store, f"{head}~3", HERE)
        assert store.object_size(shard) is None

    def test_masks_need_the_images_and_verdicts_do_not(
        self, store: Store, head: str, shard: str
    ) -> None:
        assert reproduce(store, f"{head}~1", HERE).is_same  # no gc has been here yet
        store.fs.rm_file(f"{store.root}/{layout.object_path(shard)}")
        with pytest.raises(ObjectMissingError, match=r"cannot be drawn again.*not ours"):
            reproduce(store, f"{head}~1", HERE)
        assert reproduce(store, head, HERE).is_same
