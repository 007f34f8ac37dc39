"""`maskmill fsck` on real stores, and every other command on a store with one damaged object.

A command either does not need the object, and then says what it always says, or fails with a
sentence that names it. Never a traceback, and never another result without a word.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine import cli
from manifests import layout, schemas
from manifests.console import run_app
from manifests.dataset import Dataset
from manifests.refs import Refs
from manifests.store import Store
from tests.command_line import Maskmill
from tests.engine.conftest import PhotoSet

Hurt = Callable[[bytes], bytes | None]
_MASKS = schemas.masks_layer("box")
_LAYERS = (
    schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN, _MASKS,
    schemas.VERDICTS,
)  # fmt: skip
_FILTER = ("filter", "--set", 'teachers=["box"]')
_FILTER_AGAIN = (*_FILTER, "--set", "use_human=false")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Four photos with boxes and a human mask, and one that is broken."""
    made = PhotoSet(tmp_path_factory.mktemp("source") / "photos")
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "e.jpg")):
        made.add(name, [10, 5, 20 + number, 30], [0, 0, 40, 60 - number])
    made.document["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 35, 10, 35]]
    made.add("broken.jpg", [1, 1, 9, 9], content=b"\xff\xd8\xff nothing")
    made.config("set")
    return made


def ingest_arguments(photos: PhotoSet, *more: str) -> tuple[str, ...]:
    annotations, images = str(photos.folder / "boxes.json"), str(photos.images)
    options = ("--name", "set", "--shard-images", "2", "--inline")
    return ("ingest", "coco", annotations, images, *options, *more)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, photos: PhotoSet) -> Path:
    """init, ingest, label, tag v1, filter, rm, filter: a store with every kind of object."""
    store = tmp_path_factory.mktemp("template") / "store"
    for arguments in (
        ("init",), ingest_arguments(photos), ("label", "box", "--inline"), ("tag", "v1"),
        _FILTER, ("rm", "--file-name", "e.jpg", "--reason", "licence"),
        _FILTER_AGAIN,
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            run_app(cli.app, arguments=[*arguments, "--store", str(store)])
        assert caught.value.code == 0
    return store


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Store:
    """A copy of that store."""
    shutil.copytree(template, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def positions(store: Store) -> dict[str, str]:
    """What it is -> its key. The first shard is one that nothing was taken from."""
    head = Dataset.open(store)
    ingested = Dataset(store, _ancestor(store, 4))
    shard = head.manifest.shards()[0]
    objects = {layer: head.cell(shard, layer).object_id for layer in _LAYERS}
    objects |= {
        "head commit": head.commit_id,
        "old commit": ingested.commit_id,
        "head manifest": head.commit.manifest,
        "old manifest": ingested.commit.manifest,
        "rejects": ingested.commit.rejects or "",
        "removed": head.commit.removed or "",
    }
    keys = {name: layout.object_path(object_id) for name, object_id in objects.items()}
    return keys | {
        "marker": layout.MARKER,
        "newest entry": layout.ref_entry_path(layout.HEADS, "main", 6),
        "old entry": layout.ref_entry_path(layout.HEADS, "main", 2),
        "tag": layout.ref_entry_path(layout.TAGS, "v1", 1),
    }


def _ancestor(store: Store, steps: int) -> str:
    return Refs(store).resolve(f"main~{steps}")


SENTENCES: Mapping[str, str] = {
    **{layer: rf"shard [0-9a-f]{{12}} of {layer} is (missing|damaged)" for layer in _LAYERS},
    "head commit": r"commit [0-9a-f]{12} is (missing|damaged)|no branch, tag or commit",
    "old commit": r"commit [0-9a-f]{12} is (missing|damaged)",
    "head manifest": r"manifest [0-9a-f]{12} is (missing|damaged)",
    "old manifest": r"manifest [0-9a-f]{12} is (missing|damaged)",
    "rejects": r"table of rejects [0-9a-f]{12} is (missing|damaged)",
    "removed": r"table of removed images [0-9a-f]{12} is (missing|damaged)",
    "marker": r"maskmill\.json is damaged|no maskmill store",
    "newest entry": r"entry 6 of ref 'main' is (missing|damaged)",
    "old entry": r"entry 2 of ref 'main' is (missing|damaged)",
    "tag": r"entry 1 of ref 'v1' is (missing|damaged)",
}
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "show": ("show",),
    "show rejects": ("show", "--rejects"),
    "stats": ("stats",),
    "log": ("log",),
    "export": ("export", "coco", "TARGET", "--images"),
    "export layer": ("export", "coco", "TARGET", "--layer", _MASKS),
    "export tag": ("export", "coco", "TARGET", "--layer", _MASKS, "--ref", "v1"),
    "report": ("report", "TARGET.html"),
    "label": ("label", "box", "--inline"),
    "filter": _FILTER_AGAIN,
}
MORE_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "export yolo": ("export", "yolo", "TARGET"),
    "export webdataset": ("export", "webdataset", "TARGET"),
    "diff": ("diff", "main~3", "main"),
    "status": ("status",),
    "sql": ("sql", "main", "select count(*) n, sum(keep::int) k from verdicts"),
    "checkout": ("checkout", "main", "TARGET"),
    "merge": ("merge", "v1"),
}


def hurts(other: bytes) -> Mapping[str, Hurt]:
    """Ways to be damaged; `other` are the bytes of another object."""

    def flipped(data: bytes) -> bytes:
        at = 0 if data[:1] == b"{" else len(data) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return {
        "flipped": flipped,
        "missing": lambda data: None,
        "truncated": lambda data: data[: len(data) * 2 // 3],
        "emptied": lambda data: b"",
        "replaced": lambda data: other,
    }


def damage(store: Store, key: str, hurt: Hurt) -> None:
    bad = hurt(store.read_optional(key) or b"")
    if bad is None:
        store.remove(key)
    else:
        store.overwrite(key, bad)


def outcome(maskmill: Maskmill, arguments: tuple[str, ...], target: Path) -> tuple[int, str]:
    """The exit code, and all that came of a command without the names of folders."""
    filled = [word.replace("TARGET", str(target)) for word in arguments]
    answer = maskmill(*filled, "--json")
    said = answer.out.replace(str(target), "TARGET").replace(str(target.parent), "FOLDER")
    files = sorted(path for path in target.parent.glob(f"{target.name}*") if path.is_file())
    files += sorted(path for path in target.rglob("*") if path.is_file())
    files = [path for path in files if ".maskmill-checkout" not in path.parts]  # holds times
    contents = [path.read_bytes().replace(str(target.parent).encode(), b"") for path in files]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    names = [str(path.relative_to(target.parent)) for path in files]
    return answer.code, said + ("" if answer.code else f"{names} {digests}")


class TestOtherCommands:
    def test_one_kind_of_damage_in_each_position(
        self, template: Path, tmp_path: Path, maskmill: Maskmill
    ) -> None:
        self._check(template, tmp_path, maskmill, COMMANDS, itertools.cycle(["flipped", "missing"]))

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["flipped", "missing", "truncated", "emptied", "replaced"])
    def test_every_damage_in_every_position(
        self, template: Path, tmp_path: Path, maskmill: Maskmill, how: str
    ) -> None:
        commands = {**COMMANDS, **MORE_COMMANDS}
        self._check(template, tmp_path, maskmill, commands, itertools.repeat(how))

    def _check(
        self,
        template: Path,
        tmp_path: Path,
        maskmill: Maskmill,
        commands: Mapping[str, tuple[str, ...]],
        hows: Any,
    ) -> None:
        sound = self._outcomes(template, tmp_path / "00", maskmill, commands, None)
        assert {code for code, _ in sound.values()} == {0}, sound
        keys = positions(Store(str(template)))
        assert keys.keys() == SENTENCES.keys()
        for number, ((name, key), how) in enumerate(zip(keys.items(), hows, strict=False)):
            if (name, how) == ("tag", "missing"):
                continue  # a tag is this one file: nothing tells that there was one
            folder = tmp_path / f"{number + 1:02}"  # names as long as each other: pages hold them
            found = self._outcomes(template, folder, maskmill, commands, (key, how))
            for command, (code, said) in found.items():
                where = f"{command} with {name} {how}: {code} {said[:600]}"
                if code == 0:
                    assert said == sound[command][1], where
                else:
                    assert code in (4, 5, 8), where
                    assert re.search(SENTENCES[name], said), where

    def _outcomes(
        self,
        template: Path,
        folder: Path,
        maskmill: Maskmill,
        commands: Mapping[str, tuple[str, ...]],
        hurt: tuple[str, str] | None,
    ) -> dict[str, tuple[int, str]]:
        """Each command on a damaged copy of its own."""
        found = {}
        for name, arguments in commands.items():
            place = folder / name.replace(" ", "-")
            shutil.copytree(template, place / "store")
            store = Store(str(place / "store"))
            if hurt:
                key, how = hurt
                keys = positions(store)
                same = keys[schemas.BOXES] if key != keys[schemas.BOXES] else keys["head manifest"]
                other = store.read_optional(same) or b""
                damage(store, key, hurts(other)[how])
            words = (*arguments, "--store", str(place / "store"))
            found[name] = outcome(maskmill, words, place / "out")
            shutil.rmtree(place)
        return found


class TestFsck:
    def test_a_real_store_is_sound(self, here: Store, maskmill: Maskmill) -> None:
        for mode in ((), ("--full",), ("--ref", "v1"), ("--full", "--ref", "main~3")):
            answer = maskmill("fsck", *mode, "--json")
            assert (answer.code, answer.json["is_sound"], answer.json["findings"]) == (0, True, [])
        assert maskmill("fsck").out.startswith("sound: looked for ")
        assert maskmill("fsck", "--full").out.startswith("sound: read every byte of ")

    def test_damage_for_people_and_for_programs(self, here: Store, maskmill: Maskmill) -> None:
        damage(here, positions(here)[_MASKS], lambda data: None)
        answer = maskmill("fsck")
        assert answer.code == 4
        assert re.search(
            r"^damage: shard .{12} of masks/box is missing \(object .{12}\): main and tag v1 "
            r"cannot be filtered or exported; run 'maskmill label box' to draw it again$",
            answer.out, re.MULTILINE,
        )  # fmt: skip
        told = maskmill("fsck", "--json")
        assert told.code == 4
        [finding] = told.json["findings"]
        assert finding["severity"] == "damage"
        assert finding["refs"] == ["main", "tag v1"]
        assert finding["cells"][0]["layer"] == _MASKS
        assert finding["sentence"] in answer.out

    def test_an_image_that_no_longer_decodes(self, here: Store, maskmill: Maskmill) -> None:
        key = positions(here)[schemas.IMAGES]
        data = here.read_optional(key) or b""
        here.overwrite(key, data[:900] + bytes(200) + data[1100:])
        assert maskmill("fsck").code == 0
        answer = maskmill("fsck", "--full", "--no-quarantine", "--json")
        [finding] = answer.json["findings"]
        assert (answer.code, finding["kind"], finding["quarantine"]) == (4, "wrong_bytes", None)

    def test_no_store_and_no_ref(self, here: Store, maskmill: Maskmill, tmp_path: Path) -> None:
        answer = maskmill("fsck", "--store", str(tmp_path / "nothing"), "--json")
        assert (answer.code, answer.json["error"]["kind"]) == (4, "StoreError")
        answer = maskmill("fsck", "--ref", "mian", "--json")
        assert (answer.code, answer.json["error"]["kind"]) == (5, "RefError")

    def test_takedown_and_gc_are_no_damage(self, here: Store, maskmill: Maskmill) -> None:
        assert maskmill("gc", "--grace-days", "0", "--json").code == 0
        answer = maskmill("fsck", "--full", "--json")
        assert (answer.code, answer.json["is_sound"]) == (0, True)
        [note] = answer.json["findings"]
        assert (note["severity"], note["kind"]) == ("note", "taken_down")
        assert "1 image of it was taken down" in note["sentence"]
        exported = maskmill("export", "coco", f"{here.root}-out", "--images", "--ref", "v1",
                            "--layer", _MASKS)  # fmt: skip
        assert exported.code == 4
        assert "are gone because 1 image of it was taken down" in exported.err

    @pytest.mark.slow
    def test_ctrl_c(self, here: Store, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "engine.cli", "fsck", "--full", "--store", here.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode in (0, 130)
        assert b"Traceback" not in err


class TestHealing:
    """What the sentences say is to be done brings every object back under its own name."""

    def _hurt(self, here: Store, maskmill: Maskmill, name: str) -> dict[str, Any]:
        damage(here, positions(here)[name], hurts(b"")["flipped"])
        answer = maskmill("fsck", "--full", "--json")
        assert answer.code == 4
        [finding] = answer.json["findings"]
        return dict(finding)

    def _is_whole(self, maskmill: Maskmill) -> None:
        answer = maskmill("fsck", "--full", "--json")
        assert (answer.code, [f["kind"] for f in answer.json["findings"]]) == (0, ["healed"])

    def test_masks(self, here: Store, maskmill: Maskmill) -> None:
        finding = self._hurt(here, maskmill, _MASKS)
        assert finding["remedy"] == "run 'maskmill label box' to draw it again"
        assert maskmill("label", "box", "--inline").code == 0
        self._is_whole(maskmill)

    def test_verdicts(self, here: Store, maskmill: Maskmill) -> None:
        finding = self._hurt(here, maskmill, schemas.VERDICTS)
        assert finding["remedy"].startswith("run 'maskmill filter' with the same policy")
        assert maskmill(*_FILTER_AGAIN).code == 0
        self._is_whole(maskmill)

    @pytest.mark.parametrize(
        "name", [schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN, "rejects"]
    )
    def test_what_was_ingested(
        self, here: Store, maskmill: Maskmill, photos: PhotoSet, name: str
    ) -> None:
        remedy = self._hurt(here, maskmill, name)["remedy"]
        start = re.search(r"'maskmill branch repair ([0-9a-f]{12})'", remedy)
        before = start[1] if start else _ancestor(here, 5)
        assert maskmill("branch", "repair", before).code == 0
        assert maskmill(*ingest_arguments(photos, "--branch", "repair")).code == 0
        self._is_whole(maskmill)

    @pytest.mark.parametrize("name", ["head commit", "head manifest"])
    def test_a_branch_that_cannot_be_opened(
        self, here: Store, maskmill: Maskmill, name: str
    ) -> None:
        remedy = self._hurt(here, maskmill, name)["remedy"]
        for command in re.findall(r"'maskmill ([^']*)'", remedy):
            assert maskmill(*command.split()).code == 0, command
        assert maskmill("show").code == 0
        assert maskmill("fsck").code == 0

    def test_a_damaged_entry(self, here: Store, maskmill: Maskmill) -> None:
        damage(here, positions(here)["newest entry"], hurts(b"")["emptied"])
        [finding] = maskmill("fsck", "--json").json["findings"]
        [command] = re.findall(r"'maskmill ([^']*)'", finding["remedy"])
        assert maskmill(*command.replace("NAME", "again").split()).code == 0
        assert maskmill("stats", "--ref", "again").code == 0
