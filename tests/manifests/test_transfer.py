"""Between stores: what travels, what does not, in which order, and what stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.commit import Commit
from manifests.dataset import Dataset, init, operation
from manifests.errors import (
    CommitConflictError,
    CommitError,
    InputError,
    MergeConflictError,
    ObjectDamagedError,
    ObjectMissingError,
    RefError,
    StoreError,
)
from manifests.manifest import Cell, Manifest
from manifests.merge import merge_into
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.store import Store
from manifests.three_way import Settlement
from manifests.transfer import TransferOptions, TransferSummary, clone, pull, push

_EVERYTHING = TransferOptions(all_branches=True, tags=True)
_TABLE = pa.schema([pa.field("x", pa.int64())])


class Writer:
    """Commits made of cells of a few numbers, on any branch of a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.refs = store, Refs(store)
        self._clock = 0

    def cell(self, shard: str, layer: str, *numbers: int) -> Cell:
        table = pa.table({"x": pa.array(numbers, pa.int64())}, schema=_TABLE)
        return write_cell(self.store, table, shard=shard * 64, layer=layer)

    def commit(
        self,
        *cells: Cell,
        branch: str = "main",
        removals: Removals | None = None,
        without: str = "",
        rejects: str | None = None,
        message: str = "step",
    ) -> str:
        """A commit on the branch: its cells, but a shard's that is taken out, and these."""
        entry = self.refs.head(branch)
        manifest = Dataset(self.store, entry.commit).manifest if entry else Manifest()
        kept = [cell for cell in manifest if cell.shard != without]
        self._clock += 1
        commit_id = Commit(
            parents=(entry.commit,) if entry else (),
            manifest=Manifest([*kept, *cells]).save(self.store),
            author="test",
            message=message,
            time=f"2026-11-23T20:{self._clock // 60:02}:{self._clock % 60:02}Z",
            operation=operation("test", version=1, config={}),
            rejects=rejects,
            removed=removals.save(self.store) if removals else None,
        ).save(self.store)
        if entry:
            self.refs.advance(branch, expected=entry, commit=commit_id, reason="test")
        else:
            self.refs.create_branch(branch, commit_id)
        return commit_id

    def grow(self, steps: int = 1, *, branch: str = "main", seed: int = 0) -> str:
        """Commits that each add one shard of two layers."""
        commit_id = ""
        for step in range(steps):
            number = 1000 * seed + 10 * self._clock + step
            name = "cdef0123456789"[number % 14]
            cells = [self.cell(name, layer, number, index) for index, layer in enumerate("ab")]
            commit_id = self.commit(*cells, branch=branch)
        return commit_id


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A store with two branches, a tag, four commits, and a table of rejects."""
    store = Store(str(tmp_path / "source"))
    init(store)
    writer = Writer(store)
    rejects = store.put_bytes(b"a table of rejects").object_id
    writer.commit(writer.cell("a", "images", 1), writer.cell("a", "boxes", 1, 2), rejects=rejects)
    first = writer.commit(writer.cell("b", "images", 3), writer.cell("b", "boxes", 4))
    writer.refs.create_branch("strict", first)
    writer.commit(writer.cell("a", "verdicts", 5), branch="strict")
    writer.commit(writer.cell("a", "verdicts", 6))
    writer.refs.create_tag("v1", first)
    return store


def refs_of(store: Store) -> tuple[dict[str, str], dict[str, str]]:
    return Refs(store).branches(), Refs(store).tags()


def objects_of(store: Store) -> dict[str, bytes]:
    """Every object of a store, by id; not what a killed writer left beside them."""
    paths = {str(path).rsplit("/", 1)[-1]: path for path in store.fs.find(f"{store.root}/objects")}
    shown = {name: path for name, path in paths.items() if not name.startswith(".")}
    return {name: bytes(store.fs.cat_file(path)) for name, path in shown.items()}


def reachable(store: Store, *heads: str) -> set[str]:
    """All that commits and their history name."""
    found: set[str] = set()
    queue = list(heads)
    while queue:
        commit_id = queue.pop()
        if commit_id in found:
            continue
        commit = Commit.load(store, commit_id)
        queue += commit.parents
        found |= {commit_id, commit.manifest}
        found |= {extra for extra in (commit.rejects, commit.removed) if extra}
        found |= {cell.object_id for cell in Manifest.load(store, commit.manifest)}
    return found


def damage(store: Store, object_id: str) -> None:
    path = Path(store.root, layout.object_path(object_id))
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def lose(store: Store, object_id: str) -> None:
    store.fs.rm_file(f"{store.root}/{layout.object_path(object_id)}")


class Meddler:
    """A listener that does something at the beginning of a phase."""

    def __init__(self, phase: str, act: Callable[[], object]) -> None:
        self._phase, self._act = phase, act

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
        if name == self._phase:
            self._act()

    def advance(self, count: int) -> None: ...


class TestClone:
    def test_round_trip_between_kinds_of_store(
        self, source: Store, store_url: str, tmp_path: Path
    ) -> None:
        there, back = Store(f"{store_url}-copy"), Store(str(tmp_path / "back"))
        summary = clone(source, there)
        assert summary.num_commits == 5
        assert summary.num_objects == len(objects_of(source))
        assert summary.num_bytes == sum(map(len, objects_of(source).values()))
        clone(there, back)
        for copy in (there, back):
            assert refs_of(copy) == refs_of(source)
            assert objects_of(copy) == objects_of(source)
        assert Dataset.open(back, "strict").table("a" * 64, "verdicts")["x"].to_pylist() == [5]

    def test_takes_only_what_is_reachable(self, source: Store, tmp_path: Path) -> None:
        orphan = source.put_bytes(b"nobody names me").object_id
        copy = Store(str(tmp_path / "copy"))
        clone(source, copy)
        assert objects_of(copy).keys() == objects_of(source).keys() - {orphan}
        assert objects_of(copy).keys() == reachable(source, *refs_of(source)[0].values())

    def test_large_objects(self, source: Store, store_url: str, tmp_path: Path) -> None:
        """Through files: into a folder, up, down, and from an object store to another."""
        writer = Writer(source)
        path = tmp_path / "big"
        path.write_bytes(os.urandom(1000) * 20_000)
        big = source.put_file(path)
        cell = Cell(
            shard="c" * 64, layer="images", object_id=big.object_id, num_rows=1,
            num_bytes=big.num_bytes,
        )  # fmt: skip
        writer.commit(cell)
        there, back = Store(f"{store_url}-copy"), Store(str(tmp_path / "back"))
        again = Store(f"{store_url}-again")
        for one, other in ((source, there), (there, again), (again, back)):
            clone(one, other)
            assert other.get_bytes(big.object_id) == path.read_bytes()
        assert not list(Path(back.root).rglob(".*.tmp"))

    def test_place_that_is_a_store(self, source: Store, tmp_path: Path) -> None:
        other = Store(str(tmp_path / "other"))
        init(other)
        before = objects_of(other)
        with pytest.raises(StoreError, match=r"a maskmill store is at .* already; send to it with"):
            clone(source, other)
        assert objects_of(other) == before

    def test_finished_clone(self, source: Store, tmp_path: Path) -> None:
        copy = Store(str(tmp_path / "copy"))
        clone(source, copy)
        with pytest.raises(StoreError, match=r"a finished clone of .*/source; bring it up to date"):
            clone(source, copy)

    def test_unfinished_clone_of_another_store(self, source: Store, tmp_path: Path) -> None:
        copy, other = Store(str(tmp_path / "copy")), Store(str(tmp_path / "other"))
        init(other)
        clone(source, copy)
        copy.remove(layout.CLONE_FINISHED)
        with pytest.raises(StoreError, match="the clone of another store; choose another place"):
            clone(other, copy)

    def test_source_that_was_moved_goes_on(self, source: Store, tmp_path: Path) -> None:
        copy = Store(str(tmp_path / "copy"))
        clone(source, copy)
        copy.remove(layout.CLONE_FINISHED)
        moved = Path(source.root).rename(tmp_path / "moved")
        assert clone(Store(str(moved)), copy).num_objects == 0

    def test_no_source(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"no maskmill store at .*/a; make one with"):
            clone(Store(str(tmp_path / "a")), Store(str(tmp_path / "b")))
        assert not (tmp_path / "b").exists()

    def test_source_that_is_not_finished(self, tmp_path: Path) -> None:
        source = Store(str(tmp_path / "a"))
        source.create()
        with pytest.raises(StoreError, match="has no branch, so there is nothing to clone"):
            clone(source, Store(str(tmp_path / "b")))
        assert not (tmp_path / "b").exists()

    def test_onto_itself(self, source: Store) -> None:
        with pytest.raises(InputError, match="is both source and target; name two stores"):
            clone(source, Store(source.url))

    def test_target_whose_conditional_writes_do_not_exclude(self, source: Store) -> None:
        class Forgetful(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
            """Takes every write for an ordinary one."""

            protocol = "forgetful"

            def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
                super().pipe_file(path, value)

        fsspec.register_implementation("forgetful", Forgetful, clobber=True)
        target = Store(f"forgetful://{uuid.uuid4().hex}")
        with pytest.raises(StoreError, match="ignores conditional writes"):
            clone(source, target)
        assert target.fs.find(target.root) == []

    def test_source_that_grows_meanwhile(self, source: Store, tmp_path: Path) -> None:
        copy = Store(str(tmp_path / "copy"))
        before = refs_of(source)
        clone(source, copy, listener=Meddler("sending", Writer(source).grow))
        assert refs_of(copy) == before


class TestPush:
    @pytest.fixture
    def target(self, source: Store, tmp_path: Path) -> Store:
        copy = Store(str(tmp_path / "target"))
        clone(source, copy)
        return copy

    def test_sends_only_what_is_new(self, source: Store, target: Store) -> None:
        before = {path: path.stat().st_mtime_ns for path in Path(target.root).rglob("*")}
        known = objects_of(target).keys()
        # Nothing that both have is read, asked for or written again.
        for object_id in [cell.object_id for cell in Dataset.open(source).manifest]:
            lose(target, object_id)
        head = Writer(source).grow(2)
        summary = push(source, target)
        new = objects_of(source).keys() - known
        assert (summary.num_objects, summary.num_there) == (len(new), 0)
        assert summary.num_commits == 2
        assert new <= objects_of(target).keys()
        assert Refs(target).head("main").commit == head  # type: ignore[union-attr]
        for path, time_ns in before.items():
            if path.is_file() and path.name not in (".newest",):
                assert path.stat().st_mtime_ns == time_ns, path

    def test_again_is_up_to_date(self, source: Store, target: Store) -> None:
        summary = push(source, target, _EVERYTHING)
        assert {ref.outcome for ref in summary.refs} == {"up to date"}
        assert summary.num_objects == summary.num_there == 0

    def test_default_is_main_alone(self, source: Store, target: Store) -> None:
        writer = Writer(source)
        main, strict = writer.grow(), writer.grow(branch="strict")
        writer.refs.create_tag("v2", main)
        assert [ref.name for ref in push(source, target).refs] == ["main"]
        assert Refs(target).branches()["strict"] != strict
        push(source, target, TransferOptions(refs=["strict", "v2"]))
        assert refs_of(target) == refs_of(source)

    def test_new_branch_and_tag(self, source: Store, target: Store) -> None:
        head = Writer(source).grow(branch="team/new")
        Refs(source).create_tag("team/v1", head)
        summary = push(source, target, _EVERYTHING)
        assert [(ref.name, ref.outcome) for ref in summary.refs if ref.before is None] == [
            ("team/new", "new"),
            ("team/v1", "new"),
        ]
        assert refs_of(target) == refs_of(source)

    def test_branch_that_was_deleted_there(self, source: Store, target: Store) -> None:
        Refs(target).delete_branch("strict")
        push(source, target, TransferOptions(refs=["strict"]))
        assert refs_of(target) == refs_of(source)

    def test_no_fast_forward(self, source: Store, target: Store) -> None:
        theirs, mine = Writer(target).grow(seed=1), Writer(source).grow(seed=2)
        before = objects_of(target)
        with pytest.raises(CommitConflictError, match=r"'maskmill pull .*/target main'") as caught:
            push(source, target)
        assert f"it is at {theirs[:12]}, here it is at {mine[:12]}" in str(caught.value)
        assert (caught.value.expected, caught.value.found) == (mine, theirs)
        assert objects_of(target) == before

    def test_target_that_is_ahead(self, source: Store, target: Store) -> None:
        Writer(target).grow()
        with pytest.raises(CommitConflictError, match="is ahead of the one here"):
            push(source, target)

    def test_one_refused_branch_stops_all(self, source: Store, target: Store) -> None:
        Writer(target).grow(branch="strict", seed=1)
        writer = Writer(source)
        writer.grow(branch="strict", seed=2)
        writer.grow()
        before = refs_of(target)
        with pytest.raises(CommitConflictError, match="nothing was sent"):
            push(source, target, _EVERYTHING)
        assert refs_of(target) == before

    def test_tag_clash(self, source: Store, target: Store) -> None:
        here, there = Writer(source).grow(seed=1), Writer(target).grow(branch="x", seed=2)
        Refs(source).create_tag("v2", here)
        Refs(target).create_tag("v2", there)
        before = objects_of(target), refs_of(target)
        with pytest.raises(RefError, match="tags never move") as caught:
            push(source, target, TransferOptions(tags=True))
        assert f"'v2' ({here[:12]} in {source.url}, {there[:12]} in" in str(caught.value)
        assert (objects_of(target), refs_of(target)) == before

    def test_empty_store_gives_way(self, source: Store, tmp_path: Path) -> None:
        """`init` there, then push: its first commit holds nothing."""
        fresh = Store(str(tmp_path / "fresh"))
        init(fresh)
        assert push(source, fresh).refs[0].outcome == "fast-forward"
        assert Refs(fresh).branches()["main"] == Refs(source).branches()["main"]
        assert [entry.reason for entry in Refs(fresh).history("main")] == ["init", "push"]

    def test_branch_that_moves_meanwhile(self, source: Store, target: Store) -> None:
        mine = Writer(source).grow(seed=1)
        before = Refs(target).branches()["main"]
        moved: list[str] = []
        meddler = Meddler("sending", lambda: moved.append(Writer(target).grow(seed=2)))
        with pytest.raises(CommitConflictError) as caught:
            push(source, target, listener=meddler)
        assert (caught.value.expected, caught.value.found) == (before, moved[0])
        assert Refs(target).branches()["main"] == moved[0]
        assert Commit.load(target, mine)  # it is there, and gc's unless it is pushed again

    def test_two_at_once(self, source: Store, target: Store, tmp_path: Path) -> None:
        """One of two clones wins; the other is told, and can tell why."""
        other = Store(str(tmp_path / "other"))
        clone(source, other)
        mine, theirs = Writer(source).grow(seed=1), Writer(other).grow(seed=2)
        with pytest.raises(CommitConflictError, match=f"found {theirs[:12]}"):
            push(source, target, listener=Meddler("sending", lambda: push(other, target)))
        with pytest.raises(CommitConflictError, match="has commits that are not in"):
            push(source, target)
        assert Refs(target).branches()["main"] == theirs != mine

    def test_objects_that_gc_took_meanwhile(self, source: Store, target: Store) -> None:
        """An orphan of an earlier try is there when it is asked for, and gone before the end."""
        writer = Writer(source)
        cell = writer.cell("d", "a", 123)
        writer.commit(cell)
        target.put_bytes(source.get_bytes(cell.object_id))
        before = refs_of(target)
        meddler = Meddler("sending", lambda: lose(target, cell.object_id))
        with pytest.raises(CommitError, match=r"1 objects have gone .* a of shard dddddddddddd"):
            push(source, target, listener=meddler)
        assert refs_of(target) == before
        push(source, target)
        assert target.get_bytes(cell.object_id)

    def test_dry_run(self, source: Store, target: Store) -> None:
        Writer(source).grow()
        before = objects_of(target), refs_of(target)
        planned = push(source, target, TransferOptions(dry_run=True))
        assert (objects_of(target), refs_of(target)) == before
        assert planned.dry_run
        done = push(source, target)
        assert (planned.num_objects, planned.num_bytes) == (done.num_objects, done.num_bytes)
        assert planned.refs == done.refs

    def test_unknown_ref(self, source: Store, target: Store) -> None:
        with pytest.raises(RefError, match="the nearest is 'main'"):
            push(source, target, TransferOptions(refs=["mian"]))

    def test_commit_id_is_no_ref(self, source: Store, target: Store) -> None:
        head = Refs(source).branches()["main"]
        with pytest.raises(RefError, match=r"is a commit of .* and neither branch nor tag"):
            push(source, target, TransferOptions(refs=[head[:12]]))

    def test_no_target(self, source: Store, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no maskmill store at"):
            push(source, Store(str(tmp_path / "nothing")))

    def test_merged_history_whose_clocks_jump(self, source: Store, target: Store) -> None:
        """Times say nothing about who descends from whom."""
        refs = Refs(source)
        main, strict = refs.branches()["main"], refs.branches()["strict"]
        manifest = Commit.load(source, main).manifest
        for time in ("1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z"):
            merged = Commit(
                parents=(main, strict), manifest=manifest, author="t", message=time, time=time,
                operation=operation("merge", version=1, config={}),
            ).save(source)  # fmt: skip
            refs.advance("main", expected=refs.head("main"), commit=merged, reason="merge")
            assert push(source, target).num_objects == 1
            main = merged
        assert refs_of(target)[0]["main"] == main


class TestDamage:
    @pytest.fixture
    def copy(self, tmp_path: Path) -> Store:
        return Store(str(tmp_path / "copy"))

    @pytest.mark.parametrize("spoil", [damage, lose])
    def test_of_a_cell(
        self, source: Store, copy: Store, spoil: Callable[[Store, str], None]
    ) -> None:
        cell = Dataset.open(source).cell("b" * 64, "boxes")
        good = source.get_bytes(cell.object_id)
        spoil(source, cell.object_id)
        kind = ObjectDamagedError if spoil is damage else ObjectMissingError
        with pytest.raises(kind, match=r"no ref of .*/copy was moved: boxes of shard bbbbbbbbbbbb"):
            clone(source, copy)
        assert refs_of(copy) == ({}, {})
        # All that is whole has come, nothing that is not, and no manifest or commit.
        have = objects_of(copy)
        assert cell.object_id not in have
        assert not any(Commit.load(source, entry).manifest in have for entry in _heads(source))
        Path(source.root, layout.object_path(cell.object_id)).write_bytes(good)
        assert clone(source, copy).num_there == len(have)
        assert refs_of(copy) == refs_of(source)

    def test_of_a_large_one(self, source: Store, copy: Store, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(20_000_000))
        big = source.put_file(tmp_path / "big")
        cell = Cell(
            shard=big.object_id, layer="images", object_id=big.object_id, num_rows=1,
            num_bytes=big.num_bytes,
        )  # fmt: skip
        Writer(source).commit(cell)
        damage(source, big.object_id)
        with pytest.raises(ObjectDamagedError, match="its 20000000 bytes do not hash to its name"):
            clone(source, copy)
        assert big.object_id not in objects_of(copy)
        assert not list(Path(copy.root).rglob(".*.tmp"))

    def test_all_of_it_is_told_at_once(self, source: Store, copy: Store) -> None:
        for cell in Dataset.open(source).manifest:
            lose(source, cell.object_id)
        with pytest.raises(ObjectMissingError, match=r"5 of the objects .* \(and 2 more\)"):
            clone(source, copy)

    @pytest.mark.parametrize("position", ["manifest", "commit"])
    def test_of_what_leads_to_others(self, source: Store, copy: Store, position: str) -> None:
        parent = Commit.load(source, Refs(source).branches()["main"]).parents[0]
        lost = parent if position == "commit" else Commit.load(source, parent).manifest
        damage(source, lost)
        with pytest.raises(ObjectDamagedError, match=f"{lost[:12]}.* is damaged"):
            clone(source, copy)
        assert refs_of(copy) == ({}, {})

    def test_half_an_object_at_the_target_is_replaced(self, source: Store, copy: Store) -> None:
        cell = Dataset.open(source).cell("b" * 64, "boxes")
        path = Path(copy.root, layout.object_path(cell.object_id))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        clone(source, copy)
        assert copy.get_bytes(cell.object_id)

    def test_of_another_branch_of_the_target(self, source: Store, copy: Store) -> None:
        clone(source, copy)
        damage(copy, Refs(copy).branches()["strict"])
        head = Writer(source).grow()
        push(source, copy)
        assert Refs(copy).branches()["main"] == head

    def test_repair_brings_back_what_was_lost(self, source: Store, copy: Store) -> None:
        clone(source, copy)
        lost = [cell.object_id for cell in Dataset.open(copy, "strict").manifest][:3]
        lost.append(Commit.load(copy, Refs(copy).branches()["main"]).manifest)
        for object_id in lost:
            lose(copy, object_id)
        assert push(source, copy, _EVERYTHING).num_objects == 0
        assert push(source, copy, TransferOptions(all_branches=True, repair=True)).num_objects == 4
        assert objects_of(copy) == objects_of(source)
        lose(source, lost[0])
        pull(source, copy, TransferOptions(all_branches=True, repair=True))
        assert objects_of(copy) == objects_of(source)


class TestTakedown:
    """One shard was written again as another, without an image that was taken down."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Store:
        store = Store(str(tmp_path / "source"))
        init(store)
        return store

    @pytest.fixture
    def images(self, source: Store) -> str:
        """The shard as it was at first; its id is that of its images object."""
        return self._commit_shard(source, 1)

    @pytest.fixture
    def head(self, source: Store, images: str) -> str:
        row = RemovedImage(
            image_id="1", file_name="a.jpg", source="shop", shard=images, successor="c" * 64,
            reason="asked", author="me", time="2026-11-24T00:00:00Z",
        )  # fmt: skip
        self._commit_shard(source, 2, without=images, removals=Removals([row]))
        return Refs(source).branches()["main"]

    def _commit_shard(self, store: Store, number: int, **more: Any) -> str:
        images = store.put_bytes(f"images {number}".encode())
        shard = images.object_id
        writer = Writer(store)
        cells = [
            Cell(shard=shard, layer="images", object_id=shard, num_rows=1, num_bytes=8),
            replace(writer.cell("x", "boxes", number), shard=shard),
        ]
        writer.commit(*cells, **more)
        return shard

    @pytest.mark.parametrize("is_collected", [True, False])
    def test_bytes_do_not_travel(
        self, source: Store, images: str, head: str, is_collected: bool, tmp_path: Path
    ) -> None:
        if is_collected:
            lose(source, images)
        copy = Store(str(tmp_path / "copy"))
        init(copy)
        summary = push(source, copy)
        assert summary.num_withheld == 1
        assert Refs(copy).branches()["main"] == head
        assert objects_of(copy).keys() >= reachable(source, head) - {images}
        assert images not in objects_of(copy)

    def test_a_tag_does_not_keep_them(
        self, source: Store, images: str, head: str, tmp_path: Path
    ) -> None:
        """As `gc` has it; what a branch shows is another matter."""
        Refs(source).create_tag("before", Commit.load(source, head).parents[0])
        copy = Store(str(tmp_path / "copy"))
        assert clone(source, copy).num_withheld == 1
        assert images not in objects_of(copy)
        assert refs_of(copy) == refs_of(source)

    def test_shown_by_another_branch_they_travel(
        self, source: Store, images: str, head: str, tmp_path: Path
    ) -> None:
        Refs(source).create_branch("before", Commit.load(source, head).parents[0])
        copy = Store(str(tmp_path / "copy"))
        assert clone(source, copy).num_withheld == 0
        assert images in objects_of(copy)

    def test_old_tag_whose_images_are_gone(
        self, source: Store, images: str, head: str, tmp_path: Path
    ) -> None:
        lose(source, images)
        copy = Store(str(tmp_path / "copy"))
        init(copy)
        Refs(source).create_tag("old", Commit.load(source, head).parents[0])
        summary = push(source, copy, TransferOptions(refs=["old"]))
        assert summary.num_withheld == 1
        assert summary.num_objects == len(objects_of(copy)) - 2  # its own empty commit


class TestPull:
    @pytest.fixture
    def local(self, source: Store, tmp_path: Path) -> Store:
        copy = Store(str(tmp_path / "local"))
        clone(source, copy)
        return copy

    def test_fast_forward(self, source: Store, local: Store) -> None:
        Writer(source).grow(2)
        summary = pull(local, source)
        assert [ref.outcome for ref in summary.refs] == ["fast-forward"]
        assert refs_of(local) == refs_of(source)
        assert Refs(local).head("main").reason == "pull"  # type: ignore[union-attr]

    def test_everything(self, source: Store, local: Store) -> None:
        writer = Writer(source)
        writer.refs.create_tag("v2", writer.grow(branch="new"))
        pull(local, source, _EVERYTHING)
        assert refs_of(local) == refs_of(source)

    def test_nothing_new_and_more_here(self, source: Store, local: Store) -> None:
        head = Writer(local).grow()
        summary = pull(local, source)
        assert [(ref.outcome, ref.after) for ref in summary.refs] == [("ahead", head)]
        assert summary.num_objects == 0

    def test_two_ways_with_ff_only(self, source: Store, local: Store) -> None:
        theirs, mine = Writer(source).grow(seed=1), Writer(local).grow(seed=2)
        before = objects_of(local), refs_of(local)
        with pytest.raises(CommitConflictError) as caught:
            pull(local, source, TransferOptions(ff_only=True))
        text = str(caught.value)
        assert f"here it is at {mine[:12]}, in {source.url} at {theirs[:12]}" in text
        assert "nothing was fetched" in text
        assert (objects_of(local), refs_of(local)) == before

    def test_two_ways_are_merged(self, source: Store, local: Store) -> None:
        theirs, mine = Writer(source).grow(seed=1), Writer(local).grow(seed=2)
        planned = pull(local, source, TransferOptions(dry_run=True))
        assert [(ref.outcome, ref.after) for ref in planned.refs] == [("merge", theirs)]
        (ref,) = pull(local, source).refs
        assert (ref.outcome, ref.before) == ("merge", mine)
        assert ref.after == Refs(local).branches()["main"]
        merged = Commit.load(local, ref.after)
        assert merged.parents == (mine, theirs)
        assert merged.message == f"merge main of {source.url}"
        # And what was merged is a fast-forward for the other side.
        assert push(local, source).refs[0].outcome == "fast-forward"
        assert refs_of(source) == refs_of(local)

    def test_merge_that_is_refused_moves_nothing(self, source: Store, local: Store) -> None:
        theirs_writer, mine = Writer(source), Writer(local)
        theirs = theirs_writer.commit(theirs_writer.cell("a", "boxes", 1))
        theirs_writer.grow(branch="another")
        mine.commit(mine.cell("a", "boxes", 2))
        before = refs_of(local)
        with pytest.raises(MergeConflictError) as caught:
            pull(local, source, _EVERYTHING)
        assert f"to 'maskmill merge {theirs[:12]} --branch main': all of it" in str(caught.value)
        assert len(caught.value.conflicts) == 1
        assert refs_of(local) == before
        assert reachable(source, theirs) <= objects_of(local).keys()
        # What was fetched is not fetched again.
        assert pull(local, source, TransferOptions(dry_run=True)).num_objects == 0
        settlement = Settlement(default="theirs")
        merge_into(local, "main", theirs[:12], settlement=settlement)
        assert pull(local, source).refs[0].outcome == "ahead"

    def test_unrelated_histories(
        self, source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # First commits by one author in one second are the same commit.
        monkeypatch.setenv("MASKMILL_AUTHOR", "somebody else")
        other = Store(str(tmp_path / "other"))
        init(other)
        Writer(other).grow(seed=1)
        before = objects_of(other)
        with pytest.raises(CommitError, match=r"have no common commit, so .* nothing was fetched"):
            pull(other, source)
        assert objects_of(other) == before

    def test_into_an_empty_store(self, source: Store, tmp_path: Path) -> None:
        fresh = Store(str(tmp_path / "fresh"))
        init(fresh)
        assert pull(fresh, source, _EVERYTHING).refs[0].outcome == "fast-forward"
        assert refs_of(fresh) == refs_of(source)

    def test_tag_clash(self, source: Store, local: Store) -> None:
        Refs(source).create_tag("v2", Writer(source).grow(seed=1))
        Refs(local).create_tag("v2", Writer(local).grow(seed=2))
        with pytest.raises(RefError, match="tags that name different commits"):
            pull(local, source, TransferOptions(tags=True))


_KILLED = """
import os, signal, sys
from manifests.store import Store
from manifests.transfer import clone

class Killer:
    left = int(sys.argv[3])
    def begin(self, name, *, total, in_bytes=False):
        self.counts = in_bytes
    def advance(self, count):
        if self.counts:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

clone(Store(sys.argv[1]), Store(sys.argv[2]), listener=Killer())
"""


class TestKilled:
    """SIGKILL after so many objects: what is there is whole, and a second run ends it."""

    @pytest.mark.parametrize("after", [0, 7, 12, 21])
    def test_clone_goes_on(self, source: Store, tmp_path: Path, after: int) -> None:
        Writer(source).grow(2)
        copy = Store(str(tmp_path / "copy"))
        assert len(objects_of(source)) == 25  # the last 7 are commits
        self._kill(source, copy, after)
        self._check_order(source, copy)
        assert refs_of(copy) == ({}, {})
        left = len(objects_of(copy))
        assert left >= after
        summary = clone(source, copy)
        assert summary.num_there == left
        assert summary.num_objects == len(objects_of(source)) - left
        assert (objects_of(copy), refs_of(copy)) == (objects_of(source), refs_of(source))

    def test_clone_to_s3_goes_on(self, source: Store, s3_url: str) -> None:
        copy = Store(s3_url)
        self._kill(source, copy, 5)
        left = len(objects_of(copy))
        assert 0 < left < len(objects_of(source))
        assert clone(source, copy).num_there == left
        assert refs_of(copy) == refs_of(source)

    def test_killed_before_its_store_was_made(self, source: Store, tmp_path: Path) -> None:
        """The mark of the clone is written first: its store is not mistaken for somebody's."""
        copy = Store(str(tmp_path / "copy"))
        clone(source, copy)
        for key in (layout.MARKER, layout.CLONE_FINISHED):
            copy.remove(key)
        clone(source, copy)
        assert copy.is_there()

    def _kill(self, source: Store, copy: Store, after: int) -> None:
        command = [sys.executable, "-c", _KILLED, source.url, copy.url, str(after)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def _check_order(self, source: Store, copy: Store) -> None:
        have = objects_of(copy).keys()
        for commit_id in reachable(source, *refs_of(source)[0].values()) & have:
            if objects_of(copy)[commit_id].startswith(b"{"):
                assert reachable(source, commit_id) <= have


def _heads(store: Store) -> Iterable[str]:
    return refs_of(store)[0].values()


def test_summary_counts_are_those_of_the_stores(source: Store, tmp_path: Path) -> None:
    copy = Store(str(tmp_path / "copy"))
    summary: TransferSummary = clone(source, copy)
    assert (summary.source, summary.target) == (source.url, copy.url)
    assert summary.num_there == summary.num_withheld == 0
    layers = {schemas.IMAGES, schemas.BOXES, schemas.VERDICTS}
    assert set(Dataset.open(copy).manifest.layers()) == layers
