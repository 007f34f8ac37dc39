"""The command `diff`: which refs it compares, what it prints, and its one-sentence errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.filter import FilterConfig, filter_masks
from engine.label import LabelConfig, label
from engine.policy import Policy
from manifests import layout, schemas
from manifests.dataset import Dataset
from manifests.refs import Refs
from tests.command_line import Maskmill
from tests.engine.conftest import INLINE, PhotoSet

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(maskmill: Maskmill) -> Run:
    """Runs `diff` and returns its exit code, output and errors."""

    def do(*arguments: str) -> tuple[int, str, str]:
        found = maskmill("diff", *arguments)
        return found.code, found.out, found.err

    return do


@pytest.fixture
def shop(photos: PhotoSet, ingested: Callable[..., Dataset]) -> str:
    """main: ingested, labelled, filtered; strict: filtered so that nothing is left. The store."""
    for number in range(3):
        photos.add(f"{number}.jpg", [10, 10, 20, 20], [40, 20, 30, 30])
    dataset = ingested(photos, shard_images=2)
    store = dataset.store
    label(store, LabelConfig(teacher="box", pool=INLINE))
    filter_masks(store, FilterConfig(policy=Policy(name="lax", teachers=("box",))))
    Refs(store).create_branch("strict", Refs(store).resolve("main"))
    strict = Policy(name="strict", teachers=("box",), rules={"min_area_px": 500.0})
    filter_masks(store, FilterConfig(policy=strict, branch="strict"))
    return store.url


def body_of(result: tuple[int, str, str]) -> dict[str, Any]:
    assert result[0] == 0, result
    found: dict[str, Any] = json.loads(result[1])
    return found


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        ([], "main~1", "main"),
        (["strict"], "strict", "main"),
        (["main", "strict"], "main", "strict"),
        (["main..strict"], "main", "strict"),
        (["..strict"], "main", "strict"),
        (["strict.."], "strict", "main"),
        (["strict~1", "strict"], "main", "strict"),
    ],
)
def test_which_refs(shop: str, run: Run, words: list[str], before: str, after: str) -> None:
    from manifests.store import Store

    refs = Refs(Store(shop))
    found = body_of(run(*words, "--store", shop, "--json"))
    assert (found["before"], found["after"]) == (refs.resolve(before), refs.resolve(after))


def test_for_people(shop: str, run: Run) -> None:
    code, out, _ = run("main", "strict", "--store", shop)
    assert code == 0
    assert out.startswith("diff main (")
    lines = [line.split() for line in out.splitlines()]
    assert ["verdicts", "0", "2", "0"] in lines
    assert ["kept", "too_small", "box", "box", "3"] in lines
    assert "shoe" not in out
    _, out, _ = run("main", "strict", "--by-category", "--store", shop)
    assert ["shoe", "3", "0", "0", "0", "0", "0"] in [line.split() for line in out.splitlines()]


def test_ingest_and_label_for_people(shop: str, run: Run) -> None:
    _, out, _ = run("main~3", "main", "--by-category", "--store", shop)
    lines = [line.split() for line in out.splitlines()]
    assert "images: 3 added" in out
    assert "boxes: 6 added" in out
    assert ["shoe", "6", "0", "0", "0"] in lines
    assert ["box", "shoe", "6", "0", "0"] in lines
    assert ["(none)", "kept", "box", "6"] in lines


def test_json_has_every_category(shop: str, run: Run) -> None:
    found = body_of(run("main", "strict", "--store", shop, "--json"))
    [flip] = found["flips_by_category"]
    assert flip == {
        "kind": "dropped", "category": "shoe", "before": "kept", "after": "too_small",
        "teacher_before": "box", "teacher_after": "box", "count": 3,
    }  # fmt: skip
    assert found["verdicts"]["dropped"] == 3
    assert found["cells"] == {"verdicts": {"added": 0, "replaced": 2, "removed": 0}}


def test_nothing_differs(shop: str, run: Run) -> None:
    code, out, _ = run("main", "main", "--store", shop)
    assert code == 0
    assert out.startswith("nothing differs: main (")


def test_layers(shop: str, run: Run) -> None:
    found = body_of(run("main~3", "main", "--layer", "masks/box", "--store", shop, "--json"))
    assert list(found["cells"]) == ["masks/box"]
    assert found["images"]["added"] == 0
    code, _, err = run("main~3", "main", "--layer", "masks/bix", "--store", shop)
    assert code == 3
    assert "has a layer 'masks/bix'; the nearest is 'masks/box'" in err


def test_html(shop: str, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "new" / "diff.html"
    code, out, err = run(
        "main..strict", "--store", shop, "--html", str(target), "--max-pictures", "2"
    )
    assert code == 0
    assert "too_small" in out
    assert f"wrote {target} with 2 changed boxes" in err
    page = target.read_text()
    assert page.count("<img") == 4
    assert "main" in page
    assert "strict" in page


def test_an_unknown_ref(shop: str, run: Run) -> None:
    code, out, err = run("main", "strikt", "--store", shop)
    assert (code, out) == (5, "")
    assert "no branch, tag or commit 'strikt'" in err
    assert "the nearest is 'strict'" in err


def test_a_branch_without_a_parent(run: Run, tmp_path: Path) -> None:
    from manifests.dataset import init
    from manifests.store import Store

    init(Store(str(tmp_path / "empty")))
    code, _, err = run("--store", str(tmp_path / "empty"))
    assert code == 5
    assert "'main~1' goes back past the first commit" in err


def test_a_missing_cell_is_one_sentence(shop: str, run: Run) -> None:
    from manifests.store import Store

    dataset = Dataset.open(Store(shop), "strict")
    cell = dataset.manifest.of_layer(schemas.VERDICTS)[1]
    dataset.store.remove(layout.object_path(cell.object_id))
    code, out, _ = run("main", "strict", "--store", shop, "--json")
    error = json.loads(out)["error"]
    assert (code, error["kind"]) == (4, "ObjectMissingError")
    assert f"shard {cell.shard[:12]} of verdicts is missing" in error["message"]


def test_help_says_what_it_compares(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "maskmill diff main..strict --html diff.html" in out
    assert "A ref, or A..B; none: main~1" in out
