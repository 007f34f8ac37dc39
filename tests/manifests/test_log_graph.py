"""Histories: every commit once and after all its children, drawn so that lines lead to parents."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.commit import CellChanges, Commit
from manifests.commit_reader import CommitReader
from manifests.dataset import init, operation
from manifests.errors import InputError, ObjectMissingError, RefError
from manifests.log import LogOptions, all_refs, in_order, log
from manifests.log_graph import LogGraph
from manifests.manifest import Cell, Manifest
from manifests.refs import RefEntry, Refs
from manifests.store import Store

History = Sequence[tuple[str, str]]
"""(commit, its parents with blanks between), children first."""


def drawn(history: History) -> list[str]:
    graph, lines = LogGraph(), []
    for commit_id, parents in history:
        star, links = graph.place(commit_id, parents.split())
        lines += [f"{star} {commit_id}", *links]
    return lines


PICTURES: dict[str, tuple[History, str]] = {
    "a chain": ([("c", "b"), ("b", "a"), ("a", "")], "* c|* b|* a"),
    "a merge": (
        [("m", "a b"), ("b", "x"), ("a", "x"), ("x", "")],
        "* m||\\|| * b|* | a||/|* x",
    ),
    "two branches": (
        [("s", "a"), ("t", "b"), ("b", "a"), ("a", "")],
        "* s|| * t|| * b||/|* a",
    ),
    "three parents": (
        [("m", "a b c"), ("c", "r"), ("b", "r"), ("a", "r"), ("r", "")],
        "* m||\\|| |\\|| | * c|| * | b|| |/|* | a||/|* r",
    ),
    "unrelated": ([("a", ""), ("b", "")], "* a|* b"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str) -> None:
    history, picture = PICTURES[name]
    assert "|".join(drawn(history)) == picture


def test_a_branch_that_was_merged_and_goes_on() -> None:
    assert drawn([("n", "b"), ("m", "a b"), ("a", "x"), ("b", "x"), ("x", "")]) == [
        "* n",
        "| * m",
        "|/|",
        "| * a",
        "* | b",
        "|/",
        "* x",
    ]


def test_a_line_that_crosses_another() -> None:
    history = [("s", "x"), ("t", "y"), ("u", "z"), ("x", "z"), ("y", "z"), ("z", "")]
    assert drawn(history) == [
        "* s",
        "| * t",
        "| | * u",
        "* | | x",
        "| |/",
        "|/|",
        "| * y",
        "|/",
        "* z",
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    """Random histories with merges, several tips and several roots, children first."""
    size = draw(st.integers(1, 14))
    made: list[tuple[str, list[str]]] = []
    for number in range(size):
        known = [name for name, _ in made]
        parents = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        made.append((f"c{number}", parents))
    return made[::-1]


def reached(lines: list[str], row: int, column: int) -> set[int]:
    """Rows of stars that lines lead down to from a star; a crossing may be taken either way."""
    found: set[int] = set()
    queue = [(row + 1, spot) for spot in (column - 1, column, column + 1)]
    seen = set()
    while queue:
        y, x = queue.pop()
        if (y, x) in seen or y >= len(lines) or not 0 <= x < len(lines[y]):
            continue
        seen.add((y, x))
        mark = lines[y][x]
        if mark == "*":
            found.add(y)
        elif mark == "|":
            queue += [(y + 1, x + step) for step in (-1, 0, 1)]
        elif mark == "/":
            queue += [(y + 1, x - 1), (y + 1, x - 2)]
        elif mark == "\\":
            queue += [(y + 1, x + 1), (y + 1, x + 2)]
    return found


@settings(max_examples=150, deadline=None)
@given(histories())
def test_lines_lead_from_every_commit_to_its_parents(history: list[tuple[str, list[str]]]) -> None:
    graph, lines, stars = LogGraph(), [], {}
    for commit_id, parents in history:
        star, links = graph.place(commit_id, parents)
        assert star.count("*") == 1
        stars[commit_id] = len(lines)
        lines += [star, *links]
    for commit_id, parents in history:
        row = stars[commit_id]
        leads_to = reached(lines, row, lines[row].index("*"))
        assert {stars[parent] for parent in parents} <= leads_to
    # Nothing is left open below the last commit but lines to parents that do not exist here.
    assert not set(lines[-1]) - set("*|/\\ ")


# -- order ---------------------------------------------------------------------------------------


@pytest.fixture
def store(local: Store) -> Store:
    return local


def commit(
    store: Store,
    message: str,
    *parents: str,
    minute: int = 0,
    name: str = "test",
    manifest: Manifest | None = None,
    changes: Mapping[str, CellChanges] | None = None,
) -> str:
    """A commit on top of others; its message is its name in these tests."""
    return Commit(
        parents=parents,
        manifest=(manifest or Manifest()).save(store),
        author="test",
        message=message,
        time=f"2026-11-23T20:{minute:02}:00Z",
        operation=operation(name, version=1, config={}),
        changes=changes,
    ).save(store)


def messages(store: Store, *refs: str, **options: object) -> list[str]:
    entries = log(store, list(refs), LogOptions(**options))  # type: ignore[arg-type]
    return [entry.commit.message for entry in entries]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_commit_comes_before_its_children_whatever_the_clocks_say(
    data: st.DataObject,
) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    ids: list[str] = []
    for number in range(data.draw(st.integers(1, 12))):
        parents = data.draw(st.lists(st.sampled_from(ids), max_size=2, unique=True)) if ids else []
        minute = data.draw(st.integers(0, 59))
        ids.append(commit(store, str(number), *parents, minute=minute))
    for in_lines in (False, True):
        found = [
            commit_id
            for commit_id, _ in in_order(CommitReader(store), ids[::-1], in_lines=in_lines)
        ]
        assert sorted(found) == sorted(ids)
        place = {commit_id: number for number, commit_id in enumerate(found)}
        for commit_id in ids:
            for parent in Commit.load(store, commit_id).parents:
                assert place[commit_id] < place[parent]


def test_newest_first_between_branches_and_line_by_line_for_a_graph(store: Store) -> None:
    base = commit(store, "base", minute=1)
    a1 = commit(store, "a1", base, minute=2)
    b1 = commit(store, "b1", base, minute=3)
    a2 = commit(store, "a2", a1, minute=4)
    b2 = commit(store, "b2", b1, minute=5)
    merged = commit(store, "merged", a2, b2, minute=6)
    assert messages(store, merged) == ["merged", "b2", "a2", "b1", "a1", "base"]
    assert messages(store, merged, in_lines=True) == ["merged", "b2", "b1", "a2", "a1", "base"]
    assert messages(store, a2, b1) == ["a2", "b1", "a1", "base"]
    assert messages(store, merged, limit=2) == ["merged", "b2"]
    assert messages(store, merged, merged, a1) == messages(store, merged)


def test_a_parent_from_the_future_waits_for_its_other_child(store: Store) -> None:
    base = commit(store, "base", minute=50)
    old = commit(store, "old", base, minute=1)
    new = commit(store, "new", base, minute=2)
    assert messages(store, old, new) == ["new", "old", "base"]


def test_a_log_reads_no_more_than_it_shows(store: Store) -> None:
    lost = "0" * 64
    last = commit(store, "last", commit(store, "child", lost))
    assert messages(store, last, limit=2) == ["last", "child"]
    with pytest.raises(ObjectMissingError):
        messages(store, last)
    with pytest.raises(RefError, match="main"):
        messages(store, "mian")
    with pytest.raises(InputError, match="limit"):
        LogOptions(limit=-1)


def test_refs_stand_beside_their_commits(store: Store) -> None:
    refs = Refs(store)
    first = refs.resolve("main")
    second = commit(store, "second", first)
    refs.create_branch("side", second)
    refs.create_branch("other/one", second)
    refs.create_tag("v1", first)
    entries = list(log(store, all_refs(store), LogOptions()))
    assert [(entry.commit.message, entry.refs) for entry in entries] == [
        ("second", ("other/one", "side")), ("empty store", ("main", "tag: v1")),
    ]  # fmt: skip


# -- filters -------------------------------------------------------------------------------------


def cells(**objects: str) -> Manifest:
    """One shard with layers; `masks_a` means `masks/a`."""
    return Manifest(
        Cell(shard="5" * 64, layer=layer.replace("_", "/"), object_id=mark * 64, num_rows=1,
             num_bytes=1)
        for layer, mark in objects.items()
    )  # fmt: skip


def branched(store: Store, *, says_changes: bool) -> str:
    """base - x (masks/a) - y (masks/b) - m, where m merges y with z (masks/a anew, from base)."""
    from manifests.three_way import cell_changes

    def make(message: str, manifest: Manifest, *parents: str, minute: int, name: str) -> str:
        before = (
            Manifest.load(store, Commit.load(store, parents[0]).manifest) if parents else Manifest()
        )
        changes = cell_changes(before, manifest) if says_changes else None
        return commit(
            store, message, *parents, minute=minute, name=name, manifest=manifest, changes=changes
        )

    base = make("base", cells(boxes="0"), minute=1, name="ingest")
    x = make("x", cells(boxes="0", masks_a="1"), base, minute=2, name="label")
    y = make("y", cells(boxes="0", masks_a="1", masks_b="2"), x, minute=3, name="label")
    z = make("z", cells(boxes="0", masks_a="1", masks_c="4"), x, minute=4, name="label")
    both = cells(boxes="0", masks_a="1", masks_b="2", masks_c="4")
    return make("m", both, y, z, minute=5, name="merge")


@pytest.mark.parametrize("says_changes", [True, False])
def test_only_commits_that_changed_a_layer(store: Store, says_changes: bool) -> None:
    head = branched(store, says_changes=says_changes)
    assert messages(store, head, layer="masks/a") == ["x"]
    # The merge took it from its second parent, and made nothing of its own.
    assert messages(store, head, layer="masks/c") == ["z"]
    assert messages(store, head, layer="boxes") == ["base"]
    assert messages(store, head, layer="nope") == []
    assert messages(store, head, operation="label") == ["z", "y", "x"]
    assert messages(store, head, operation="label", layer="masks/b", limit=1) == ["y"]


def test_a_filtered_graph_joins_what_is_left(store: Store) -> None:
    head = branched(store, says_changes=True)
    options = LogOptions(operation="label", in_lines=True)
    entries = {entry.commit.message: entry for entry in log(store, [head], options)}
    assert list(entries) == ["z", "y", "x"]
    x = entries["x"].commit_id
    assert entries["z"].parents == entries["y"].parents == (x,)
    assert entries["x"].parents == ()
    hidden = commit(store, "over", head, entries["x"].commit_id, name="label")
    options = dataclasses.replace(options)
    over = next(log(store, [hidden], options))
    # x is behind y and z anyhow: a line to it would be one too many.
    assert set(over.parents) == {entries["z"].commit_id, entries["y"].commit_id}


# -- reading ahead -------------------------------------------------------------------------------


class CountingStore(Store):
    """Counts reads, and how many of them were under way at once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lock, self.num_reads, self.now, self.most = threading.Lock(), 0, 0, 0

    def read_optional(self, key: str) -> bytes | None:
        with self.lock:
            self.num_reads += 1
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            threading.Event().wait(0.001)
            return super().read_optional(key)
        finally:
            with self.lock:
                self.now -= 1


def long_branch(store: Store, length: int) -> list[str]:
    refs, ids = Refs(store), [Refs(store).resolve("main")]
    for number in range(length):
        entry = RefEntry(number=number + 1, commit=ids[-1], time="", reason="", nonce="")
        ids.append(commit(store, str(number), ids[-1], minute=number % 60))
        refs.advance("main", expected=entry, commit=ids[-1], reason="test")
    return ids


def test_a_long_log_is_read_many_commits_at_a_time(tmp_path: Path) -> None:
    plain = Store(str(tmp_path / "store"))
    init(plain)
    ids = long_branch(plain, 150)
    store = CountingStore(plain.url)
    store.num_reads = store.most = 0
    assert [entry.commit_id for entry in log(store, ["main"], LogOptions())] == ids[::-1]
    assert store.most > 4
    assert store.num_reads < 1.5 * len(ids)
    store.num_reads = 0
    assert len(list(log(store, ["main"], LogOptions(limit=3)))) == 3
    assert store.num_reads < 12
    # A branch that does not end where its log says is read all the same.
    assert len(list(log(store, ["main~7"], LogOptions()))) == len(ids) - 7


def test_what_a_log_names_by_mistake_is_no_matter(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    init(store)
    ids = long_branch(store, 40)
    refs = Refs(store)
    side = commit(store, "elsewhere", "0" * 64)  # its parent is gone
    refs.advance("main", expected=refs.head("main"), commit=side, reason="by mistake")
    for _ in range(8):  # so far apart are the entries that are looked at
        refs.advance("main", expected=refs.head("main"), commit=ids[-1], reason="reset")
    assert [entry.commit_id for entry in log(store, ["main"], LogOptions())] == ids[::-1]
