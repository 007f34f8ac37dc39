"""Damaged objects are moved aside whole, with a note, and come back when they are made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests import layout, quarantine, schemas
from manifests.digest import sha256_hex
from manifests.errors import StoreError
from manifests.findings import CellName
from manifests.fsck import FsckOptions, FsckReport, fsck
from manifests.quarantine import QuarantineNote, move_aside, read_notes
from manifests.store import Store
from tests.manifests.damage import HURTS, assert_says, damage_in, flipped, make_whole_store

_DATA = b"as it was" * 100


def _note(object_id: str, why: str = "because") -> QuarantineNote:
    return QuarantineNote(
        object_id=object_id, why=why, cells=(CellName(shard="1" * 64, layer="boxes"),),
        refs=("main",), commits=("2" * 64,),
    )  # fmt: skip


def _damaged(store: Store, bad: bytes = b"as it is") -> str:
    object_id = store.put_bytes(_DATA).object_id
    store.overwrite(layout.object_path(object_id), bad)
    return object_id


def _look(store: Store, *, full: bool = True) -> FsckReport:
    return fsck(store, FsckOptions(full=full))


class TestMoveAside:
    def test_bytes_and_note(self, store_url: str) -> None:
        store = Store(store_url)
        object_id = _damaged(store)
        path = move_aside(store, _note(object_id))
        assert path == f"quarantine/{object_id}"
        assert store.read_optional(path) == b"as it is"
        assert store.object_size(object_id) is None
        [(found, note)] = read_notes(store)
        assert found == path
        assert (note.found, note.num_bytes) == (sha256_hex(b"as it is"), 8)
        assert (note.object_id, note.why, note.refs) == (object_id, "because", ("main",))
        assert note.cells == (CellName(shard="1" * 64, layer="boxes"),)
        assert note.time.endswith("Z")
        assert json.loads(store.read_optional(f"{path}.json") or b"")["commits"] == ["2" * 64]

    def test_a_sound_object_stays(self, store_url: str) -> None:
        store = Store(store_url)
        object_id = store.put_bytes(_DATA).object_id
        assert move_aside(store, _note(object_id)) is None
        assert store.get_bytes(object_id) == _DATA
        assert store.list_names(layout.QUARANTINE) == []

    def test_nothing_is_there(self, store_url: str) -> None:
        store = Store(store_url)
        assert move_aside(store, _note("9" * 64)) is None
        assert store.list_names(layout.QUARANTINE) == []

    def test_damaged_twice(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        paths = [move_aside(store, _note(_damaged(store, bad))) for bad in (b"1", b"2", b"1", b"")]
        object_id = sha256_hex(_DATA)
        assert paths == [f"quarantine/{object_id}{end}" for end in ("", "-2", "", "-3")]
        kept = [store.read_optional(str(path)) for path in paths]
        assert kept == [b"1", b"2", b"1", b""]
        assert len(list(read_notes(store))) == 3

    def test_killed_after_the_copy(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        object_id = _damaged(store)
        store.overwrite(f"quarantine/{object_id}", b"as it is")
        assert move_aside(store, _note(object_id)) == f"quarantine/{object_id}"
        assert store.object_size(object_id) is None
        assert len(list(read_notes(store))) == 1

    def test_a_copy_that_comes_out_different(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(str(tmp_path))
        object_id = _damaged(store)

        def lose_a_byte(store: Store, source: str, target: str) -> None:
            store.overwrite(target, b"as it i")

        monkeypatch.setattr(quarantine, "_copy", lose_a_byte)
        with pytest.raises(StoreError, match=r"came out different .* left where it is"):
            move_aside(store, _note(object_id))
        assert store.object_size(object_id) == 8

    def test_made_again_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(str(tmp_path))
        object_id = _damaged(store)
        copy = quarantine._copy

        def copy_while_a_writer_heals(store: Store, source: str, target: str) -> None:
            copy(store, source, target)
            store.put_bytes(_DATA)

        monkeypatch.setattr(quarantine, "_copy", copy_while_a_writer_heals)
        move_aside(store, _note(object_id))
        assert store.get_bytes(object_id) == _DATA

    def test_notes_that_are_damaged_are_passed_over(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        move_aside(store, _note(_damaged(store)))
        for number, bad in enumerate((b"", b"{}", b"\xff", b"[]")):
            store.overwrite(f"quarantine/{number}.json", bad)
        assert len(list(read_notes(store))) == 1


class TestFsck:
    @pytest.mark.parametrize("how", ["flipped", "truncated", "emptied"])
    def test_every_kind_of_object_is_moved(self, store_url: str, how: str) -> None:
        whole = make_whole_store(store_url)
        for name, key in whole.positions().items():
            with whole.damaged(key, HURTS[how]):
                report = _look(whole.store)
                [finding] = damage_in(report)
                is_object = key.startswith("objects/")
                assert bool(finding.quarantine) == is_object, name
                assert (whole.store.read_optional(key) is None) == is_object, name
        notes = list(read_notes(whole.store))
        assert len(notes) == sum(key.startswith("objects/") for key in whole.positions().values())

    def test_quick_moves_what_it_finds(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()[schemas.BOXES]
        with whole.damaged(key, HURTS["truncated"]):
            [finding] = damage_in(_look(whole.store, full=False))
            assert_says(
                r"its manifest says [\d,]+\) \(its bytes are kept in quarantine/\): main", finding
            )
            assert whole.store.read_optional(key) is None

    def test_only_told(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()[schemas.BOXES]
        with whole.damaged(key, flipped):
            bad = whole.store.read_optional(key)
            report = fsck(whole.store, FsckOptions(full=True, quarantine=False))
            assert damage_in(report)
            assert whole.store.read_optional(key) == bad
            assert whole.store.list_names(layout.QUARANTINE) == []

    def test_missing_then_healed(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()[schemas.VERDICTS]
        with whole.damaged(key, flipped):
            [finding] = damage_in(_look(whole.store))
            [again] = damage_in(_look(whole.store))
            assert (finding.kind, again.kind) == ("wrong_bytes", "missing")
            assert finding.quarantine == again.quarantine
            assert finding.quarantine is not None
        report = _look(whole.store)
        [note] = report.findings
        assert (report.is_sound, note.severity, note.kind) == (True, "note", "healed")
        assert_says(f"is whole again: its damaged bytes are still in {finding.quarantine}", note)
        for name in whole.store.list_names(layout.QUARANTINE):
            whole.store.remove(f"{layout.QUARANTINE}/{name}")
        assert _look(whole.store).findings == ()

    def test_healed_and_damaged_anew_is_not_called_whole(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()[schemas.VERDICTS]
        for hurt in (flipped, HURTS["truncated"]):
            with whole.damaged(key, hurt):
                assert [f.kind for f in _look(whole.store).findings] in (
                    ["wrong_bytes"], ["wrong_size"],
                )  # fmt: skip
        assert len(list(read_notes(whole.store))) == 2
