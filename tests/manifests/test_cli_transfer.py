"""clone, push, pull and checkout on the command line: what they print, and their exit codes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manifests.byte_progress import ByteProgress, size
from manifests.cli_transfer import COMMANDS
from manifests.dataset import Dataset
from manifests.refs import Refs
from manifests.store import Store
from tests.command_line import Maskmill


@pytest.fixture
def dataset(builder: Any) -> Dataset:
    """A branch `main` with one image, its box and mask."""
    builder.image("a.jpg")
    builder.box("shoe", (1, 1, 5, 5))
    builder.shard()
    made = builder.commit()
    refs = Refs(builder.store)
    refs.advance("main", expected=refs.head("main"), commit=made.commit_id, reason="test")
    return Dataset(builder.store, made.commit_id)


def test_there_and_back(maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
    url = dataset.store.url
    made = maskmill("clone", url, tmp_path / "copy")
    assert made.code == 0
    assert f"branch main  new          {dataset.commit_id[:12]}" in made.out
    assert "sent 1 commits: 7 objects, " in made.out
    assert maskmill("push", tmp_path / "copy", "--store", url).out == "up to date\n"
    fetched = maskmill("pull", url, "--store", tmp_path / "copy", "--all", "--tags", "--json")
    assert fetched.json["refs"] == [
        {
            "kind": "branch", "name": "main", "outcome": "up to date",
            "before": dataset.commit_id, "after": dataset.commit_id,
        }
    ]  # fmt: skip
    assert fetched.err == ""


def test_dry_run(maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
    maskmill("clone", dataset.store.url, tmp_path / "copy")
    Refs(dataset.store).create_branch("new", dataset.commit_id)
    planned = maskmill("push", tmp_path / "copy", "new", "-n", "--store", dataset.store.url)
    assert "would send 0 commits: 0 objects, 0 B" in planned.out
    assert "branch new  new" in planned.out
    assert Refs(Store(str(tmp_path / "copy"))).branches().keys() == {"main"}


def test_refusals_are_sentences(maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
    url = dataset.store.url
    nothing = maskmill("push", tmp_path / "nothing", "--store", url)
    assert (nothing.code, nothing.out) == (4, "")
    assert nothing.err.startswith("maskmill: no maskmill store at ")
    unknown = maskmill("push", tmp_path / "nothing", "mian", "--store", url, "--json")
    assert unknown.json["error"]["exit_code"] == 4
    taken = maskmill("clone", url, url)
    assert (taken.code, taken.err.count("\n")) == (3, 1)


def test_moved_target_is_exit_6(
    maskmill: Maskmill, dataset: Dataset, builder: Any, tmp_path: Path
) -> None:
    maskmill("clone", dataset.store.url, tmp_path / "copy")
    builder.image("b.jpg")
    builder.shard()
    ahead = builder.commit()
    refs = Refs(dataset.store)
    refs.advance("main", expected=refs.head("main"), commit=ahead.commit_id, reason="test")
    refused = maskmill("push", dataset.store.url, "--store", tmp_path / "copy", "--json")
    assert refused.code == 6
    text = refused.json["error"]["message"]
    assert dataset.commit_id[:12] in text
    assert ahead.commit_id[:12] in text
    assert f"'maskmill pull {dataset.store.url} main'" in text


class TestCheckout:
    def test_tells_what_it_did(self, maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
        arguments = "checkout", "main", tmp_path / "out", "--store", dataset.store.url
        made = maskmill(*arguments)
        head, files = made.out.splitlines()
        assert head.endswith(f"main at {dataset.commit_id[:12]}: 1 images, 1 annotations")
        assert files.startswith("files: 2 written (")
        (tmp_path / "out" / "images" / "a.jpg").write_text("mine")
        again = maskmill(*arguments)
        assert "files: 0 written (0 B), 1 kept, 0 removed" in again.out
        assert again.err == "left as you changed them (1): images/a.jpg\n"
        as_json = maskmill(*arguments, "--force", "--json")
        assert (as_json.json["num_written"], as_json.err) == (1, "")
        assert as_json.json["folder"] == str(tmp_path / "out")

    def test_boxes_alone(self, maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
        made = maskmill(
            "checkout", "main", tmp_path / "out", "--layer", "boxes", "--no-images", "--store",
            dataset.store.url,
        )  # fmt: skip
        assert "'maskmill filter' decides which masks to keep" in made.err
        assert "files: 1 written" in made.out

    def test_not_a_checkout_is_exit_3(
        self, maskmill: Maskmill, dataset: Dataset, tmp_path: Path
    ) -> None:
        refused = maskmill("checkout", "main", tmp_path, "--store", dataset.store.url)
        assert refused.code == 3
        assert "is not empty and no checkout" in refused.err

    def test_unknown_ref(self, maskmill: Maskmill, dataset: Dataset, tmp_path: Path) -> None:
        refused = maskmill("checkout", "mian", tmp_path / "x", "--store", dataset.store.url)
        assert refused.code == 5
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(name: str, maskmill: Maskmill) -> None:
    shown = maskmill(name, "--help")
    assert "Examples:" in shown.out
    assert f"maskmill {name} " in shown.out


def test_commands_import_nothing_heavy() -> None:
    code = "import manifests.cli_transfer, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "numpy", "s3fs", "rich.progress"} & set(done.stdout.split())


class TestProgress:
    def test_bar_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with ByteProgress() as shown:
            shown.begin("comparing", total=7)
            shown.advance(7)
            shown.begin("sending", total=3 * 2**20, in_bytes=True)
            shown.advance(2**20)
            shown.advance(2 * 2**20)
        text = sys.stderr.getvalue()  # type: ignore[attr-defined]  # set above
        assert "comparing" in text
        assert "0/7" in text
        assert "3.0 MiB of 3.0 MiB" in text

    def test_silent_where_nobody_looks(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ByteProgress() as shown:
            shown.begin("sending", total=100, in_bytes=True)
            shown.advance(100)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 * 2**20, "10 MiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)  # fmt: skip
def test_sizes(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
