"""Common ancestors, against a brute force over random histories, and with clocks that jump."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.ancestry import is_ancestor, merge_bases
from manifests.commit import Commit, Operation
from manifests.store import Store

_OPERATION = Operation(name="test", version=1, config={}, config_digest="0" * 64)
_COUNTER = itertools.count()


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _commit(store: Store, *parents: str, minute: int = 0) -> str:
    return Commit(
        parents=parents,
        manifest="0" * 64,
        author="me",
        message=str(next(_COUNTER)),
        time=f"2026-11-23T20:{minute:02d}:00Z",
        operation=_OPERATION,
    ).save(store)


def _all_ancestors(graph: dict[str, tuple[str, ...]], commit: str) -> set[str]:
    found, queue = {commit}, [commit]
    while queue:
        for parent in graph[queue.pop()]:
            if parent not in found:
                found.add(parent)
                queue.append(parent)
    return found


def test_fork(local: Store) -> None:
    root = _commit(local)
    base = _commit(local, root, minute=1)
    ours = _commit(local, base, minute=2)
    theirs = _commit(local, _commit(local, base, minute=3), minute=4)
    assert merge_bases(local, ours, theirs) == (base,)
    assert merge_bases(local, base, theirs) == (base,)
    assert merge_bases(local, ours, ours) == (ours,)
    assert is_ancestor(local, root, theirs)
    assert not is_ancestor(local, ours, theirs)
    assert not is_ancestor(local, theirs, base)


def test_unrelated(local: Store) -> None:
    assert merge_bases(local, _commit(local), _commit(local)) == ()


def test_crosswise_merges_have_two_bases(local: Store) -> None:
    root = _commit(local)
    one, two = _commit(local, root, minute=1), _commit(local, root, minute=1)
    ours, theirs = _commit(local, one, two, minute=2), _commit(local, two, one, minute=3)
    assert merge_bases(local, ours, theirs) == tuple(sorted((one, two)))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_histories_with_random_clocks(local: Store, data: st.DataObject) -> None:
    ids: list[str] = []
    graph: dict[str, tuple[str, ...]] = {}
    for number in range(data.draw(st.integers(2, 12))):
        few = st.lists(st.sampled_from(ids), max_size=2, unique=True) if ids else st.just([])
        parents = tuple(data.draw(few))
        clock = data.draw(st.one_of(st.just(number), st.integers(0, 59)))
        commit = _commit(local, *parents, minute=clock)
        ids.append(commit)
        graph[commit] = parents
    ours, theirs = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    common = _all_ancestors(graph, ours) & _all_ancestors(graph, theirs)
    best = {
        commit
        for commit in common
        if not any(commit in _all_ancestors(graph, other) - {other} for other in common)
    }
    assert set(merge_bases(local, ours, theirs)) == best
