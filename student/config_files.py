"""Configurations from files: a size's values, a TOML file's over them, and words over both.

A file names a size (`size = "tiny"`) and overrides what it wants; sizes lie in `student/sizes/`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from manifests.errors import InputError
from manifests.settings import did_you_mean, from_mapping, read_toml, with_overrides
from student.config import StudentConfig

SIZES = ("tiny", "small", "base")


def load_config(
    path: Path | None, overrides: Sequence[str] = (), *, size: str = ""
) -> StudentConfig:
    """A configuration: its size's values, then the file's, then `a.b=value` words.

    Args:
        path: a TOML file; None: the size alone.
        overrides: `train.steps=100` and the like.
        size: one of SIZES; empty: the file's `size`, or `tiny`.

    Raises:
        InputError: an unknown key, size or value; the message names the nearest.
    """
    given = read_toml(path, what="student configuration") if path else {}
    named = given.pop("size", "tiny")
    values = with_overrides(_merged(_size(size or named), given), overrides)
    return from_mapping(StudentConfig, values, where=str(path or f"size {size or named}"))


def config_values(config: StudentConfig) -> dict[str, Any]:  # Any: JSON
    """The configuration as JSON values, which `config_from_values` reads back."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def config_from_values(values: Mapping[str, Any], *, where: str) -> StudentConfig:  # Any: JSON
    """The configuration a checkpoint was made with. Raises InputError if it is none."""
    return from_mapping(StudentConfig, dict(values), where=where)


def _size(name: str) -> dict[str, Any]:  # Any: TOML
    if name not in SIZES:
        raise InputError(f"size '{name}' is unknown; {did_you_mean(str(name), SIZES)}")
    text = resources.files("student").joinpath("sizes", f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:  # Any: TOML
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged
