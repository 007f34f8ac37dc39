"""Commits: canonical bytes, a pinned id, and what damage to one looks like."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest

from manifests import layout
from manifests.commit import Category, Commit, Operation, default_author, now
from manifests.errors import (
    LedgerImbalanceError,
    ObjectDamagedError,
    ObjectMissingError,
    StoreError,
)
from manifests.ledger import Ledger, LedgerRow
from manifests.store import Store

_ROW = LedgerRow(layer="boxes", category="cat", inputs=3, kept=1, dropped={"tiny": 2})
_EXAMPLE = Commit(
    parents=("1" * 64,),
    manifest="2" * 64,
    author="Zoë",
    message="two\nlines",
    time="2026-11-23T20:00:00Z",
    operation=Operation(
        name="label",
        version=2,
        config={"b": 1.5, "a": [True, None]},
        config_digest="3" * 64,
        teacher={"name": "box"},
        code={"numpy": "2.4"},
    ),
    categories=(Category(name="cat", supercategory="animal", source_ids={"coco": "17"}),),
    ledger=Ledger(rows=(_ROW,)),
    rejects="4" * 64,
)
_EXAMPLE_ID = "6cffef7a63baa0f48cee5e5061d30a105fc8932b1dc2c753caf6b783948c0189"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_round_trip(store: Store) -> None:
    assert Commit.load(store, _EXAMPLE.save(store)) == _EXAMPLE


def test_id_is_pinned(store: Store) -> None:
    """If this fails, the format has changed: raise FORMAT and keep reading the old one."""
    assert _EXAMPLE.save(store) == _EXAMPLE_ID


def test_bytes_are_canonical_json(store: Store) -> None:
    data = store.get_bytes(_EXAMPLE.save(store))
    plain = json.loads(data)
    assert (
        data
        == json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert list(plain) == sorted(plain)


def test_imbalance_is_refused_and_nothing_stored(store: Store) -> None:
    row = LedgerRow(layer="boxes", category="cat", inputs=3, kept=1)
    commit = Commit(
        parents=(),
        manifest="2" * 64,
        author="",
        message="",
        time=now(),
        operation=_EXAMPLE.operation,
        ledger=Ledger(rows=(row,)),
    )
    with pytest.raises(LedgerImbalanceError, match="nothing was committed"):
        commit.save(store)
    assert store.list_names("objects") == []


@pytest.mark.parametrize("bad", [b"", b"{}", b"[]", b"PAR1", b"\xff", b'{"parents":"x"}'])
def test_another_object_is_not_a_commit(store: Store, bad: bytes) -> None:
    object_id = store.put_bytes(bad).object_id
    with pytest.raises(ObjectDamagedError, match=f"object {object_id[:12]} is not a commit"):
        Commit.load(store, object_id)


def test_truncated_and_missing(store: Store) -> None:
    commit_id = _EXAMPLE.save(store)
    data = store.get_bytes(commit_id)
    store.overwrite(layout.object_path(commit_id), data[:-5])
    with pytest.raises(ObjectDamagedError, match="do not hash to its name"):
        Commit.load(store, commit_id)
    with pytest.raises(ObjectMissingError, match="restore it from a copy"):
        Commit.load(store, "9" * 64)


def test_newer_format_is_named(store: Store) -> None:
    data = json.loads(store.get_bytes(_EXAMPLE.save(store)))
    newer = store.put_bytes(json.dumps({**data, "format": 2, "more": 1}).encode())
    with pytest.raises(StoreError, match="has format 2, expected 1; use the maskmill version"):
        Commit.load(store, newer.object_id)


def test_author(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKMILL_AUTHOR", "Zoë")
    assert default_author() == "Zoë"
    monkeypatch.delenv("MASKMILL_AUTHOR")
    assert default_author() == getpass.getuser()
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert default_author()


def test_time_is_utc_to_the_second() -> None:
    assert len(now()) == len("2026-11-23T20:00:00Z")
    assert now().endswith("Z")
