"""The command line: JSON for machines, one sentence for people, exit codes, and a quick --help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from engine import cli
from manifests.console import print_table, run_app
from tests.command_line import Answer, Maskmill, command_line
from tests.engine.conftest import PhotoSet

COMMANDS = [
    ["init"], ["ingest"], ["label"], ["filter"], ["run"], ["report"], ["export"], ["log"], ["show"],
    ["tag"], ["branch"], ["stats"], ["status"], ["blame"], ["sql"], ["merge"], ["revert"],
    ["reset"], ["rm"], ["clone"], ["push"], ["pull"], ["checkout"], ["gc"], ["diff"], ["fsck"],
    ["reproduce"], ["agree"], ["calibrate"], ["gold", "propose"], ["gold", "import"], ["teachers"],
    ["weights", "list"], ["weights", "fetch"], ["demo-photos"], ["train"], ["evaluate"],
    ["predict"], ["export-model"], ["curve"],
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of `ingest`: two photos with three boxes, and one that is broken."""
    photos = PhotoSet(tmp_path_factory.mktemp("source") / "photos")
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 40, 60])
    photos.add("b.jpg", [1, 2, 3, 4])
    photos.add("broken.jpg", [1, 1, 9, 9], content=b"\xff\xd8\xff nothing")
    config = photos.config("set").source
    return ["coco", config.annotations, config.images, "--inline"]


@pytest.fixture(scope="module")
def filtered_store(tmp_path_factory: pytest.TempPathFactory, source: list[str]) -> Path:
    """A store that has been through the whole chain."""
    store = tmp_path_factory.mktemp("filtered") / "store"
    for arguments in (
        ["init"], ["ingest", *source, "--name", "set"], ["label", "box", "--inline"],
        ["filter", "--set", 'teachers=["box"]'],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            run_app(cli.app, arguments=[*arguments, "--store", str(store)])
        assert caught.value.code == 0
    return store


@pytest.fixture
def filtered(maskmill: Maskmill, filtered_store: Path, tmp_path: Path) -> Maskmill:
    """The command, on a copy of that store."""
    shutil.copytree(filtered_store, tmp_path / "store")
    return maskmill


def test_the_chain_in_json(maskmill: Maskmill, source: list[str], tmp_path: Path) -> None:
    made = maskmill("init", "--json").json
    assert set(made) == {"store", "commit_id"}
    ingested = maskmill("ingest", *source, "--json").json
    assert ingested["is_new"]
    rows = {row["layer"]: row for row in ingested["ledger"]}
    assert (rows["images"]["inputs"], rows["images"]["kept"]) == (3, 2)
    assert sum(rows["images"]["failed"].values()) == 1
    assert maskmill("label", "box", "--inline", "--json").json["ledger"][0]["kept"] == 3
    judged = maskmill("filter", "--set", 'teachers=["box"]', "--json").json
    assert judged["ledger"][0]["dropped"] == {"too_small": 1}
    again = maskmill("filter", "--set", 'teachers=["box"]', "--json")
    assert (again.code, again.json) == (0, {**judged, "is_new": False})
    exported = maskmill("export", "coco", str(tmp_path / "out"), "--json").json
    assert exported["num_annotations"] == 2
    log = maskmill("log", "--json").json
    assert [entry["operation"]["name"] for entry in log] == ["filter", "label", "ingest", "init"]
    assert [entry["commit_id"] for entry in log][::3] == [judged["commit_id"], made["commit_id"]]
    assert maskmill("log", "--limit", "1", "--json").json == log[:1]
    stats = maskmill("stats", "--json").json
    assert (stats["num_images"], stats["num_boxes"], stats["categories"]) == (2, 3, {"shoe": 3})
    assert maskmill("tag", "v1", "main~1", "--json").json == {"v1": log[1]["commit_id"]}
    assert maskmill("tag", "--json").json == {"v1": log[1]["commit_id"]}
    assert maskmill("branch", "strict", "v1", "--json").json == {"strict": log[1]["commit_id"]}
    assert list(maskmill("branch", "--json").json) == ["main", "strict"]


def test_the_chain_for_people(filtered: Maskmill, source: list[str]) -> None:
    shown = filtered("show", "main", "--by-category", "--rejects")
    assert shown.code == 0
    assert "operation filter v2" in shown.out
    assert "too_small 1" in shown.out
    assert "shoe" in shown.out
    [broken] = [line for line in shown.out.splitlines() if "broken.jpg" in line and "boxes" in line]
    assert "failed" in broken or "dropped" in broken
    assert any("b.jpg" in line and "too_small" in line for line in shown.out.splitlines())
    assert "filter with policy default" in filtered("log").out
    assert "masks/box" in filtered("stats").out
    assert "filled box" in filtered("teachers").out
    assert "mobile_sam" in filtered("weights", "list").out
    again = filtered("ingest", *source, "--name", "set")
    assert "images" in again.out
    assert "nothing changed" in again.err


def test_show_lists_every_rejected_row_as_json(filtered: Maskmill) -> None:
    rows = filtered("show", "--rejects", "--json").json["rejected"]
    assert [(row["layer"], row["outcome"]) for row in rows if row["layer"] != "boxes"] == [
        ("images", "failed"), ("verdicts", "dropped"),
    ]  # fmt: skip
    [verdict] = [row for row in rows if row["layer"] == "verdicts"]
    assert (verdict["reason"], verdict["file_name"]) == ("too_small", "b.jpg")
    assert "rejected" not in filtered("show", "--json").json


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "mian"], 5, "nearest is 'main'"),
        (["log", "--ref", "main~99"], 5, "goes back past the first commit"),
        (["tag", "v1", "nope"], 5, "no branch, tag or commit 'nope'"),
        (["branch", "main"], 5, "exists already"),
        (["init"], 4, "already"),
        (["log", "--store", "/nonexistent/st"], 4, "maskmill init"),
        (["filter", "defualt"], 3, "did you mean 'default'"),
        (["filter", "--set", "rules.min_boxiou=1"], 3, "did you mean 'min_box_iou'"),
        (["filter", "--set", "rules"], 3, "--set rules: expected KEY=VALUE"),
        (["filter"], 3, "run 'maskmill label sam_vit_t' first"),
        (["label", "boks", "--inline"], 3, "did you mean 'box'"),
        (["label", "box", "-o", "x=1", "--inline"], 3, "has no setting 'x'"),
        (["label", "box", "-o", "x", "--inline"], 3, "--option x: expected KEY=VALUE"),
        (["ingest", "koko", ".", ".", "--inline"], 3, "no format 'koko'"),
        (["ingest", "coco", ".", ".", "--policy", "min_sharp=1"], 3, "'min_sharpness'"),
        (["export", "koko", "out"], 3, "expected one of coco"),
        (["run", "nope.toml"], 3, "nope.toml"),
        (["weights", "fetch", "nope"], 7, "known: minilm, minilm_tokenizer, mobile_sam"),
        (["shwo"], 2, "did you mean 'show'"),
        (["show", "--rejetcs"], 2, "--rejects"),
        (["label"], 2, "missing argument"),
        (["weights", "lst"], 2, "did you mean 'list'"),
        (["ingest", "coco", "a", "b", "--shard-images", "0"], 2, "--shard-images"),
    ],
)
def test_errors_are_one_sentence_with_a_code_and_json_too(
    filtered: Maskmill, arguments: list[str], code: int, message: str
) -> None:
    for_people = filtered(*arguments)
    assert for_people.code == code
    assert for_people.out == ""
    last = for_people.err.splitlines()[-1]
    assert last.startswith("maskmill: ")
    assert message.lower() in last.lower()
    assert "Traceback" not in for_people.err
    for_machines = filtered(*arguments, "--json")
    assert for_machines.code == code
    error = for_machines.json["error"]
    assert message.lower() in error["message"].lower()
    assert error["exit_code"] == code


def test_broken_json_gives_line_and_column(maskmill: Maskmill, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes.json").write_text('{"images": [],\n "annotations": [,]}')
    maskmill("init")
    answer = maskmill(
        "ingest", "coco", str(tmp_path / "boxes.json"), str(tmp_path / "images"), "--inline"
    )
    assert answer.code == 3
    assert "boxes.json is broken at line 2, column 18" in answer.err


def test_debug_anywhere_shows_the_traceback(
    maskmill: Maskmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["--debug", "log"], ["log", "--debug"], ["log", "--debug", "--json"]):
        answer = maskmill(*arguments)
        assert answer.code == 4
        assert "Traceback" in answer.err
    monkeypatch.setenv("MASKMILL_DEBUG", "1")
    assert "Traceback" in maskmill("log").err


def test_a_whole_job(maskmill: Maskmill, source: list[str], tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'store = "st"\n[[source]]\nformat = "coco"\nname = "set"\nannotations = "{source[1]}"\n'
        f'images = "{source[2]}"\n[[label]]\nteacher = "box"\n[policy]\nteachers = ["box"]\n'
        '[[export]]\nformat = "coco"\ntarget = "out"\n[pool]\nexecutor = "inline"\n'
    )
    people = maskmill("run", str(job), "--set", "policy.rules.min_area_px=64")
    assert people.code == 0, people.err
    assert "filter unnamed" in people.out
    assert "exported 2 images and 2 annotations" in people.out
    # No terminal: a line when a step begins, and one that says what came of it.
    assert "label box ...\nlabel box: masks/box 3 of 3 kept; commit" in people.err
    machine = maskmill("run", str(job), "--set", "policy.rules.min_area_px=64", "--json")
    assert machine.err == ""
    assert [step["is_new"] for step in machine.json["steps"]] == [False] * 3
    assert machine.json["steps"][2]["ledger"][0]["dropped"] == {"too_small": 1}
    assert machine.json["exports"][0]["num_annotations"] == 2
    assert (tmp_path / "out" / "instances.json").is_file()
    assert "nothing changed" not in people.err
    again = maskmill("run", str(job), "--set", "policy.rules.min_area_px=64")
    assert "nothing changed" in again.err
    assert again.out == people.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_examples_on_lines_of_their_own(
    maskmill: Maskmill, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = maskmill(*command, "--help")
    assert answer.code == 0
    assert "--json" in answer.out
    lines = answer.out.splitlines()
    [title] = [number for number, line in enumerate(lines) if line.strip().startswith("Example")]
    shown = [line.strip() for line in lines[title + 1 :]]
    assert shown
    assert all(line.startswith(f"maskmill {' '.join(command)}") for line in shown)


def test_root_help_documents_exit_codes_and_is_shown_without_arguments(maskmill: Maskmill) -> None:
    answer = maskmill("--help")
    assert "130  stopped by Ctrl-C" in answer.out
    assert maskmill() == answer
    listed = answer.out.split("Commands:")[1].split("Example")[0]
    first_words = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert first_words == {command[0] for command in COMMANDS} - {"demo-photos"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from engine import cli; sys.argv = ['maskmill', 'label', '--help']\n"
        "try: cli.main()\n"
        "finally: print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    heavy = {"torch", "ray", "cv2", "pyarrow", "duckdb", "pandas", "numpy", "PIL", "fsspec", "rich"}
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_a_reader_that_goes_away_is_no_error(
    maskmill: Maskmill,
) -> None:
    """`maskmill log --json | head -c 1`, with a reader that is gone before the first byte."""
    maskmill("init")
    reader, writer = os.pipe()
    os.close(reader)
    code = "from engine.cli import main; import sys; sys.argv = ['maskmill', 'branch']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.fixture
def toy(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """An app whose one command raises what it is told to."""
    app = typer.Typer(rich_markup_mode=None)
    raised: list[BaseException] = []

    @app.command()
    def fail(as_json: bool = typer.Option(False, "--json")) -> None:
        raise raised[0]

    command = command_line(capsys, app)

    def run(error: BaseException, *arguments: str) -> Answer:
        raised[:] = [error]
        return command(*arguments)

    return run


def test_ctrl_c_has_its_own_code_and_no_traceback(toy: Callable[..., Answer]) -> None:
    assert toy(KeyboardInterrupt(), "--json").json["error"]["exit_code"] == 130
    answer = toy(KeyboardInterrupt(), "--json")
    assert (answer.code, answer.err) == (130, "")


def test_a_bug_is_one_sentence_and_asks_for_a_report(toy: Callable[..., Answer]) -> None:
    answer = toy(ZeroDivisionError("division\nby zero"), "--json")
    assert answer.code == 1
    assert answer.json["error"]["kind"] == "ZeroDivisionError"
    assert "unexpected ZeroDivisionError: division by zero; please report" in answer.out
    assert "Traceback" in toy(ZeroDivisionError("x"), "--json", "--debug").err


def test_tables_take_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("name", "n"), [("[red]x[/red]", 1_234_567), (None, 0.5)], right=("n",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "t"
    assert "[red]x[/red]  1,234,567" in lines[3]
    assert lines[4].endswith("0.500")
