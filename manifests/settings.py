"""From parsed TOML or `key=value` words to frozen dataclasses; unknown keys are refused."""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from manifests.errors import InputError, SourceSyntaxError

T = TypeVar("T")

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)
_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def read_toml(path: Path, *, what: str) -> dict[str, Any]:  # Any: TOML
    """The tables of a TOML file.

    Args:
        path: the file.
        what: the kind of file, for messages: "job file", "policy".

    Raises:
        InputError: the file cannot be read.
        SourceSyntaxError: it is not TOML; carries line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{what} {path}: cannot be read ({error.strerror or error}); give the path of a "
            "TOML file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {path}: expected TOML in UTF-8, got other bytes at {error.start}; save the "
            "file as UTF-8"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken_toml(path, text, str(error)) from error


def from_mapping(kind: type[T], values: object, *, where: str) -> T:
    """A dataclass from parsed TOML, its nested dataclasses included.

    Args:
        kind: a frozen dataclass.
        values: what TOML gave.
        where: the file or option, for messages.

    Raises:
        InputError: an unknown key (names the nearest), a missing one, or a value of another type.
    """
    _refuse_unknown(kind, values, where, ())
    try:
        return msgspec.convert(values, type=kind, strict=True)
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        what, place = (match["what"], match["place"]) if match else (str(error), None)
        what = what[:1].lower() + what[1:].replace("`", "'")
        raise InputError(f"{where}: {place + ': ' if place else ''}{what}") from error


def with_overrides(
    values: Mapping[str, Any],  # Any: TOML
    overrides: Sequence[str],
    *,
    option: str = "--set",
) -> dict[str, Any]:  # Any: TOML
    """Parsed TOML with `a.b=value` words set in it; a value is TOML, or else a plain string.

    A number in a path selects from a list: `label.0.teacher=box`.

    Args:
        values: left as they are.
        overrides: the words.
        option: where the words come from, for messages.

    Raises:
        InputError: a word without `=`, or a path that leads nowhere.
    """
    result = copy.deepcopy(dict(values))
    for word in overrides:
        path, separator, text = word.partition("=")
        keys = path.split(".")
        if not separator or not all(keys):
            raise InputError(f"{option} {word}: expected KEY=VALUE, such as {path or 'key'}=2")
        try:
            _set(result, keys, _value(text))
        except LookupError as error:
            raise InputError(
                f"{option} {word}: there is nothing to set at '{error.args[0]}'; look at the "
                "names in the file"
            ) from error
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"


def _value(text: str) -> Any:  # Any: TOML
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set(values: Any, path: Sequence[str], value: Any) -> None:  # Any: TOML
    """Raises LookupError with the key at which the path leads nowhere."""
    key, *rest = path
    position = int(key) if isinstance(values, list) and key.isdigit() else -1
    if isinstance(values, dict):
        if rest:
            _set(values.setdefault(key, {}), rest, value)
        else:
            values[key] = value
    elif 0 <= position < len(values):
        if rest:
            _set(values[position], rest, value)
        else:
            values[position] = value
    else:
        raise LookupError(key)


def _broken_toml(path: Path, text: str, detail: str) -> SourceSyntaxError:
    match = _TOML_PLACE.search(detail)
    if match and match["line"]:
        line, column = int(match["line"]), int(match["column"])
    else:
        lines = text.splitlines() or [""]
        line, column = len(lines), len(lines[-1]) + 1
    reason = _TOML_PLACE.sub("", detail)
    reason = reason[:1].lower() + reason[1:]
    return SourceSyntaxError(path=str(path), line=line, column=column, detail=reason)


def _refuse_unknown(kind: Any, values: object, where: str, path: tuple[str, ...]) -> None:
    """msgspec ignores keys that a dataclass lacks; a typing error must not pass in silence."""
    if typing.get_origin(kind) is typing.Literal and values not in typing.get_args(kind):
        choices = ", ".join(map(str, typing.get_args(kind)))
        raise InputError(f"{where}: {'.'.join(path)}: expected one of {choices}, got {values!r}")
    kind = _dataclass_in(kind)
    if isinstance(values, list):
        for position, value in enumerate(values):
            _refuse_unknown(kind, value, where, (*path, str(position)))
        return
    if kind is None or not isinstance(values, Mapping):
        return
    hints = typing.get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]
    for key, value in values.items():
        if key not in known:
            inside = f" in {'.'.join(path)}" if path else ""
            raise InputError(f"{where}: unknown key '{key}'{inside}; {did_you_mean(key, known)}")
        _refuse_unknown(hints[key], value, where, (*path, key))


def _dataclass_in(kind: Any) -> Any:  # Any: a type
    """The dataclass in `X`, `X | None`, `tuple[X, ...]`; None if there is none."""
    if is_dataclass(kind):
        return kind
    origin = typing.get_origin(kind)
    if origin in (tuple, list, types.UnionType, typing.Union):
        found = (_dataclass_in(part) for part in typing.get_args(kind))
        return next((part for part in found if part is not None), None)
    return None
