"""The command export-model on a student that was really trained, if only for a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from student.cli_export import COMMANDS
from student.export_formats import FORMATS
from tests.command_line import Maskmill, command_line
from tests.student.small_run import NAMES, trained_store


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the student `small`."""
    return trained_store(tmp_path_factory.mktemp("export")).url


@pytest.fixture
def exporter(capsys: pytest.CaptureFixture[str], store_url: str) -> Maskmill:
    """The command line with this one command."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.callback()(lambda: None)  # so that a single command still has a name
    for name, (command, epilog) in COMMANDS.items():
        app.command(name, epilog=epilog)(command)
    run = command_line(capsys, app)
    return lambda *words: run("export-model", "--store", store_url, *words)


def test_a_trained_student_is_exported(exporter: Maskmill, tmp_path: Path) -> None:
    path = tmp_path / "small.ts"
    answer = exporter("small", path, "--format", "torchscript")
    assert answer.code == 0, answer.err
    wrote, differs = answer.out.splitlines()
    assert "takes 1 x 64 px and any number of texts" in wrote
    assert differs.startswith("largest difference: scores ")
    assert FORMATS["torchscript"].open(path)
    assert json.loads((tmp_path / "small.ts.json").read_text())["texts"] == list(NAMES)


def test_json_says_the_same(exporter: Maskmill, tmp_path: Path) -> None:
    words = ("models/small", tmp_path / "a.ts", "-f", "torchscript", "--json")
    answer = exporter(*words, "--category", "bag", "--text", "a red bag")
    assert answer.json["texts"] == ["bag", "a red bag"]
    assert answer.json["difference"]["boxes"] < 1e-3
    again = exporter(*words)
    assert again.code == 3
    assert "--overwrite" in again.json["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_exporters_keep_out_of_the_answer(exporter: Maskmill, tmp_path: Path, format: str) -> None:
    answer = exporter("small", tmp_path / "a", "--format", format, "--json")
    assert answer.json["format"] == format
    assert answer.err == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("photos",), 5, "is no checkpoint"),
        (("nobody",), 5, "nobody"),
        (("small", "--format", "onxx"), 3, "did you mean 'onnx'"),
        (("small", "--image-side", 50), 3, "multiple of 32"),
        (("small", "--category", " "), 3, "categories without text"),
    ],
)
def test_bad_input_is_one_sentence(
    exporter: Maskmill, tmp_path: Path, words: tuple[object, ...], code: int, message: str
) -> None:
    answer = exporter(words[0], tmp_path / "a.onnx", *words[1:])
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err
    assert not (tmp_path / "a.onnx").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(exporter: Maskmill, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = exporter("small", tmp_path / "file" / "a.onnx")
    assert (answer.code, answer.out) == (3, "")
    assert "a folder that can be written" in answer.err
