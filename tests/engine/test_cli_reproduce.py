"""`maskmill reproduce`: what it prints and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from manifests.store import Store
from tests.command_line import Maskmill
from tests.engine.chain import (
    chain_on,
    fill,
    other_photo,
)
from tests.engine.conftest import PhotoSet


@pytest.fixture
def head(store: Store, photos: PhotoSet) -> str:
    """The last commit of a chain on `main`."""
    return chain_on(store, fill(photos))


class TestCommand:
    @pytest.fixture
    def answer(self, store: Store, maskmill: Maskmill) -> Callable[..., tuple[int, str, str]]:
        def run(*arguments: str) -> tuple[int, str, str]:
            found = maskmill("reproduce", *arguments, "--inline", "-s", store.url)
            return found.code, found.out, found.err

        return run

    def test_the_same_is_exit_code_0(self, answer: Any, head: str) -> None:
        code, out, err = answer("main~1")
        assert code == 0, err
        assert "masks/grabcut" in out
        assert "(label) came out the same" in out
        code, out, err = answer("main", "--chain", "--json")
        assert code == 0, err
        body = json.loads(out)
        assert body["is_same"]
        assert [commit["operation"] for commit in body["commits"]] == [
            "init", "ingest", "label", "label", "filter",
        ]  # fmt: skip

    def test_another_outcome_is_exit_code_9_and_lists_cells(
        self, answer: Any, head: str, photos: PhotoSet
    ) -> None:
        (photos.images / "a.jpg").write_bytes(other_photo())
        code, out, err = answer("main~3")
        assert code == 9
        assert "missing  boxes" in out
        assert "image a.jpg" in out
        assert "(ingest) came out different: 8 of 11 cells" in err
        code, out, err = answer("main~3", "--json")
        body = json.loads(out)
        assert (code, body["is_same"]) == (9, False)
        assert {cell["fate"] for cell in body["cells"]} == {"missing", "extra"}
        code, out, err = answer("main", "--chain")
        assert code == 9
        assert out.count("the same") >= 4
        assert "different" in out

    def test_what_cannot_be_done_has_its_own_code(
        self, answer: Any, head: str, photos: PhotoSet
    ) -> None:
        (photos.folder / "boxes.json").unlink()
        code, _, err = answer("main~3")
        assert code == 3
        assert "no file at" in err
        code, out, _ = answer("main", "--chain", "--json")
        body = json.loads(out)
        assert code == 9
        assert [commit["is_same"] for commit in body["commits"]] == [True, False, True, True, True]
        assert body["commits"][1]["error"]["kind"] == "InputError"
        code, _, err = answer("main", "--chain")
        assert code == 3
        assert answer("nowhere")[0] == 5

    @pytest.mark.parametrize("word", ["there", "=x", "x="])
    def test_a_move_without_both_sides_is_refused(self, answer: Any, head: str, word: str) -> None:
        code, _, err = answer("main~3", "--move", word)
        assert code == 3
        assert "expected OLD=NEW" in err

    def test_a_moved_source_is_found(self, answer: Any, head: str, photos: PhotoSet) -> None:
        moved = photos.folder.rename(photos.folder.with_name("moved"))
        code, _, err = answer("main~3", "--move", f"{photos.folder}={moved}")
        assert code == 0, err
