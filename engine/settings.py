"""From parsed TOML or `key=value` words to frozen dataclasses; unknown keys are refused."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import msgspec

from manifests.errors import InputError

T = TypeVar("T")


def from_mapping(kind: type[T], values: object, *, where: str) -> T:
    """A dataclass from parsed TOML, its nested dataclasses included.

    Args:
        kind: a frozen dataclass.
        values: what TOML gave.
        where: the place in the file, for messages.

    Raises:
        InputError: an unknown key (names the nearest), a missing one, or a value of another type.
    """
    _refuse_unknown(kind, values, where)
    try:
        return msgspec.convert(values, type=kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from error


def with_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:  # Any: TOML
    """Parsed TOML with `a.b=value` words set in it; a value is TOML, or else a plain string.

    A number in a path selects from a list: `label.0.teacher=box`.

    Raises:
        InputError: a word without `=`, or a path that leads nowhere.
    """
    import copy
    import tomllib

    result = copy.deepcopy(values)
    for word in overrides:
        path, separator, text = word.partition("=")
        if not separator or not path:
            raise InputError(f"--set {word}: expected KEY=VALUE, such as pool.workers=2")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        _set(result, path.split("."), value, word)
    return result


def _set(values: Any, path: list[str], value: Any, word: str) -> None:  # Any: TOML
    for key in path[:-1]:
        values = _step(values, key, word)
    if isinstance(values, list):
        _step(values, path[-1], word)
        values[int(path[-1])] = value
    else:
        values[path[-1]] = value


def _step(values: Any, key: str, word: str) -> Any:  # Any: TOML
    if isinstance(values, dict):
        return values.setdefault(key, {})
    if isinstance(values, list) and key.isdigit() and int(key) < len(values):
        return values[int(key)]
    raise InputError(f"--set {word}: there is nothing at '{key}'")


def _refuse_unknown(kind: Any, values: object, where: str) -> None:  # Any: a type
    """msgspec ignores keys that a dataclass lacks; a typing error must not pass in silence."""
    kind = _dataclass_in(kind)
    if isinstance(values, list):
        for position, value in enumerate(values):
            _refuse_unknown(kind, value, f"{where}[{position}]")
        return
    if kind is None or not isinstance(values, Mapping):
        return
    hints = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(
                f"{where}: unknown key '{key}'; did you mean '{near[0] if near else ''}'? "
                f"(known: {', '.join(known)})"
            )
        _refuse_unknown(hints[key], value, f"{where}.{key}")


def _dataclass_in(kind: Any) -> Any:  # Any: a type
    """The dataclass in `X`, `X | None`, `tuple[X, ...]`; None if there is none."""
    if is_dataclass(kind):
        return kind
    origin = typing.get_origin(kind)
    if origin in (tuple, list, types.UnionType, typing.Union):
        found = (_dataclass_in(part) for part in typing.get_args(kind))
        return next((part for part in found if part is not None), None)
    return None
