"""Opening a commit, committing to a branch, and losing a race without losing work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import layout
from manifests.cells import write_cell
from manifests.commit import Category
from manifests.dataset import Dataset, init, operation
from manifests.errors import (
    CommitConflictError,
    CommitError,
    LedgerImbalanceError,
    ObjectDamagedError,
    ObjectMissingError,
    RefError,
    StoreError,
)
from manifests.ledger import Ledger, LedgerRow
from manifests.manifest import Cell
from manifests.refs import Refs
from manifests.store import Store
from manifests.writer import Writer

_OPERATION = operation("test", version=1, config={"a": 1})

_COMMITTER = """
import os, sys
import pyarrow as pa
from manifests.cells import write_cell
from manifests.dataset import operation
from manifests.writer import Writer
from manifests.ledger import Ledger
from manifests.store import Store

store = Store(sys.argv[1])
while True:
    writer, shard = Writer(store, "main"), os.urandom(8).hex()
    cell = write_cell(store, pa.table({"n": [shard] * 9}), shard=shard, layer="boxes")
    writer.commit(
        writer.dataset.manifest.with_cells([cell]),
        operation=operation("test", version=1, config={}),
        ledger=Ledger(),
        message="m",
    )
    print("ready", flush=True)
"""


def _cell(store: Store, number: int, shard: str = "s") -> Cell:
    return write_cell(store, pa.table({"n": [number, number]}), shard=shard, layer="boxes")


def _commit(writer: Writer, *cells: Cell, ledger: Ledger | None = None) -> str:
    return writer.commit(
        writer.dataset.manifest.with_cells(cells),
        operation=_OPERATION,
        ledger=ledger or Ledger(),
        message="m",
    )


class TestInit:
    def test_empty_first_commit(self, store: Store) -> None:
        dataset = Dataset.open(store)
        assert dataset.commit.parents == ()
        assert len(dataset.manifest) == 0
        assert dataset.commit.operation.name == "init"
        assert {"maskmill", "pyarrow"} <= dataset.commit.operation.code.keys()

    def test_only_once(self, store: Store) -> None:
        head = Refs(store).head("main")
        with pytest.raises(StoreError, match="already; use it as it is"):
            init(store)
        assert Refs(store).head("main") == head

    def test_opening_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="make one with 'maskmill init'"):
            Dataset.open(Store(str(tmp_path)))
        with pytest.raises(StoreError, match="make one with 'maskmill init'"):
            Writer(Store(str(tmp_path)), "main")


class TestWriter:
    def test_commit_and_read(self, store: Store) -> None:
        start = Dataset.open(store)
        row = LedgerRow(layer="boxes", category="cat", inputs=2, kept=2)
        commit_id = _commit(Writer(store, "main"), _cell(store, 7), ledger=Ledger(rows=(row,)))
        dataset = Dataset.open(store)
        assert dataset.commit_id == commit_id
        assert dataset.commit.parents == (start.commit_id,)
        assert dataset.commit.ledger.rows == (row,)
        assert dataset.table("s", "boxes").to_pydict() == {"n": [7, 7]}
        assert len(Dataset.open(store, "main~1").manifest) == 0

    def test_writers_of_different_cells_both_land(self, store: Store) -> None:
        one, two = Writer(store, "main"), Writer(store, "main")
        first = _commit(one, _cell(store, 1, "a"))
        second = _commit(two, _cell(store, 2, "b"))
        dataset = Dataset.open(store)
        assert dataset.commit_id == second
        assert dataset.manifest.shards() == ("a", "b")
        assert dataset.commit.parents == (first,)

    def test_second_writer_of_one_cell_gets_a_conflict(self, store: Store) -> None:
        one, two = Writer(store, "main"), Writer(store, "main")
        started = one.dataset.commit_id
        first = _commit(one, _cell(store, 1, "a"))
        with pytest.raises(CommitConflictError) as caught:
            _commit(two, _cell(store, 2, "a"))
        assert (caught.value.expected, caught.value.found) == (started, first)
        _commit(Writer(store, "main"), _cell(store, 2, "a"))
        dataset = Dataset.open(store)
        assert dataset.table("a", "boxes").to_pydict() == {"n": [2, 2]}
        assert dataset.commit.parents == (first,)

    def test_a_writer_commits_once(self, local: Store) -> None:
        writer = Writer(local, "main")
        _commit(writer, _cell(local, 1))
        with pytest.raises(CommitConflictError):
            _commit(writer, _cell(local, 2))

    def test_nothing_to_commit(self, local: Store) -> None:
        _commit(Writer(local, "main"), _cell(local, 1))
        head = Refs(local).head("main")
        with pytest.raises(CommitError, match="nothing to commit: 'main' has the outcome of this"):
            _commit(Writer(local, "main"), _cell(local, 1))
        assert Refs(local).head("main") == head

    def test_imbalance_moves_nothing(self, local: Store) -> None:
        head = Refs(local).head("main")
        row = LedgerRow(layer="boxes", category="cat", inputs=2, kept=1)
        with pytest.raises(LedgerImbalanceError):
            _commit(Writer(local, "main"), _cell(local, 1), ledger=Ledger(rows=(row,)))
        assert Refs(local).head("main") == head

    def test_categories_stay_unless_given(self, local: Store) -> None:
        cats = (Category(name="cat"),)
        writer = Writer(local, "main")
        manifest = writer.dataset.manifest.with_cells([_cell(local, 1)])
        writer.commit(manifest, operation=_OPERATION, ledger=Ledger(), message="", categories=cats)
        _commit(Writer(local, "main"), _cell(local, 2))
        assert Dataset.open(local).commit.categories == cats

    def test_branches_are_apart(self, local: Store) -> None:
        Refs(local).create_branch("side", Dataset.open(local).commit_id)
        _commit(Writer(local, "side"), _cell(local, 1))
        assert len(Dataset.open(local).manifest) == 0
        assert len(Dataset.open(local, "side").manifest) == 1

    def test_only_branches_can_be_written(self, local: Store) -> None:
        Refs(local).create_tag("v1", Dataset.open(local).commit_id)
        with pytest.raises(RefError, match="'v1' is not a branch"):
            Writer(local, "v1")
        with pytest.raises(RefError, match="the nearest is 'main'"):
            Writer(local, "mian")


class TestDamage:
    """Each kind of object in turn, cut short and removed."""

    def _objects(self, store: Store) -> dict[str, str]:
        _commit(Writer(store, "main"), _cell(store, 1))
        dataset = Dataset.open(store)
        cell = dataset.cell("s", "boxes").object_id
        return {"commit": dataset.commit_id, "manifest": dataset.commit.manifest, "cell": cell}

    @pytest.mark.parametrize("position", ["commit", "manifest", "cell"])
    def test_truncated(self, store: Store, position: str) -> None:
        object_id = self._objects(store)[position]
        data = store.get_bytes(object_id)
        store.overwrite(layout.object_path(object_id), data[:-1])
        with pytest.raises(ObjectDamagedError, match=r"is damaged \(.*restore it from a copy"):
            Dataset.open(store).table("s", "boxes")

    @pytest.mark.parametrize("position", ["commit", "manifest", "cell"])
    def test_missing(self, store: Store, position: str) -> None:
        object_id = self._objects(store)[position]
        store.fs.rm_file(f"{store.root}/{layout.object_path(object_id)}")
        with pytest.raises(ObjectMissingError, match=rf"is missing \(object {object_id[:12]}\)"):
            Dataset.open(store).table("s", "boxes")

    def test_cell_with_other_rows(self, local: Store) -> None:
        cell = _cell(local, 1)
        lie = Cell(
            shard="s", layer="boxes", object_id=cell.object_id, num_rows=3, num_bytes=cell.num_bytes
        )
        _commit(Writer(local, "main"), lie)
        with pytest.raises(ObjectDamagedError, match=r"of boxes is damaged \(expected 3 rows"):
            Dataset.open(local).table("s", "boxes")

    def test_layer_that_is_not_there(self, local: Store) -> None:
        _commit(Writer(local, "main"), _cell(local, 1))
        with pytest.raises(RefError, match="no layer 'verdicts' for shard s; layers here: boxes"):
            Dataset.open(local).table("s", "verdicts")


def test_operation_names_what_made_it() -> None:
    made = operation("x", version=3, config={"b": 1, "a": 2}, packages=("pillow",))
    assert made.config_digest == operation("y", version=1, config={"a": 2, "b": 1}).config_digest
    assert "pillow" in made.code
    with pytest.raises(ValueError, match="not JSON compliant"):
        operation("x", version=1, config={"a": float("nan")})


def _run_and_kill(url: str, after_s: float) -> None:
    command = [sys.executable, "-c", _COMMITTER, url]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_killed_at_any_moment_the_store_opens_and_is_whole(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path) if kind == "file" else str(request.getfixturevalue("s3_url"))
    store = Store(url)
    init(store)
    for number in range(6):
        _run_and_kill(url, 0.03 + 0.041 * number)
        history = Refs(store).history("main")
        assert [entry.number for entry in history] == list(range(1, len(history) + 1))
        for entry in history[-3:]:
            dataset = Dataset(store, entry.commit)
            for cell in dataset.manifest:
                assert dataset.table(cell.shard, cell.layer).num_rows == 9
    assert len(Refs(store).history("main")) >= 7
