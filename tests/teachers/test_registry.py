"""The registry: names, settings, identities, and nothing heavy before a teacher is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import InputError, WeightsError
from teachers import registry, weights
from teachers.protocol import Teacher
from tests.teachers.conftest import photo


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, teachers.registry as r; r.identity('sam_vit_h'); "
        "heavy = {'torch', 'cv2', 'onnxruntime', 'segment_anything'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_entry_names_weights_of_the_table_and_a_builder_that_exists() -> None:
    for name, spec in registry.REGISTRY.items():
        assert spec.weights is None or spec.weights in weights.TABLE
        assert spec.version >= 1
        module = spec.builder.split(":")[0].replace(".", "/")
        assert (Path(registry.__file__).parents[1] / f"{module}.py").is_file(), name
    assert set(registry.ALIASES.values()) <= set(registry.REGISTRY)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no teacher is called 'sam_vit_x'; did you mean 'sam_"):
        registry.identity("sam_vit_x")
    with pytest.raises(InputError, match=r"'zzz'; known: box, grabcut"):
        registry.build("zzz")


def test_an_unknown_setting_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="no setting 'devise'; did you mean 'device'"):
        registry.identity("sam_vit_t", {"devise": "cpu"})
    with pytest.raises(InputError, match="no setting 'device'; known: none"):
        registry.build("box", {"device": "cpu"})


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("sam_vit_t", {"box_batch": "many"}, "expected int, got 'many'"),
        ("sam_vit_t", {"box_batch": True}, "expected int, got True"),
        ("sam_vit_t", {"box_batch": -1}, "box_batch: expected at least 0, got -1"),
        ("sam_vit_t", {"mask_bytes": 0}, "mask_bytes: expected at least 1"),
        ("sam_vit_t", {"device": "gpu"}, "expected auto, cpu, cuda"),
        ("sam_vit_t", {"precision": "int8"}, "expected one of float32"),
        ("sam_vit_t", {"precision": "float16", "device": "cpu"}, "needs CUDA"),
        ("grabcut", {"iterations": 0}, "iterations: expected at least 1"),
        ("grabcut", {"margin": float("nan")}, "margin: expected at least 0, got nan"),
        ("u2netp", {"threshold": 1.0}, "threshold: expected between 0 and 1"),
    ],
)
def test_wrong_values_are_refused(name: str, config: registry.Config, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.identity(name, config)


def test_only_what_changes_the_masks_is_in_the_identity() -> None:
    plain = registry.identity("sam_vit_t")
    fast = {"device": "cuda:1", "num_threads": 3, "image_batch": 5, "box_batch": 7}
    assert registry.identity("sam_vit_t", fast) == plain
    assert registry.identity("sam_vit_t", {"precision": "bfloat16"}) != plain
    assert registry.identity("grabcut", {"margin": 0.5}) != registry.identity("grabcut")
    assert plain.weights_sha256 == weights.TABLE["mobile_sam"].sha256


def test_an_alias_is_the_same_teacher() -> None:
    assert registry.identity("mobile_sam") == registry.identity("sam_vit_t")


@pytest.mark.parametrize("name", ["box", "grabcut"])
def test_a_built_teacher_has_the_identity_foretold(name: str) -> None:
    teacher = registry.build(name)
    assert isinstance(teacher, Teacher)
    assert teacher.identity == registry.identity(name)


@pytest.mark.shared_data
@pytest.mark.usefixtures("weights_given")
@pytest.mark.parametrize("name", ["sam_vit_t", "u2netp"])
def test_a_teacher_with_weights_has_the_identity_foretold(name: str) -> None:
    teacher = registry.build(name, {"num_threads": 2})
    assert isinstance(teacher, Teacher)
    assert teacher.identity == registry.identity(name)
    none = np.zeros((0, 4), dtype=np.float32)
    assert not [*teacher.predict([photo(8, 8)], [none])]


def _nowhere(name: str) -> Path:
    raise WeightsError(f"weights '{name}' not found")


def test_without_weights_the_fallback_is_used_loudly() -> None:
    name, warning = registry.resolve_available("mobile_sam", fetch=_nowhere)
    assert name == "grabcut"
    assert warning is not None
    assert "sam_vit_t is not available, using grabcut" in warning
    assert "'mobile_sam' not found" in warning


def test_with_weights_or_without_need_nothing_is_said() -> None:
    assert registry.resolve_available("mobile_sam", fetch=Path) == ("sam_vit_t", None)
    assert registry.resolve_available("grabcut", fetch=_nowhere) == ("grabcut", None)
    with pytest.raises(InputError, match="no teacher"):
        registry.resolve_available("nothing", fetch=Path)
