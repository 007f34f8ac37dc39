"""rm on the command line, and what revert says of a layer that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Maskmill
from tests.manifests.steps import Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    made = Steps(str(tmp_path / "store"))
    made.ingest({"a.jpg": ["shoe"], "b.jpg": ["bag"]})
    made.label("sam")
    made.filter("loose", "sam")
    return made


def _error(maskmill: Maskmill, *words: str) -> tuple[int, str]:
    found = maskmill(*words, "--json")
    return found.code, found.json.get("error", {}).get("message", "")


@pytest.mark.parametrize("value", ["1", "null"])
def test_a_query_that_gives_no_ids(steps: Steps, maskmill: Maskmill, value: str) -> None:
    query = f"select {value} as image_id"
    code, message = _error(maskmill, "rm", "--query", query, "--reason", "x")
    assert (code, message.split(", got")[0]) == (
        3, "--query: expected image ids in the column image_id"
    )  # fmt: skip


def test_an_id_in_capital_letters(steps: Steps, maskmill: Maskmill) -> None:
    dataset = steps.dataset()
    table = dataset.table(dataset.manifest.shards()[0], "image_index")
    image_id = table["image_id"][0].as_py()
    assert _error(maskmill, "rm", image_id.upper(), "--reason", "x") == (0, "")
    assert steps.dataset().commit.operation.config["image_ids"] == [image_id]


def test_a_revert_with_an_unknown_layer(steps: Steps, maskmill: Maskmill) -> None:
    code, message = _error(maskmill, "revert", "main", "--settle", "nolayer=ours")
    assert (code, message.split(";")[0]) == (5, "--settle nolayer: there is no such layer")
