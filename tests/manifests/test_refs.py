"""Branches, tags, what a text resolves to, and what two writers get."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from manifests import layout
from manifests.commit import Commit, Operation
from manifests.dataset import init
from manifests.errors import CommitConflictError, ObjectDamagedError, RefError, StoreError
from manifests.refs import Refs
from manifests.store import Store

_OPERATION = Operation(name="test", version=1, config={}, config_digest="0" * 64)


@pytest.fixture
def refs(store_url: str) -> Refs:
    return Refs(Store(store_url))


@pytest.fixture
def local(tmp_path: Path) -> Refs:
    return Refs(Store(str(tmp_path)))


def _commit(refs: Refs, message: str, *parents: str) -> str:
    return Commit(
        parents=parents,
        manifest="0" * 64,
        author="me",
        message=message,
        time="2026-11-23T20:00:00Z",
        operation=_OPERATION,
    ).save(refs.store)


def _chain(refs: Refs, branch: str, length: int) -> list[str]:
    ids: list[str] = []
    for number in range(length):
        ids.append(_commit(refs, f"{branch} {number}", *ids[-1:]))
        refs.advance(branch, expected=refs.head(branch), commit=ids[-1], reason="test")
    return ids


class TestLog:
    def test_head_and_history(self, refs: Refs) -> None:
        assert refs.head("main") is None
        assert refs.history("main") == []
        ids = _chain(refs, "main", 3)
        head = refs.head("main")
        assert head is not None
        assert (head.number, head.commit) == (3, ids[2])
        assert [entry.commit for entry in refs.history("main")] == ids

    def test_branches_share_the_beginning_of_a_name(self, refs: Refs) -> None:
        (a,) = _chain(refs, "a", 1)
        (ab,) = _chain(refs, "a/b", 1)
        (abc,) = _chain(refs, "a/b/c.d-e", 1)
        (aa,) = _chain(refs, "aa", 1)
        assert refs.branches() == {"a": a, "a/b": ab, "a/b/c.d-e": abc, "aa": aa}
        assert [entry.commit for entry in refs.history("a")] == [a]

    def test_tag_never_moves(self, refs: Refs) -> None:
        one, two = _commit(refs, "1"), _commit(refs, "2")
        refs.create_tag("v1/final", one)
        with pytest.raises(RefError, match=f"tag 'v1/final' exists already and names {one[:12]}"):
            refs.create_tag("v1/final", two)
        with pytest.raises(RefError, match="tags never move"):
            refs.create_tag("v1/final", one)
        assert refs.tags() == {"v1/final": one}
        assert refs.branches() == {}

    def test_branch_exists(self, refs: Refs) -> None:
        (first,) = _chain(refs, "main", 1)
        refs.create_branch("other", first)
        with pytest.raises(RefError, match="branch 'other' exists already"):
            refs.create_branch("other", first)


class TestConflict:
    def test_names_both_commits(self, refs: Refs) -> None:
        (first,) = _chain(refs, "main", 1)
        start = refs.head("main")
        mine, theirs = _commit(refs, "mine", first), _commit(refs, "theirs", first)
        refs.advance("main", expected=start, commit=theirs, reason="test")
        message = (
            f"branch 'main' moved: expected {first[:12]}, found {theirs[:12]}; "
            "run 'maskmill log --ref main' and repeat the command"
        )
        with pytest.raises(CommitConflictError) as caught:
            refs.advance("main", expected=start, commit=mine, reason="test")
        assert str(caught.value) == message
        assert (caught.value.expected, caught.value.found) == (first, theirs)

    def test_same_commit_by_two_writers_is_a_conflict(self, refs: Refs) -> None:
        commit = _commit(refs, "1")
        refs.advance("main", expected=None, commit=commit, reason="test")
        with pytest.raises(CommitConflictError, match="expected no commit, found"):
            refs.advance("main", expected=None, commit=commit, reason="test")

    def test_racing_writers_lose_nothing(self, local: Refs) -> None:
        _chain(local, "main", 1)
        barrier = Barrier(4)

        def write(name: str) -> list[str]:
            barrier.wait(30)
            done = []
            for number in range(200):  # far more than needed: an upper bound
                if len(done) == 5:
                    break
                start = local.head("main")
                commit = _commit(local, f"{name} {number}", start.commit if start else "")
                try:
                    local.advance("main", expected=start, commit=commit, reason="test")
                except CommitConflictError:
                    continue
                done.append(commit)
            return done

        with ThreadPoolExecutor(4) as pool:
            written = [commit for done in pool.map(write, "abcd") for commit in done]
        history = local.history("main")
        assert [entry.number for entry in history] == list(range(1, 22))
        assert sorted(entry.commit for entry in history[1:]) == sorted(written)
        for older, newer in itertools.pairwise(history):
            assert Commit.load(local.store, newer.commit).parents == (older.commit,)


class TestResolve:
    def test_every_kind(self, refs: Refs) -> None:
        ids = _chain(refs, "feature/x", 3)
        refs.create_tag("v1", ids[0])
        for text, expected in {
            "feature/x": ids[2],
            "feature/x~0": ids[2],
            "feature/x~1": ids[1],
            "feature/x~1~1": ids[0],
            "v1": ids[0],
            ids[1]: ids[1],
            ids[1][:6]: ids[1],
            f"{ids[2][:10]}~2": ids[0],
        }.items():
            assert refs.resolve(text) == expected, text

    def test_branch_is_preferred_to_a_tag_and_to_an_id(self, local: Refs) -> None:
        ids = _chain(local, "main", 2)
        local.create_branch("both", ids[0])
        local.create_tag("both", ids[1])
        assert local.resolve("both") == ids[0]
        if not ids[0][:8].isdigit():
            local.create_branch(ids[0][:8], ids[1])
            assert local.resolve(ids[0][:8]) == ids[1]

    def test_unknown_names_the_nearest(self, local: Refs) -> None:
        with pytest.raises(RefError, match=r"no branch, tag or commit 'main' .* no refs yet"):
            local.resolve("main")
        _chain(local, "main", 1)
        _chain(local, "experiment", 1)
        with pytest.raises(RefError, match="the nearest is 'main'"):
            local.resolve("mian")
        with pytest.raises(RefError, match=f"no branch, tag or commit '{'0' * 64}'"):
            local.resolve("0" * 64)

    def test_past_the_first_commit(self, local: Refs) -> None:
        _chain(local, "main", 2)
        with pytest.raises(RefError, match="'main~2' goes back past the first commit"):
            local.resolve("main~2")

    def test_ambiguous_beginning(self, local: Refs) -> None:
        data = b'{"not":"a commit"}'
        ids = _chain(local, "main", 1)
        twin = ids[0][:8] + "0" * 56
        local.store.overwrite(layout.object_path(twin), data)
        assert local.resolve(ids[0][:8]) == ids[0]  # an object that is no commit does not count

    def test_two_commits_with_one_beginning(self, local: Refs) -> None:
        class Lenient(Refs):
            def _is_commit(self, object_id: str) -> bool:
                return True

        ids = _chain(local, "main", 1)
        twin = ids[0][:8] + "0" * 56
        local.store.overwrite(layout.object_path(twin), b"{}")
        with pytest.raises(RefError, match=f"'{ids[0][:8]}' is the beginning of .*more digits"):
            Lenient(local.store).resolve(ids[0][:8])

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "",
                "~",
                "~1",
                "..",
                "../x",
                "a/../b",
                "/",
                "a//b",
                "a/",
                "/a",
                "x" * 300,
                "x" * 9999,
            ),
            *("00000001", "main/00000001", "main~" + "9" * 6000, "main" + "~1" * 5000, "main\n"),
            *("*", "main*", "[a]", "\0", "\u00b2" * 8, "é", "-rf", ".hidden", "a b", "main~x"),
        ],
    )
    def test_hostile_text_is_just_unknown(self, local: Refs, text: str) -> None:
        _chain(local, "main", 1)
        with pytest.raises(RefError):
            local.resolve(text)


class TestDamage:
    def test_entry(self, refs: Refs) -> None:
        _chain(refs, "main", 2)
        for bad in (b"", b"{", b"[]", b'{"number":"x"}', b"\xff\xfe"):
            refs.store.overwrite(layout.ref_entry_path(layout.HEADS, "main", 2), bad)
            with pytest.raises(ObjectDamagedError, match="entry 2 of ref 'main' is damaged"):
                refs.resolve("main")
            with pytest.raises(ObjectDamagedError):
                refs.branches()

    def test_entry_with_another_entrys_bytes(self, refs: Refs) -> None:
        _chain(refs, "main", 3)
        first = refs.store.read_optional(layout.ref_entry_path(layout.HEADS, "main", 1))
        assert first is not None
        refs.store.overwrite(layout.ref_entry_path(layout.HEADS, "main", 3), first)
        with pytest.raises(ObjectDamagedError, match=r"entry 3 .* is damaged \(it holds entry 1\)"):
            refs.resolve("main")

    def test_entry_that_names_no_commit(self, refs: Refs) -> None:
        _chain(refs, "main", 1)
        key = layout.ref_entry_path(layout.HEADS, "main", 1)
        data = refs.store.read_optional(key)
        assert data is not None
        refs.store.overwrite(key, data.replace(b'"commit":"', b'"commit":"\t')[:-1] + b"}")
        with pytest.raises(ObjectDamagedError, match="entry 1 of ref 'main' is damaged"):
            refs.resolve("main")
        refs.store.overwrite(key, data.replace(b'"commit":"', b'"commit":"x'))
        with pytest.raises(ObjectDamagedError, match="no commit"):
            refs.resolve("main")

    def test_newest_entry_that_went_is_not_passed_over(self, refs: Refs) -> None:
        _chain(refs, "main", 3)
        refs.store.remove(layout.ref_entry_path(layout.HEADS, "main", 3))
        with pytest.raises(ObjectDamagedError, match="entry 3 of ref 'main' is missing although"):
            refs.resolve("main")

    def test_hint_that_is_damaged_itself_does_no_harm(self, refs: Refs) -> None:
        ids = _chain(refs, "main", 2)
        for hint in (b"", b"\xff", b"-1", b"999999", b"00000000000002", b"1"):
            refs.store.overwrite(layout.newest_hint_path(layout.HEADS, "main"), hint)
            assert refs.resolve("main") == ids[-1]

    def test_damaged_entry_that_is_in_the_way(self, local: Refs) -> None:
        local.store.overwrite(layout.ref_entry_path(layout.HEADS, "main", 1), b"{")
        with pytest.raises(ObjectDamagedError, match="restore it from a copy"):
            local.advance("main", expected=None, commit=_commit(local, "1"), reason="test")

    def test_foreign_files_are_no_entries(self, local: Refs) -> None:
        ids = _chain(local, "main", 1)
        for name in ("00000002.bak", "notes.txt", "²²²²²²²²", "000000002"):
            local.store.overwrite(f"{layout.HEADS}/main/{name}", b"?")
        assert local.resolve("main") == ids[0]
        assert local.branches()["main"] == ids[0]


def test_interrupted_init_is_finished(store_url: str) -> None:
    store = Store(store_url)
    store.create()  # and killed here
    commit_id = init(store)
    assert Refs(store).resolve("main") == commit_id
    with pytest.raises(StoreError, match="already; use it as it is"):
        init(store)


class TestHint:
    """`.newest` saves listing a long log; whatever it says, the newest entry is found."""

    @pytest.mark.parametrize("hint", [b"", b"x", b"0", b"1", b"3", b"5", b"9999", b"-1", b"9" * 40])
    def test_wrong_stale_or_missing(self, local: Refs, hint: bytes) -> None:
        ids = _chain(local, "main", 5)
        local.store.overwrite(layout.newest_hint_path(layout.HEADS, "main"), hint)
        head = local.head("main")
        assert head is not None
        assert (head.number, head.commit) == (5, ids[-1])
        local.store.remove(layout.newest_hint_path(layout.HEADS, "main"))
        assert local.resolve("main") == ids[-1]

    def test_far_behind(self, local: Refs) -> None:
        ids = _chain(local, "main", 70)
        local.store.overwrite(layout.newest_hint_path(layout.HEADS, "main"), b"1")
        assert local.resolve("main") == ids[-1]

    def test_a_long_log_is_not_listed(self, local: Refs, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = _chain(local, "main", 3)
        monkeypatch.setattr(Store, "list_names", lambda *_: pytest.fail("listed"))
        assert local.resolve("main") == ids[-1]


class TestDeleted:
    def test_the_log_stays_and_goes_on(self, refs: Refs) -> None:
        ids = _chain(refs, "main", 1)
        refs.create_branch("try", ids[0])
        assert refs.delete_branch("try").commit == ids[0]
        assert refs.head("try") is None
        assert "try" not in refs.branches()
        with pytest.raises(RefError, match="no branch, tag or commit 'try'"):
            refs.resolve("try")
        assert refs.resolve("try@{1}") == ids[0]
        with pytest.raises(RefError, match="was deleted then; go one move further back"):
            refs.resolve("try@{0}")
        with pytest.raises(RefError, match="no branch, tag or commit 'try'"):
            refs.delete_branch("try")
        refs.create_branch("try", ids[0])
        assert [entry.number for entry in refs.history("try")] == [1, 2, 3]
        assert refs.resolve("try") == ids[0]

    def test_moving_a_deleted_branch_is_a_conflict(self, local: Refs) -> None:
        ids = _chain(local, "main", 2)
        start = local.head("main")
        local.delete_branch("main")
        with pytest.raises(CommitConflictError, match="found it deleted"):
            local.advance("main", expected=start, commit=ids[0], reason="test")


class TestMovesAgo:
    def test_counts_back_along_the_log(self, refs: Refs) -> None:
        ids = _chain(refs, "main", 3)
        refs.advance("main", expected=refs.head("main"), commit=ids[0], reason="reset")
        assert refs.resolve("main@{0}") == ids[0]
        assert refs.resolve("main@{1}") == ids[2]
        assert refs.resolve("main@{1}~1") == ids[1]

    def test_too_far(self, local: Refs) -> None:
        _chain(local, "main", 2)
        with pytest.raises(RefError, match="the log of 'main' has only 2 entries"):
            local.resolve("main@{2}")
        for text in ("@{1}", "main@{}", "main@{-1}", "main@1", "nobody@{0}", "../x@{1}"):
            with pytest.raises(RefError):
                local.resolve(text)
