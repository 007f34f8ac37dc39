"""House rules as tests: who may import whom, what stays out of the packages, what is tracked."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "manifests", "teachers", "student")
_EMPTY_NAMES = {"utils", "util", "misc", "helpers", "helper", "common"}
# Folders that only exist on somebody's own machine; `/tmp` and `/proc` are everybody's.
_MACHINE_PATH = re.compile(rb"(?<![\w.:/~-])/(?:root|work|home|Users|mnt)/[\w.-]")


def _sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _found(matches: Callable[[ast.AST], bool], paths: list[Path]) -> list[str]:
    """Where in these files a syntax node matches, as `path:line`."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if matches(node)
    ]


def _called(node: ast.AST) -> str:
    """`torch.load` for a call of it, and "" for anything else."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_the_one_in_this_repository(package: str) -> None:
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).resolve() == ROOT / package / "__init__.py"


def test_import_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_manifests_is_light() -> None:
    """Whoever only reads a dataset pays for no torch, ray or cv2, and without S3 for no client."""
    modules = "boxes, cells, commit, dataset, digest, image_tar, layout, ledger, manifest, refs"
    loaded = _modules_after(f"from manifests import {modules}, results, rle, schemas, store")
    heavy = {"torch", "torchvision", "ray", "cv2", "transformers", "timm", "onnxruntime"}
    assert not loaded & (heavy | {"s3fs", "botocore", "aiobotocore"})


def test_no_assert_outside_tests() -> None:
    """`python -O` removes them, and users get no sentence."""
    assert _found(lambda node: isinstance(node, ast.Assert), _sources()) == []


def test_print_only_on_the_command_line() -> None:
    quiet = [path for path in _sources() if not path.name.startswith("cli")]
    assert _found(lambda node: _called(node) == "print", quiet) == []


def _unpickles(node: ast.AST) -> bool:
    called = _called(node)
    if called == "torch.load" and isinstance(node, ast.Call):
        safe = [word for word in node.keywords if word.arg == "weights_only"]
        return not (
            safe and isinstance(safe[0].value, ast.Constant) and safe[0].value.value is True
        )
    module, _, name = called.rpartition(".")
    return module.rpartition(".")[2] in {"pickle", "cloudpickle", "dill", "joblib"} and name in {
        *("load", "loads", "Unpickler"),
    }


def test_nothing_is_unpickled() -> None:
    """A pickle is a program: weights are read with weights_only=True, and nothing else is one."""
    assert _found(_unpickles, _sources()) == []


def test_unpickling_would_be_seen() -> None:
    bad = ["torch.load(f)", "torch.load(f, weights_only=False)", "pickle.loads(b)"]
    for line in (*bad, "torch.load(f, weights_only=flag)", "joblib.load(f)"):
        assert any(_unpickles(node) for node in ast.walk(ast.parse(line))), line
    fine = ast.parse("torch.load(f, weights_only=True); json.load(f)")
    assert not any(_unpickles(node) for node in ast.walk(fine))


def _catches_everything(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    names = [] if node.type is None else ast.walk(node.type)
    caught = {name.id for name in names if isinstance(name, ast.Name)}
    return node.type is None or bool(caught & {"Exception", "BaseException"})


def test_nothing_is_caught_wholesale_in_manifests() -> None:
    """But where the command line ends, so that every failure is one sentence."""
    inner = [path for path in (ROOT / "manifests").rglob("*.py") if path.name != "console.py"]
    assert _found(_catches_everything, sorted(inner)) == []


def test_files_are_named_after_a_concept() -> None:
    assert [path.name for path in _tracked() if path.stem in _EMPTY_NAMES] == []


def _machine_paths() -> Iterator[str]:
    for path in _tracked():
        data = path.read_bytes()
        if b"\0" in data[:1024] or path == Path(__file__).resolve():
            continue
        for match in _MACHINE_PATH.finditer(data):
            line = data.count(b"\n", 0, match.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}"


def test_no_path_of_one_machine_is_tracked() -> None:
    assert list(_machine_paths()) == []
