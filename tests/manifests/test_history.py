"""History: every commit once, newest first, also through merges and clocks that jump."""

from __future__ import annotations

import pytest

from manifests.commit import Commit
from manifests.dataset import operation
from manifests.errors import ObjectMissingError, RefError
from manifests.history import history, newest
from manifests.refs import Refs
from manifests.store import Store


@pytest.fixture
def store(local: Store) -> Store:
    return local


def commit(store: Store, message: str, *parents: str, minute: int = 0) -> str:
    """A commit on top of others; its message is its name in these tests."""
    manifest = Commit.load(store, Refs(store).resolve("main")).manifest
    return Commit(
        parents=parents,
        manifest=manifest,
        author="test",
        message=message,
        time=f"2026-11-23T20:{minute:02}:00Z",
        operation=operation("test", version=1, config={}),
    ).save(store)


def messages(store: Store, ref: str) -> list[str]:
    return [entry.commit.message for entry in history(store, ref)]


def test_a_chain_is_walked_to_its_beginning(store: Store) -> None:
    first = Refs(store).resolve("main")
    second = commit(store, "second", first)
    third = commit(store, "third", second)
    entries = list(history(store, third))
    assert [entry.commit_id for entry in entries] == [third, second, first]
    assert [entry.commit.message for entry in entries] == ["third", "second", "empty store"]
    assert messages(store, second[:12]) == ["second", "empty store"]
    assert messages(store, f"{third}~1") == ["second", "empty store"]


def test_a_clock_that_jumped_back_does_not_turn_the_order_round(store: Store) -> None:
    first = commit(store, "first", minute=50)
    second = commit(store, "second", first, minute=1)
    assert messages(store, second) == ["second", "first"]


def test_a_merge_yields_both_sides_once_by_time(store: Store) -> None:
    base = commit(store, "base", minute=1)
    left = commit(store, "left", base, minute=2)
    right = commit(store, "right", base, minute=3)
    merged = commit(store, "merged", left, right, minute=4)
    assert messages(store, merged) == ["merged", "right", "left", "base"]


def test_the_newest_that_matches(store: Store) -> None:
    first = commit(store, "a", minute=1)
    second = commit(store, "b", first, minute=2)
    third = commit(store, "a", second, minute=3)
    last = commit(store, "c", third, minute=4)
    found = newest(store, last, lambda entry: entry.message == "a")
    assert found is not None
    assert found.commit_id == third
    assert newest(store, last, lambda entry: entry.message == "z") is None


def test_it_is_lazy_and_says_what_is_missing(store: Store) -> None:
    lost = "0" * 64
    last = commit(store, "last", commit(store, "child", lost))
    entries = history(store, last)
    assert next(entries).commit.message == "last"
    with pytest.raises(ObjectMissingError):
        list(entries)
    with pytest.raises(RefError, match="main"):
        next(history(store, "mian"))
