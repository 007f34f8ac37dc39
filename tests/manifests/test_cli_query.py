"""sql, blame, status, log and show on the command line: what they print, and their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manifests.cli_query import COMMANDS
from manifests.dataset import Dataset
from manifests.merge import merge_into
from manifests.refs import Refs
from manifests.takedown import take_down
from tests.command_line import Maskmill
from tests.manifests.steps import Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """ingest, label and filter on main, another filter on `strict`, merged; a tag, a takedown."""
    made = Steps(str(tmp_path / "store"))
    made.ingest({"a.jpg": ["shoe", "hat"], "b.jpg": ["bag"]}, human=["shoe"])
    made.label("sam")
    made.filter("loose", "sam")
    refs = Refs(made.store)
    refs.create_tag("v1", refs.resolve("main"))
    refs.create_branch("strict", refs.resolve("main~1"))
    made.label("other", weights=2, branch="strict")
    merge_into(made.store, "main", "strict")
    dataset = made.dataset()
    shard = dataset.manifest.shards()[0]
    image_id = dataset.table(shard, "image_index")["image_id"][1].as_py()
    take_down(made.store, "main", {shard: [image_id]}, reason="licence", author="ann")
    return made


@pytest.fixture
def maskmill(steps: Steps, maskmill: Maskmill, monkeypatch: pytest.MonkeyPatch) -> Maskmill:
    """Runs a command on the store of `steps`."""
    monkeypatch.setenv("MASKMILL_STORE", steps.store.url)
    monkeypatch.setenv("COLUMNS", "120")
    return maskmill


def test_every_command_has_help_with_examples(maskmill: Maskmill) -> None:
    for name in COMMANDS:
        shown = maskmill(name, "--help")
        assert shown.code == 0
        assert "Example" in shown.out
        assert "--json" in shown.out


# -- sql -----------------------------------------------------------------------------------------


def test_sql_lists_tables_without_a_query(maskmill: Maskmill, steps: Steps) -> None:
    shown = maskmill("sql", "main")
    assert "masks_sam   2 rows   layer masks/sam" in shown.out
    assert "annotation_id VARCHAR" in shown.out
    listed = maskmill("sql", "main", "--json").json
    assert listed["commit_id"] == steps.dataset().commit_id
    tables = {table["table"]: table for table in listed["tables"]}
    assert list(tables) == [
        "boxes", "images", "masks_human", "masks_other", "masks_sam", "verdicts", "annotations",
        "manifest", "commits", "removed",
    ]  # fmt: skip
    assert [column["name"] for column in tables["boxes"]["columns"]][:2] == ["shard", "row"]
    assert (tables["boxes"]["num_rows"], tables["removed"]["num_rows"]) == (2, None)
    assert tables["manifest"]["columns"][0] == {"name": "shard", "type": "VARCHAR"}
    at_tag = maskmill("sql", "v1", "--json").json
    assert "verdicts" in [table["table"] for table in at_tag["tables"]]
    assert maskmill("sql", "main~99").code == 5


def test_sql_prints_a_table_and_how_many_more(maskmill: Maskmill) -> None:
    query = "select category, row from boxes order by row"
    shown = maskmill("sql", "v1", query)
    assert shown.code == 0
    assert shown.out.splitlines()[0] == "3 rows"
    assert [line.split() for line in shown.out.splitlines()[3:]] == [
        ["shoe", "0"], ["hat", "1"], ["bag", "2"],
    ]  # fmt: skip
    some = maskmill("sql", "v1", query, "--limit", "2")
    assert some.out.splitlines()[0] == "the first 2 of 3 rows; --limit 0 prints all"
    assert "bag" not in some.out
    assert maskmill("sql", "v1", query, "-n", "0").out == shown.out
    one = maskmill("sql", "v1", "from boxes limit 1").out  # too wide for a table
    assert "-- row 1 --" in one
    assert any(line.split() == ["category", "shoe"] for line in one.splitlines())


def test_sql_as_json_and_from_a_file(
    maskmill: Maskmill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "query.sql"
    file.write_text("-- my query\nselect category, row\nfrom boxes order by row;\n")
    found = maskmill("sql", "v1", "--file", str(file), "--json").json
    assert found["num_rows"] == 3
    assert found["rows"][0] == {"category": "shoe", "row": 0}
    assert found["columns"] == [
        {"name": "category", "type": "VARCHAR"}, {"name": "row", "type": "INTEGER"},
    ]  # fmt: skip
    some = maskmill("sql", "v1", "-f", str(file), "-n", "1", "--json").json
    assert (len(some["rows"]), some["num_rows"]) == (1, 3)
    missing = maskmill("sql", "v1", "--file", str(tmp_path / "no.sql"))
    assert (missing.code, "cannot be read as a query" in missing.err) == (3, True)
    both = maskmill("sql", "v1", "select 1", "--file", str(file))
    assert (both.code, "give one of them" in both.err) == (3, True)


def test_sql_writes_files(maskmill: Maskmill, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    query = "select category from boxes order by row"
    shown = maskmill("sql", "v1", query, "--csv", str(csv), "--parquet", str(parquet))
    assert f"wrote 3 rows to {csv}" in shown.out
    assert csv.read_text().split() == ['"category"', '"shoe"', '"hat"', '"bag"']
    assert parquet.exists()
    written = maskmill("sql", "v1", query, "--csv", str(csv), "--json").json
    assert written == {"files": [{"file": str(csv), "num_rows": 3}]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["main", "drop view boxes"], 3, "DROP is refused"),
        (["main", "selec 1"], 3, 'syntax error at or near "selec"'),
        (["main", "from nope"], 3, "tables here: boxes, images"),
        (["select count(*) from boxes"], 3, "put 'main' or another ref before it"),
        (["mian", "select 1"], 5, "nearest is 'main'"),
        (["main", "select 1", "--memory", "lots"], 3, "expected a size such as 768MB"),
        (["main", "select 1", "--limit", "-1"], 2, "--limit"),
        (["main", "from read_text('/etc/hostname')"], 3, "file or an address, which is refused"),
    ],
)
def test_sql_errors(maskmill: Maskmill, arguments: list[str], code: int, message: str) -> None:
    people, machines = maskmill("sql", *arguments), maskmill("sql", *arguments, "--json")
    assert (people.code, machines.code) == (code, code)
    assert message in people.err
    assert people.err.count("\n") == 1
    assert message in machines.json["error"]["message"]


def test_a_query_leaves_nothing_on_standard_error_of_its_own_process(steps: Steps) -> None:
    """DuckDB's binding tells of objects that are left over at the end of a process."""
    code = (
        "import typer\nfrom manifests.cli_query import COMMANDS\n"
        "from manifests.console import run_app\napp = typer.Typer(rich_markup_mode=None)\n"
        "app.callback()(lambda: None)\napp.command('sql')(COMMANDS['sql'][0])\n"
        "run_app(app, arguments=['sql', 'v1', '{}', '--store', '{}'])"
    )
    for query, err in (("select 1 a", ""), ("select nope from boxes", "maskmill: the query is")):
        text = code.format(query, steps.store.url)
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr.startswith(err)
        assert done.stderr.count("\n") == bool(err)


# -- blame ---------------------------------------------------------------------------------------


def test_blame_tells_commits_teacher_and_policy(maskmill: Maskmill, steps: Steps) -> None:
    shoe = steps.ids("v1")[0]
    shown = maskmill("blame", shoe[:10], "--ref", "v1").out
    assert f"annotation {shoe}" in shown
    assert "teacher sam v1, weights " + "0" * 64 in shown
    assert "by policy 'loose' in" in shown
    assert "kept, with the mask of masks/sam" in shown
    found = maskmill("blame", shoe, "--json").json
    assert found["box"]["category"] == "shoe"
    assert [mask["layer"] for mask in found["masks"]] == ["masks/human", "masks/other", "masks/sam"]
    assert found["masks"][2]["carried"][0]["operation"] == "rm"
    assert "no verdict yet" in maskmill("blame", shoe, "--ref", "strict").out


def test_blame_of_what_is_gone_or_never_was(maskmill: Maskmill, steps: Steps) -> None:
    bag = steps.ids("v1")[2]
    gone = maskmill("blame", bag)
    assert gone.code == 3
    assert "b.jpg was taken down" in gone.err
    assert maskmill("blame", "0" * 32).code == 3
    assert "expected an annotation id" in maskmill("blame", "x", "--json").json["error"]["message"]


# -- status --------------------------------------------------------------------------------------


def test_status_says_what_to_do(maskmill: Maskmill) -> None:
    shown = maskmill("status").out
    assert "1 image (1 taken down), 2 boxes, 1 shard\n" in shown
    assert "without: hat (1)" in shown
    assert shown.endswith("\nnothing is missing\n")
    before = maskmill("status", "main~1~1~1").out
    assert before.endswith("verdicts: nothing has been judged yet\n        maskmill filter\n")
    strict = maskmill("status", "strict", "--json").json
    assert strict["todo"] == [{
        "layer": "verdicts", "what": "nothing has been judged yet",
        "command": "maskmill filter --branch strict",
    }]  # fmt: skip
    assert strict["categories"][0] == {"category": "bag", "num_boxes": 1, "num_gold": 0}


# -- log and show --------------------------------------------------------------------------------


def test_log_draws_merges_with_refs(maskmill: Maskmill) -> None:
    lines = maskmill("log", "--graph", "--oneline", "--all").out.splitlines()
    shapes = [line[:4].rstrip() for line in lines]
    assert [shape.replace(" ", "") for shape in shapes][:4] != []
    text = "\n".join(lines)
    assert "|\\" in text
    assert "|/" in text
    assert "(main) take down 1 image: licence" in text
    assert "(tag: v1) filter on main" in text
    assert "(strict) label on strict" in text


def test_log_filters_and_json(maskmill: Maskmill, steps: Steps) -> None:
    entries = maskmill("log", "--json").json
    assert [entry["operation"]["name"] for entry in entries][:2] == ["rm", "merge"]
    assert entries[0]["commit_id"] == steps.dataset().commit_id
    assert entries[0]["refs"] == ["main"]
    assert {"parents", "manifest", "author", "message", "time", "ledger"} <= set(entries[0])
    assert maskmill("log", "-n", "2", "--json").json == entries[:2]
    labels = maskmill("log", "--operation", "label", "--json").json
    assert [entry["operation"]["name"] for entry in labels] == ["label", "label"]
    other = maskmill("log", "--layer", "masks/other", "--oneline").out.splitlines()
    assert [line.split(" ", 1)[1] for line in other] == [
        "(main) take down 1 image: licence", "(strict) label on strict",
    ]  # fmt: skip
    plain = maskmill("log").out
    assert "take down 1 image: licence" in plain
    assert "masks/sam +1 -1" in plain
    assert maskmill("log", "--ref", "mian").code == 5


def test_show_tells_how_to_make_it_again(maskmill: Maskmill, steps: Steps) -> None:
    shown = maskmill("show", "v1").out
    assert "operation filter v1" in shown
    assert "(tag: v1)" in shown
    assert 'teachers = ["sam"]' in shown
    assert "cells boxes 1 object" in shown
    assert "verdicts" in shown
    assert "+1" in shown
    body = maskmill("show", "v1~1", "--json").json
    assert body["commit_id"] == Refs(steps.store).resolve("v1~1")
    assert body["operation"]["teacher"]["name"] == "sam"
    assert [layer["layer"] for layer in body["input_cells"]] == ["boxes"]
    assert maskmill("show", "v1~2", "--json").json["input_cells"] == []  # it made all itself
    assert body["changes"] == {"masks/sam": {"added": 1, "replaced": 0, "removed": 0}}
    assert {"weights", "commit", "setting", "package"} <= {need["kind"] for need in body["needs"]}
    assert body["parent_commits"][0]["operation"] == "ingest"
    counts = {layer["layer"]: layer["counts"] for layer in body["statistics"]}
    assert counts["masks/sam"] == {"ok": 3}
    assert list(body["layers"]) == sorted(counts)


def test_show_explains_takedowns(maskmill: Maskmill) -> None:
    shown = maskmill("show").out
    assert "taken down: 1, in all 1" in shown
    assert "b.jpg" in shown
    assert "licence" in shown
    body = maskmill("show", "--json").json
    assert [row["file_name"] for row in body["taken_down"]] == ["b.jpg"]
    assert maskmill("show", "v1", "--json").json["num_taken_down"] == 0


def test_show_of_a_commit_whose_parent_is_lost(maskmill: Maskmill, steps: Steps) -> None:
    parent = Refs(steps.store).resolve("v1~1")
    path = Path(steps.store.root) / "objects" / parent[:2] / parent
    commit_id = Refs(steps.store).resolve("v1")
    path.unlink()
    shown = maskmill("show", commit_id)
    assert shown.code == 0, shown.err
    assert f"parent {parent[:12]} commit {parent[:12]} is missing" in shown.out
    assert maskmill("log", "--ref", "v1", "-n", "1").code == 0
    assert maskmill("log", "--ref", "v1").code == 4


def test_old_commits_say_what_they_changed_all_the_same(maskmill: Maskmill, steps: Steps) -> None:
    from dataclasses import replace

    dataset = steps.dataset("v1")
    old = replace(dataset.commit, changes=None).save(steps.store)
    body = maskmill("show", old, "--json").json
    assert body["changes"] == {"verdicts": {"added": 1, "replaced": 0, "removed": 0}}
    assert Dataset(steps.store, old).commit.changes is None
