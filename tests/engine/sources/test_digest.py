"""Digests of what a scan reads: what anybody can check, and what tells that anything changed."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

from engine.sources.digest import digests_of
from engine.sources.protocol import SourceConfig
from engine.sources.registry import FORMATS, open_source
from manifests.commit import ExternalInput
from manifests.errors import InputError

Write = Callable[..., Path]
XML = "<annotation><filename>a.jpg</filename></annotation>"
YAML = "path: .\ntrain: images/train\nval: val.txt\nnames: [cat]\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A dataset: what its scan reads, what else lies there, and which roles it has."""

    format: str
    annotations: str
    reads: dict[str, str]
    ignores: dict[str, str]
    roles: list[str]
    images: str = "images"
    options: dict[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()  # options that name a file


CASES = [
    Case(format="coco", annotations="boxes.json", reads={"boxes.json": "{}"},
         ignores={"other.json": "{}", "images/a.jpg": ""}, roles=["annotations"]),
    Case(format="lvis", annotations="lvis.json", reads={"lvis.json": "{}"},
         ignores={"images/a.jpg": ""}, roles=["annotations"]),
    Case(format="objects365", annotations="o.json", reads={"o.json": "{}"},
         ignores={"images/a.jpg": ""}, roles=["annotations"]),
    Case(format="csv", annotations="boxes.csv", reads={"boxes.csv": "file_name,label,x,y,w,h\n"},
         ignores={"images/a.jpg": "", "more.csv": ""}, roles=["annotations", "image_names"]),
    Case(format="open_images", annotations="boxes.csv", paths=("classes", "image_labels"),
         options={"classes": "c.csv", "image_labels": "l.csv", "extension": "png"},
         reads={"boxes.csv": "x", "c.csv": "y", "l.csv": "z"}, ignores={"images.csv": ""},
         roles=["annotations", "classes", "image_labels"]),
    Case(format="voc", annotations="VOC", options={"image_set": "train"},
         reads={"VOC/Annotations/a.xml": XML, "VOC/Annotations/deep/b.xml": XML,
                "VOC/ImageSets/Main/train.txt": "a\ndeep/b\nmissing\n"},
         ignores={"VOC/Annotations/c.xml": XML, "VOC/ImageSets/Main/val.txt": ""},
         roles=["annotations", "image_set"]),
    Case(format="voc", annotations="VOC", reads={"VOC/a.xml": XML},
         ignores={"VOC/readme.txt": ""}, roles=["annotations"]),
    Case(format="yolo", annotations="set/data.yaml", images="set",
         reads={"set/data.yaml": YAML, "set/val.txt": "./images/val/b.jpg\n",
                "set/labels/train/a.txt": "0 .5 .5 .2 .2\n", "set/labels/val/b.txt": "",
                "set/labels/train/orphan.txt": ""},
         ignores={"set/images/train/a.jpg": "", "set/images/val/b.jpg": "", "set/classes.txt": "",
                  "set/labels/test/z.txt": ""},
         roles=["annotations", "image_names"]),
    Case(format="yolo", annotations="set", images="set/images",
         reads={"set/classes.txt": "cat\n", "set/labels/a.txt": "0 .5 .5 .2 .2\n"},
         ignores={"set/images/a.jpg": ""}, roles=["annotations", "image_names"]),
]  # fmt: skip


def digests(folder: Path, case: Case) -> dict[str, ExternalInput]:
    options = {name: str(folder / value) if name in case.paths else value
               for name, value in case.options.items()}  # fmt: skip
    config = SourceConfig(
        format=case.format, annotations=str(folder / case.annotations),
        images=str(folder / case.images), name="set", options=options,
    )  # fmt: skip
    return digests_of(open_source(config))


def test_every_format_has_a_case() -> None:
    assert {case.format for case in CASES} == set(FORMATS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}-{len(case.roles)}")
class TestEveryFormat:
    def test_a_change_of_any_file_that_is_read_shows(self, write: Write, case: Case) -> None:
        folder = write({**case.reads, **case.ignores})
        before = digests(folder, case)
        assert list(before) == case.roles
        for name, content in case.reads.items():
            (folder / name).write_text(content + "\n")
            changed = digests(folder, case)
            assert changed != before, name
            (folder / name).write_text(content)
        assert digests(folder, case) == before

    def test_a_change_of_any_other_file_does_not(self, write: Write, case: Case) -> None:
        folder = write({**case.reads, **case.ignores})
        before = digests(folder, case)
        for name in case.ignores:
            (folder / name).write_text("changed")
        assert digests(folder, case) == before

    def test_the_place_does_not_show(
        self, write: Write, case: Case, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = write({**case.reads, **case.ignores})
        before = digests(folder, case)
        moved = tmp_path_factory.mktemp("moved")
        shutil.copytree(folder, moved, dirs_exist_ok=True)
        after = digests(moved, case)
        assert {role: item.sha256 for role, item in before.items()} == {
            role: item.sha256 for role, item in after.items()
        }
        assert all(str(moved) in item.url for item in after.values())


@pytest.mark.parametrize("format", ["csv", "yolo"])
def test_another_image_in_the_folder_shows(write: Write, format: str) -> None:
    case = next(case for case in CASES if case.format == format)
    folder = write({**case.reads, **case.ignores})
    before = digests(folder, case)
    (folder / case.images / "images/train").mkdir(parents=True, exist_ok=True)
    (folder / case.images / "images/train/new.jpg").write_bytes(b"")
    changed = digests(folder, case)
    assert changed["image_names"].num_files == before["image_names"].num_files + 1
    assert changed["image_names"].sha256 != before["image_names"].sha256


def test_a_file_has_the_digest_that_sha256sum_prints(write: Write) -> None:
    folder = write({"boxes.json.gz": ""})
    path = folder / "boxes.json.gz"
    path.write_bytes(gzip.compress(b'{"images": []}' * 10_000))
    case = Case(format="coco", annotations=path.name, reads={}, ignores={}, roles=[])
    [found] = digests(folder, case).values()
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert found == ExternalInput(
        url=str(path), sha256=done.stdout.split()[0], num_bytes=path.stat().st_size
    )


def test_a_folder_has_the_digest_of_what_sha256sum_prints(write: Write) -> None:
    case = Case(format="voc", annotations="", reads={}, ignores={}, roles=[])
    folder = write({"b.xml": XML, "a b.xml": XML + " ", "c/d.xml": "x"})
    [found] = digests(folder, case).values()
    script = "find * -name '*.xml' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert (found.sha256, found.num_files) == (done.stdout.split()[0], 3)


@pytest.mark.parametrize("kind", ["none", "folder"])
def test_what_cannot_be_read_is_one_sentence(write: Write, kind: str) -> None:
    folder = write({"here/x": ""})
    case = Case(format="coco", annotations={"none": "gone.json", "folder": "here"}[kind],
                reads={}, ignores={}, roles=[])  # fmt: skip
    with pytest.raises(InputError, match=r"no file at|is a folder"):
        digests(folder, case)


def test_a_bucket_or_memory_is_read_like_a_folder() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/digest-test/boxes.json", b"{}")
    config = SourceConfig(
        format="coco", annotations="memory://digest-test/boxes.json", images="memory://x", name="m"
    )
    [found] = digests_of(open_source(config)).values()
    assert (found.url, found.num_bytes) == (config.annotations, 2)
    files.rm("/digest-test", recursive=True)


class TestRecorded:
    """A source is the one that a commit names, from whichever folder either was given."""

    def config(self, **fields: Any) -> SourceConfig:
        values = {"format": "coco", "annotations": "b.json", "images": "photos", "name": "shop"}
        return SourceConfig(**(values | fields))

    def test_relative_paths_become_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found = self.config(images="s3://bucket/x", options={"classes": "c.csv", "n": 1})
        assert found.annotations == str(tmp_path / "b.json")
        assert found.images == "s3://bucket/x"
        assert found.options == {"classes": str(tmp_path / "c.csv"), "n": 1}
        sets = {"train": "train", "my/train": str(tmp_path / "my/train"),
                "l.txt": str(tmp_path / "l.txt")}  # fmt: skip
        for name, placed in sets.items():
            assert self.config(options={"image_set": name}).options["image_set"] == placed

    def test_old_commits_with_relative_paths_are_known_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        old = {"format": "coco", "annotations": "b.json", "images": "photos", "name": "shop",
               "options": {}}  # fmt: skip
        assert self.config().is_as_recorded(old)
        assert not self.config(name="other").is_as_recorded(old)
        for bad in (None, {}, {**old, "images": 3}, {**old, "images": "s3://me:pw@x/y"}):
            assert not self.config().is_as_recorded(bad)
