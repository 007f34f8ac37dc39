"""Garbage collection: what goes, what never does, and writers that are at work meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import layout, pins
from manifests.cells import write_cell
from manifests.commit import Commit
from manifests.dataset import Dataset, operation
from manifests.errors import CommitError, InputError, ObjectDamagedError, StoreError
from manifests.gc import DAY_S, GcOptions, collect_garbage
from manifests.ledger import Ledger
from manifests.manifest import Cell
from manifests.merge import create_branch, create_tag, merge_into, reset
from manifests.pins import Sweep, check_there, pinned, wait_for_sweep
from manifests.refs import Refs
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.store import Store
from manifests.writer import Writer

_NOW = GcOptions(grace_s=0, keep_log_s=0)
_OPERATION = operation("test", version=1, config={})


def _cell(store: Store, value: int, shard: str = "s") -> Cell:
    return write_cell(store, pa.table({"n": [value] * 3}), shard=shard, layer="boxes")


def _commit(store: Store, cell: Cell, branch: str = "main") -> str:
    writer = Writer(store, branch)
    return writer.commit(
        writer.dataset.manifest.with_cells([cell]),
        operation=_OPERATION,
        ledger=Ledger(),
        message="m",
    )


def _is_there(store: Store, object_id: str) -> bool:
    return store.object_size(object_id) is not None


class TestWhatGoes:
    def test_orphans_go_and_everything_reachable_stays(self, store: Store) -> None:
        orphan = store.put_bytes(b"left by a crash").object_id
        cells = [_cell(store, value) for value in range(3)]
        commits = [_commit(store, cell) for cell in cells]
        looked = collect_garbage(store, GcOptions(grace_s=0, keep_log_s=0, dry_run=True))
        assert (looked.deleted, looked.num_deleted) == ([orphan], 1)
        assert _is_there(store, orphan)
        done = collect_garbage(store, _NOW)
        assert done.deleted == [orphan]
        assert done.deleted_bytes == len(b"left by a crash")
        assert not _is_there(store, orphan)
        for number, commit_id in enumerate(commits):
            assert Dataset(store, commit_id).table("s", "boxes")["n"].to_pylist() == [number] * 3
        assert collect_garbage(store, _NOW).num_deleted == 0

    def test_young_objects_stay(self, store: Store) -> None:
        young = store.put_bytes(b"a job is about to commit this").object_id
        done = collect_garbage(store)
        assert (done.num_deleted, done.num_young) == (0, 1)
        assert _is_there(store, young)

    def test_reset_commits_stay_as_long_as_the_log_counts(self, store: Store) -> None:
        first = _commit(store, _cell(store, 1))
        second = _commit(store, _cell(store, 2))
        reset(store, "main", first)
        assert collect_garbage(store, GcOptions(grace_s=0)).num_deleted == 0
        assert Dataset.open(store, "main@{1}").commit_id == second
        # commit, manifest and cell of what the branch no longer has
        assert collect_garbage(store, _NOW).num_deleted == 3
        assert Dataset.open(store).commit_id == first
        with pytest.raises(StoreError, match=f"commit {second[:12]}"):
            Dataset.open(store, "main@{1}")

    @pytest.mark.parametrize("lost", ["commit", "cell"])
    @pytest.mark.parametrize(
        "name", [create_branch, create_tag, reset, merge_into], ids=lambda verb: verb.__name__
    )
    def test_a_young_commit_whose_history_went_gets_no_ref(
        self, local: Store, name: Callable[[Store, str, str], object], lost: str
    ) -> None:
        first = _commit(local, _cell(local, 1))
        cell = _cell(local, 2)
        old = _commit(local, cell)
        young = _commit(local, _cell(local, 3))
        reset(local, "main", first)
        aged = old if lost == "commit" else cell.object_id
        os.utime(Path(local.root) / layout.object_path(aged), (1e9, 1e9))
        assert collect_garbage(local, GcOptions(grace_s=DAY_S, keep_log_s=0)).deleted == [aged]
        says = f"commit {old[:12]} is missing" if lost == "commit" else "no longer in"
        with pytest.raises((StoreError, CommitError), match=says):
            name(local, "main" if name in (reset, merge_into) else "new", young)
        assert Refs(local).branches() == {"main": first}
        assert collect_garbage(local, _NOW).num_deleted > 0  # nothing stands in its way

    def test_deleted_branch(self, local: Store) -> None:
        Refs(local).create_branch("try", Dataset.open(local).commit_id)
        _commit(local, _cell(local, 1), "try")
        Refs(local).delete_branch("try")
        assert collect_garbage(local, GcOptions(grace_s=0)).num_deleted == 0
        assert collect_garbage(local, _NOW).num_deleted == 3

    def test_tags_keep(self, local: Store) -> None:
        first = _commit(local, _cell(local, 1))
        tagged = _commit(local, _cell(local, 2))
        Refs(local).create_tag("v1", tagged)
        reset(local, "main", first)
        assert collect_garbage(local, _NOW).num_deleted == 0
        assert Dataset.open(local, "v1").table("s", "boxes").num_rows == 3

    def test_results_of_deleted_objects_go(self, local: Store) -> None:
        kept, lost = _cell(local, 1), _cell(local, 2)
        _commit(local, kept)
        keys = [work_key(operation="t", version=1, inputs=[str(n)], config={}) for n in range(2)]
        for key, cell in zip(keys, (kept, lost), strict=True):
            publish_result(local, key, ResultRecord(cells=(cell,)))
        done = collect_garbage(local, _NOW)
        assert (done.deleted, done.num_results_deleted) == ([lost.object_id], 1)
        assert find_result(local, keys[0]) is not None
        assert local.read_optional(layout.result_path(keys[1])) is None

    def test_parts_are_the_whole(self, local: Store) -> None:
        orphans = {local.put_bytes(bytes([n])).object_id for n in range(40)}
        found: set[str] = set()
        for share in (1, 2, 3):
            done = collect_garbage(local, GcOptions(grace_s=0, part=(share, 3)))
            assert found.isdisjoint(done.deleted)
            found |= set(done.deleted)
        assert found == orphans

    @pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 257), (-1, -1)])
    def test_parts_that_make_no_sense(self, part: tuple[int, int]) -> None:
        with pytest.raises(InputError, match="expected i/n"):
            GcOptions(part=part)

    def test_foreign_files_are_left_alone(self, local: Store) -> None:
        local.overwrite("objects/ab/notes.txt", b"mine")
        collect_garbage(local, _NOW)
        assert local.read_optional("objects/ab/notes.txt") == b"mine"


class TestDoubt:
    """Whoever cannot tell what must stay deletes nothing."""

    def test_damaged_commit(self, local: Store) -> None:
        first = _commit(local, _cell(local, 1))
        _commit(local, _cell(local, 2))
        orphan = local.put_bytes(b"orphan").object_id
        local.overwrite(layout.object_path(first), b"{}")
        with pytest.raises(ObjectDamagedError):
            collect_garbage(local, _NOW)
        assert _is_there(local, orphan)

    def test_damaged_log(self, local: Store) -> None:
        orphan = local.put_bytes(b"orphan").object_id
        local.overwrite(layout.ref_entry_path(layout.HEADS, "main", 1), b"?")
        with pytest.raises(ObjectDamagedError):
            collect_garbage(local, _NOW)
        assert _is_there(local, orphan)

    def test_a_clock_that_went_back(self, local: Store) -> None:
        """Objects from the future are not old, however the grace period is set."""
        orphan = local.put_bytes(b"orphan").object_id
        path = Path(local.root) / layout.object_path(orphan)
        later = time.time() + DAY_S
        os.utime(path, (later, later))
        done = collect_garbage(local, _NOW)
        assert (done.num_deleted, done.num_from_the_future) == (0, 1)

    def test_using_an_old_object_again_makes_it_young(self, local: Store) -> None:
        orphan = local.put_bytes(b"orphan").object_id
        path = Path(local.root) / layout.object_path(orphan)
        os.utime(path, (1e9, 1e9))
        local.put_bytes(b"orphan")
        assert collect_garbage(local, GcOptions(grace_s=DAY_S)).num_young == 1


class TestBesideWriters:
    def test_a_pinned_commit_is_kept(self, store: Store) -> None:
        commit_id = _unpublished(store, _cell(store, 5))
        with pinned(store, commit_id):
            assert collect_garbage(store, _NOW).num_deleted == 0
        assert collect_garbage(store, _NOW).num_deleted == 3

    def test_a_pin_of_nothing_keeps_nothing(self, local: Store) -> None:
        local.create_if_absent(f"{layout.PINS}/dead", b"not an id")
        local.create_if_absent(f"{layout.PINS}/gone", b"0" * 64)
        assert collect_garbage(local, _NOW).num_deleted == 0

    def test_a_pinned_commit_that_is_just_being_stored(self, local: Store) -> None:
        """Its manifest is not there yet: gc goes on, and the writer finds out what is left."""
        commit_id = _unpublished(local, _cell(local, 5))
        manifest = Commit.load(local, commit_id).manifest
        local.remove(layout.object_path(manifest))
        local.create_if_absent(f"{layout.PINS}/writer", commit_id.encode())
        assert collect_garbage(local, _NOW).num_deleted == 2

    def test_a_writer_waits_for_a_sweep_and_looks_again(self, local: Store) -> None:
        cell = _cell(local, 5)
        commit_id = _unpublished(local, cell)
        order: list[str] = []

        def write() -> None:
            with pinned(local, commit_id):
                order.append("entered")
                with pytest.raises(CommitError, match=r"no longer in .* run the same command"):
                    check_there(local, [cell])

        with Sweep(local).held():
            thread = threading.Thread(target=write)
            thread.start()
            time.sleep(1.5)
            local.remove(layout.object_path(cell.object_id))
            order.append("deleted")
        thread.join(30)
        assert order == ["deleted", "entered"]

    def test_published_between_looking_and_deleting(
        self, local: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The branch moves after gc has looked: what it reaches now is not deleted."""
        cell = _cell(local, 5)
        held = Sweep.held

        def late(self: Sweep) -> object:
            _commit(local, cell)
            return held(self)

        monkeypatch.setattr(Sweep, "held", late)
        done = collect_garbage(local, _NOW)
        assert (done.num_deleted, done.num_saved) == (0, 1)
        assert Dataset.open(local).table("s", "boxes").num_rows == 3

    def test_a_dead_sweep_is_passed_over(
        self, local: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.create_if_absent(layout.SWEEP, b"somebody 1")
        monkeypatch.setattr(pins, "DEAD_S", 0.2)
        wait_for_sweep(local)
        assert collect_garbage(local, _NOW).num_deleted == 0
        orphan = local.put_bytes(b"orphan").object_id
        assert collect_garbage(local, _NOW).deleted == [orphan]
        assert local.read_optional(layout.SWEEP) is None

    def test_a_sweep_that_goes_on_for_ever(self, local: Store) -> None:
        count = iter(range(10_000))
        local.create_if_absent(layout.SWEEP, b"somebody")

        def tick(_: float) -> None:
            local.overwrite(layout.SWEEP, f"somebody {next(count)}".encode())

        with pytest.raises(StoreError, match=r"has been deleting in .* for 0 s; wait"):
            wait_for_sweep(local, patience_s=0.05, sleep=tick)

    def test_a_sweep_that_lost_its_place_stops(
        self, local: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pins, "REFRESH_S", 0.0)
        sweep = Sweep(local)
        with sweep.held():
            sweep.refresh()
            local.overwrite(layout.SWEEP, b"somebody else")
            with pytest.raises(StoreError, match="lost its place"):
                sweep.refresh()
        assert local.read_optional(layout.SWEEP) == b"somebody else"

    def test_writers_and_collectors_together(self, store: Store) -> None:
        """No grace at all: a writer may have to start again, but no commit ever lacks an object."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def collect() -> None:
            while not stop.is_set():
                try:
                    collect_garbage(Store(store.url), _NOW)
                except StoreError as error:
                    if "just began" not in str(error) and "lost its place" not in str(error):
                        failures.append(error)

        def write(name: int) -> list[str]:
            own = Store(store.url)
            return [_until_it_holds(lambda n=n: _commit(own, _cell(own, n, f"{name}-{n}")))
                    for n in range(4)]  # fmt: skip

        collector = threading.Thread(target=collect)
        collector.start()
        try:
            commits = [commit for name in range(2) for commit in write(name)]
        finally:
            stop.set()
            collector.join(120)
        assert failures == []
        dataset = Dataset.open(store)
        assert len(dataset.manifest.shards()) == 8
        for commit_id in commits:
            for cell in Dataset(store, commit_id).manifest:
                assert store.object_size(cell.object_id) == cell.num_bytes


def _until_it_holds(commit: Callable[[], str]) -> str:
    for _ in range(50):
        try:
            return commit()
        except (CommitError, StoreError):
            continue
    raise TimeoutError("the writer never got its objects past gc")


def _unpublished(store: Store, cell: Cell) -> str:
    """A commit that no ref names yet."""
    head = Dataset.open(store)
    return Commit(
        parents=(head.commit_id,),
        manifest=head.manifest.with_cells([cell]).save(store),
        author="me",
        message="m",
        time="2026-11-23T20:00:00Z",
        operation=_OPERATION,
    ).save(store)
