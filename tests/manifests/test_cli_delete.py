"""rm on the command line, and what revert says of a layer that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from manifests import cli_change, cli_delete
from manifests.console import run_app
from tests.manifests.steps import Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    made = Steps(str(tmp_path / "store"))
    made.ingest({"a.jpg": ["shoe"], "b.jpg": ["bag"]})
    made.label("sam")
    made.filter("loose", "sam")
    return made


def _error(capsys: pytest.CaptureFixture[str], steps: Steps, *words: str) -> tuple[int, str]:
    app = typer.Typer()
    for name, (command, _) in {**cli_change.COMMANDS, **cli_delete.COMMANDS}.items():
        app.command(name)(command)
    with pytest.raises(SystemExit) as stopped:
        run_app(app, arguments=[*words, "--store", steps.store.url, "--json"])
    found: Any = json.loads(capsys.readouterr().out)
    return int(stopped.value.code or 0), found.get("error", {}).get("message", "")


@pytest.mark.parametrize("value", ["1", "null"])
def test_a_query_that_gives_no_ids(
    steps: Steps, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    query = f"select {value} as image_id"
    code, message = _error(capsys, steps, "rm", "--query", query, "--reason", "x")
    assert (code, message.split(", got")[0]) == (
        3, "--query: expected image ids in the column image_id"
    )  # fmt: skip


def test_an_id_in_capital_letters(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = steps.dataset()
    table = dataset.table(dataset.manifest.shards()[0], "image_index")
    image_id = table["image_id"][0].as_py()
    assert _error(capsys, steps, "rm", image_id.upper(), "--reason", "x") == (0, "")
    assert steps.dataset().commit.operation.config["image_ids"] == [image_id]


def test_a_revert_with_an_unknown_layer(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = _error(capsys, steps, "revert", "main", "--settle", "nolayer=ours")
    assert (code, message.split(";")[0]) == (5, "--settle nolayer: there is no such layer")
