"""Done work is found by its key, once, and only while everything it made is there."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import layout
from manifests.cells import write_cell
from manifests.errors import RefError
from manifests.ledger import LedgerRow
from manifests.results import (
    ResultRecord,
    drop_scratch,
    find_result,
    publish_result,
    work_key,
)
from manifests.store import Store

_WORK = {"operation": "label", "version": 1, "inputs": ["a", "b"], "config": {"x": 1}}
_KEY = work_key(operation="label", version=1, inputs=["a", "b"], config={"x": 1})


def _record(store: Store, value: int = 0) -> ResultRecord:
    cell = write_cell(store, pa.table({"value": [value]}), shard="s", layer="boxes")
    row = LedgerRow(layer="boxes", category="cat", inputs=0, kept=1, failed={"timeout": value})
    return ResultRecord(cells=(cell,), ledger=(row,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _remove(store: Store, object_id: str) -> None:
    store.fs.rm_file(f"{store.root}/{layout.object_path(object_id)}")


def test_work_key_is_pinned() -> None:
    """A change here makes every store forget all that it has done."""
    assert _KEY == "a961378131276e7b69692aa58d0c8084b2d4d4aabc1c34751933b530d70dd33c"


@pytest.mark.parametrize(
    "change",
    [{"operation": "ingest"}, {"version": 2}, {"inputs": ["b", "a"]}, {"config": {"x": 2}}],
)
def test_work_key_depends_on_everything(change: dict[str, object]) -> None:
    assert work_key(**_WORK) == _KEY  # type: ignore[arg-type]
    assert work_key(**{**_WORK, **change}) != _KEY  # type: ignore[arg-type]


def test_published_is_found(store_url: str) -> None:
    store = Store(store_url)
    assert find_result(store, _KEY) is None
    record = _record(store)
    assert publish_result(store, _KEY, record) == record
    assert find_result(store, _KEY) == record
    assert find_result(Store(store_url), _KEY) == record


def test_scratch_records_are_kept_apart_and_dropped_alone(store_url: str) -> None:
    store, apart = Store(store_url), Store(store_url, "again-1")
    other = Store(store_url, "again-2")
    theirs, ours = _record(store, 1), _record(store, 2)
    publish_result(store, _KEY, theirs)
    assert find_result(apart, _KEY) is None
    assert publish_result(apart, _KEY, ours) == ours
    publish_result(other, _KEY, theirs)
    in_a_worker = pickle.loads(pickle.dumps(apart))  # noqa: S301
    assert find_result(in_a_worker, _KEY) == ours
    drop_scratch(apart)
    drop_scratch(apart)
    assert find_result(apart, _KEY) is None
    assert find_result(store, _KEY) == find_result(other, _KEY) == theirs
    left = store.fs.find(f"{store.root}/scratch")
    assert [path.rsplit("/scratch/", 1)[1] for path in left] == [
        layout.result_path(_KEY, "again-2").removeprefix("scratch/")
    ]


def test_everybodys_records_are_never_dropped(store: Store) -> None:
    publish_result(store, _KEY, _record(store))
    with pytest.raises(RefError, match="is not possible"):
        drop_scratch(store)
    assert find_result(store, _KEY)


def test_first_of_two_workers_wins(store_url: str) -> None:
    store = Store(store_url)
    first, second = _record(store, 1), _record(store, 2)
    assert publish_result(store, _KEY, first) == first
    assert publish_result(store, _KEY, second) == first
    assert find_result(store, _KEY) == first


def test_racing_workers_agree(store: Store) -> None:
    records = [_record(store, number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        agreed = list(pool.map(lambda record: publish_result(store, _KEY, record), records))
    assert all(record == agreed[0] for record in agreed)
    assert find_result(store, _KEY) == agreed[0]


def test_object_that_is_gone_or_of_another_size_undoes_the_work(store_url: str) -> None:
    store = Store(store_url)
    old, new = _record(store, 1), _record(store, 2)
    publish_result(store, _KEY, old)
    store.overwrite(layout.object_path(old.cells[0].object_id), b"short")
    assert find_result(store, _KEY) is None
    _remove(store, old.cells[0].object_id)
    assert find_result(store, _KEY) is None
    assert publish_result(store, _KEY, new) == new
    assert find_result(store, _KEY) == new


def test_rejects_that_are_gone_undo_the_work(store: Store) -> None:
    rejects = store.put_bytes(b"rejected").object_id
    record = replace(_record(store), rejects=rejects)
    publish_result(store, _KEY, record)
    assert find_result(store, _KEY) == record
    _remove(store, rejects)
    assert find_result(store, _KEY) is None


@pytest.mark.parametrize(
    "bad",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"cells":1}', b'{"cells":[{}]}'),
        b'{"cells":[],"ledger":[],"rejects":"../../maskmill.json"}',
    ],
)
def test_damaged_record_is_work_to_do(store: Store, bad: bytes) -> None:
    store.overwrite(layout.result_path(_KEY), bad)
    assert find_result(store, _KEY) is None
    record = _record(store)
    assert publish_result(store, _KEY, record) == record
    assert find_result(store, _KEY) == record
