"""What a commit needs to be made again: all of it is listed, and old commits say what they can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifests.commit import Commit, ExternalInput, Operation
from manifests.dataset import init, operation
from manifests.digest import canonical_json, sha256_hex
from manifests.lineage import Need, needed
from manifests.manifest import Manifest
from manifests.store import Store

_SHA = "ab" * 32
_SOURCE = {"format": "coco", "annotations": "boxes.json", "images": "photos", "options": {"a": 1}}


def commit(made: Operation, **fields: Any) -> Commit:
    values = {"parents": ("1" * 64,), "manifest": "2" * 64, "author": "me", "message": "",
              "time": "2026-11-23T20:00:00Z"}  # fmt: skip
    return Commit(operation=made, **(values | fields))  # type: ignore[arg-type]


def found(needs: tuple[Need, ...], kind: str) -> dict[str, str]:
    return {need.name: need.value for need in needs if need.kind == kind}


def test_an_ingest_lists_its_files_settings_and_code() -> None:
    inputs = {"annotations": ExternalInput(url="/data/boxes.json", sha256=_SHA, num_bytes=1234)}
    made = operation(
        "ingest", version=3, config={"source": _SOURCE, "policy": {"min_sharpness": 3.0}},
        packages=("pillow",), inputs=inputs,
    )  # fmt: skip
    needs = needed(commit(made, base="3" * 64, parents=("1" * 64, "4" * 64)))
    assert found(needs, "commit") == {
        "parent": "1" * 64, "parent 2": "4" * 64, "base": "3" * 64,
    }  # fmt: skip
    assert found(needs, "input") == {
        "annotations": "/data/boxes.json (1 file, 1,234 bytes)", "images": "photos",
    }  # fmt: skip
    assert [need.sha256 for need in needs if need.name == "annotations"] == [_SHA]
    assert found(needs, "setting") == {
        "source.format": '"coco"', "source.annotations": '"boxes.json"',
        "source.images": '"photos"', "source.options.a": "1", "policy.min_sharpness": "3.0",
    }  # fmt: skip
    assert found(needs, "operation") == {"ingest": "version 3"}
    assert {"maskmill", "pyarrow", "pillow"} <= set(found(needs, "package"))
    assert not found(needs, "machine")


def test_a_label_lists_teacher_weights_and_machines() -> None:
    teacher = {"name": "sam", "version": 2, "weights_sha256": _SHA, "config": {"precision": "f"}}
    made = operation(
        "label", version=1, config={"teacher": "sam", "teacher_config": {}}, teacher=teacher,
        machines=({"device": "cpu", "num_threads": 2}, {"device": "cuda"}),
    )  # fmt: skip
    needs = needed(commit(made))
    assert found(needs, "teacher") == {"sam": "version 2"}
    assert found(needs, "weights") == {"sam": _SHA}
    assert found(needs, "setting") == {"sam.precision": '"f"', "teacher": '"sam"'}
    assert found(needs, "machine") == {"1": "device cpu, num_threads 2", "2": "device cuda"}


def test_the_first_commit_needs_no_parent(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    needs = needed(Commit.load(store, init(store)))
    assert {need.kind for need in needs} == {"operation", "package"}


@pytest.mark.parametrize("later", ["inputs", "machines"])
def test_fields_that_came_later_leave_old_commits_as_they_were(tmp_path: Path, later: str) -> None:
    """An old commit has the bytes it always had, and is read with nothing in them."""
    store = Store(str(tmp_path))
    old = commit(operation("label", version=1, config={}), manifest=Manifest().save(store))
    data = store.get_bytes(old.save(store))
    assert later not in json.loads(data)["operation"]
    assert "base" not in json.loads(data)
    read = Commit.load(store, sha256_hex(data))
    assert (read.operation.inputs, read.operation.machines, read.base) == ({}, (), None)


def test_fields_that_came_later_are_read_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = operation(
        "ingest", version=1, config={}, machines=({"device": "cpu"},),
        inputs={"annotations": ExternalInput(url="a", sha256=_SHA, num_files=3)},
    )  # fmt: skip
    written = replace(commit(made), base="3" * 64)
    read = Commit.load(store, written.save(store))
    assert canonical_json(read) == canonical_json(written)
    assert read.operation.inputs == made.inputs
    assert read.operation.machines == ({"device": "cpu"},)
