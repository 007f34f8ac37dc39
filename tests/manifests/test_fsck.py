"""fsck on whole stores and on stores with one damaged object, in every position."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from manifests import layout, schemas
from manifests.dataset import Dataset, init
from manifests.errors import MaskmillError, ObjectDamagedError, RefError, StoreError
from manifests.fsck import FsckOptions, fsck
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder
from tests.manifests.damage import (
    HURTS,
    WholeStore,
    assert_says,
    damage_in,
    filled,
    flipped,
    look,
    make_whole_store,
)

_MASKS = schemas.masks_layer("mobile_sam")
_LABEL = r"run 'maskmill label mobile_sam' to draw it again"
_INGEST = r"restore it from a copy, or run 'maskmill branch repair .{12}' and repeat the ingest of"
_GO_BACK = r"put main back to the newest commit that can be read with 'maskmill reset .{12}'"
EXPECTED = {
    schemas.IMAGES: rf"shard .{{12}} of images .*: main and tag v1 cannot be labelled.*{_INGEST}",
    schemas.IMAGE_INDEX: rf"shard .{{12}} of image_index .*: main and tag v1 cannot be.*{_INGEST}",
    schemas.BOXES: rf"shard .{{12}} of boxes .*: main and tag v1 cannot be labelled.*{_INGEST}",
    schemas.MASKS_HUMAN: rf"shard .{{12}} of masks/human .*: main and tag v1 .*{_INGEST}",
    _MASKS: rf"shard .{{12}} of masks/mobile_sam .*: main and tag v1 cannot be filtered.*{_LABEL}",
    schemas.VERDICTS: r"shard .{12} of verdicts .*: main cannot be exported.*'maskmill filter'",
    "head commit": rf"commit .{{12}} .*: main cannot be opened; .*{_GO_BACK}",
    "old commit": r"commit .{12} .*: main and tag v1 cannot show their history further back than",
    "head manifest": rf"manifest .{{12}} .*: main cannot be opened.*{_GO_BACK}",
    "old manifest": r"manifest .{12} .*: commit .{12} in the history of main and tag v1 cannot be",
    "rejects": r"table of rejects .{12} .*: commit .{12} in the history of .* cannot say which",
    "removed": r"table of removed images .{12} .*: main cannot say which images were taken down",
    "marker": r"maskmill.json is .*: no command opens the store",
    "newest entry": r"entry 4 of main is .*: main cannot be opened; restore refs/heads/main/0+4",
    "old entry": r"entry 2 of main is .*: main cannot show where it was then",
    "tag": r"entry 1 of tag v1 is .*: tag v1 cannot be opened",
}
"""What fsck must say of damage in each position."""


@pytest.mark.parametrize("full", [False, True])
def test_a_whole_store_is_sound(store_url: str, full: bool) -> None:
    whole = make_whole_store(store_url)
    report = look(whole.store, full=full)
    assert report.findings == ()
    assert report.is_sound
    assert report.refs == {"main": whole.commits["filter"], "tag v1": whole.commits["label"]}
    assert (report.num_commits, report.num_cells) == (4, 11)


def test_an_empty_store_is_sound(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="make one with 'maskmill init'"):
        look(store)
    init(store)
    assert look(store).findings == ()


class TestOneDamagedObject:
    @pytest.mark.parametrize("how", [*HURTS, "replaced"])
    def test_in_every_position(self, tmp_path: Path, how: str) -> None:
        self._check(make_whole_store(str(tmp_path / "store")), how)

    def test_in_every_position_on_s3(self, s3_url: str) -> None:
        self._check(make_whole_store(s3_url), "flipped", "missing")

    def _check(self, whole: WholeStore, *hows: str) -> None:
        """The ways to be damaged in turn."""
        positions = whole.positions()
        assert positions.keys() == EXPECTED.keys()
        for (name, key), how in zip(positions.items(), itertools.cycle(hows), strict=False):
            other = positions["boxes" if name != "boxes" else "head manifest"]
            other_bytes = whole.store.read_optional(other)
            with whole.damaged(key, HURTS.get(how, lambda data, new=other_bytes: new)):
                self._check_position(whole, name, how)
        assert look(whole.store).findings == ()

    def _check_position(self, whole: WholeStore, name: str, how: str) -> None:
        if name == "tag" and how == "missing":
            assert "tag v1" not in look(whole.store).refs  # nothing tells that it was there
            return
        [finding] = damage_in(look(whole.store))
        assert_says(EXPECTED[name], finding)
        changes_size = how != "flipped"
        quick = damage_in(look(whole.store, full=False))
        is_small = name in {"marker", "rejects", "removed"} or "entry" in name or name == "tag"
        is_read = is_small or "commit" in name or "manifest" in name
        assert len(quick) == int(changes_size or is_read), name

    @pytest.mark.parametrize(("name", "at_end"), [("newest entry", True), ("old entry", False)])
    def test_an_entry_with_another_entrys_bytes(
        self, tmp_path: Path, name: str, at_end: bool
    ) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        first = whole.store.read_optional(layout.ref_entry_path(layout.HEADS, "main", 1))
        with whole.damaged(whole.positions()[name], lambda data: first):
            [finding] = damage_in(look(whole.store, full=False))
            assert_says(r"entry \d of main is damaged \(it holds entry 1\)", finding)
            assert ("cannot be opened" in finding.consequence) == at_end

    @pytest.mark.parametrize("digit", range(0, 64, 7))
    def test_an_entry_that_names_another_commit(self, tmp_path: Path, digit: int) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()["newest entry"]
        at = (whole.store.read_optional(key) or b"").index(b'"commit":"') + 10 + digit
        with whole.damaged(key, lambda data: flipped(data, at)):
            [finding] = damage_in(look(whole.store, full=False))
            assert_says(r"(commit .{12} is missing|entry 4 of main is damaged)", finding)
            assert_says("main cannot be opened", finding)
            with pytest.raises(ObjectDamagedError if "entry" in finding.what else MaskmillError):
                Dataset.open(whole.store)


class TestWhatIsLookedAt:
    def test_one_ref(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        whole.store.remove(layout.object_path(whole.object_of(schemas.VERDICTS)))
        assert look(whole.store, ref="v1", full=False).is_sound
        assert not look(whole.store, ref="main", full=False).is_sound
        assert look(whole.store, ref="main~1", full=False).is_sound
        with pytest.raises(RefError, match="the nearest is 'main'"):
            look(whole.store, ref="mian")

    def test_takedowns_are_no_damage(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        builder.store.remove(layout.object_path(shard))
        assert not look(builder.store, ref=dataset.commit_id).is_sound
        gone = RemovedImage(
            image_id="1" * 32, file_name="x.jpg", source="shop", shard=shard, successor=None,
            reason="licence", author="somebody", time="2026-11-23T20:00:00Z",
        )  # fmt: skip
        removed = Removals([gone]).save(builder.store)
        # A later commit knows; an old one is looked at, too, and does not.
        later = replace(dataset.commit, removed=removed, parents=(dataset.commit_id,))
        for full in (False, True):
            report = look(builder.store, ref=later.save(builder.store), full=full)
            [finding] = report.findings
            assert (finding.severity, finding.kind, report.is_sound) == ("note", "taken_down", True)
            assert_says("1 image of it was taken down on .* by somebody .licence.", finding)

    def test_what_only_a_log_names_may_have_gone(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        refs = Refs(whole.store)
        refs.advance("main", expected=refs.head("main"), commit=whole.commits["label"], reason="t")
        for key in ("head commit", "head manifest", schemas.VERDICTS):
            whole.store.remove(whole.positions()[key])
            report = look(whole.store)
            assert report.is_sound
            assert all(finding.severity == "note" for finding in report.findings)
            assert_says(r"main@\{1\} cannot .*'maskmill gc' deletes", report.findings[0])

    def test_a_deleted_branch(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        refs = Refs(whole.store)
        refs.create_branch("gone", whole.commits["filter"])
        refs.delete_branch("gone")
        report = look(whole.store)
        assert (report.findings, "gone" in report.refs) == ((), False)

    def test_a_gap_in_a_log(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for number in (2, 3):
            whole.store.remove(layout.ref_entry_path(layout.HEADS, "main", number))
        [finding] = look(whole.store).findings
        assert_says("entry 2 of main and all others up to 3 are missing", finding)

    def test_a_hint_that_is_damaged_itself(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for hint in (b"", b"x", b"99999999", b"1"):
            whole.store.overwrite(layout.newest_hint_path(layout.HEADS, "main"), hint)
            assert look(whole.store).findings == ()

    def test_one_object_in_two_cells(self, builder: DatasetBuilder) -> None:
        for name in ("a.jpg", "b.jpg"):
            builder.image(name)
            builder.box("cat", (2, 3, 9, 8), annotation_id=name)
            builder.shard()
        dataset = builder.commit()
        one, two = dataset.manifest.of_layer(schemas.VERDICTS)
        assert one.object_id == two.object_id
        builder.store.remove(layout.object_path(one.object_id))
        [finding] = look(builder.store, ref=dataset.commit_id).findings
        assert len(finding.cells) == 2
        assert_says(r"of verdicts \(and 1 more cell\) is missing", finding)

    def test_an_object_that_the_store_cannot_read_is_no_damage(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        path = tmp_path / "store" / whole.positions()[schemas.BOXES]
        path.unlink()
        path.mkdir()  # reading it fails, whoever asks
        with pytest.raises(StoreError, match="directory"):
            look(whole.store)

    def test_progress_is_told(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        listener = _Listener()
        options = FsckOptions(full=True, quarantine=False)
        fsck(whole.store, options, listener=listener)
        assert listener.phases["looking for objects"] == [11, 11]
        done = listener.phases["reading contents"]
        assert done[0] == done[1] == sum(cell.num_bytes for cell in whole.dataset.manifest)


class _Listener:
    """Phase -> [total, done]."""

    def __init__(self) -> None:
        self.phases: dict[str, list[int]] = {}

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
        self._now = self.phases.setdefault(name, [total, 0])

    def advance(self, count: int) -> None:
        self._now[1] += count
