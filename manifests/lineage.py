"""What it takes to make a commit again, as one list: `maskmill show` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from manifests.commit import Commit, ExternalInput, Operation

Kind = Literal[
    "commit", "input", "teacher", "weights", "operation", "setting", "package", "machine"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing without which, or with another of its kind, a commit may come out different.

    Attributes:
        kind: "commit" (its parents), "input" (files outside the store), "teacher", "weights",
            "operation", "setting" (of the operation or its teacher), "package", "machine" (what
            shows in the last digits only).
        name: which of its kind: "parent", "annotations", "sam_vit_t", "policy.min_sharpness" ...
        value: an id, an address, a version, a setting as JSON.
        sha256: digest of its content, where there is one.
    """

    kind: Kind
    name: str
    value: str
    sha256: str | None = None


def needed(commit: Commit) -> tuple[Need, ...]:
    """Everything that a commit says it was made from, the most telling first."""
    operation = commit.operation
    return (
        *_commits(commit),
        *_inputs(operation),
        *_teacher(operation.teacher or {}),
        Need(kind="operation", name=operation.name, value=f"version {operation.version}",
             sha256=operation.config_digest),
        *_settings("", operation.config),
        *(Need(kind="package", name=name, value=version)
          for name, version in operation.code.items()),
        *(Need(kind="machine", name=str(number), value=_words(machine))
          for number, machine in enumerate(operation.machines, start=1)),
    )  # fmt: skip


def _commits(commit: Commit) -> Iterator[Need]:
    for number, parent in enumerate(commit.parents, start=1):
        name = "parent" if number == 1 else f"parent {number}"
        yield Need(kind="commit", name=name, value=parent)
    if commit.base is not None:
        yield Need(kind="commit", name="base", value=commit.base)


def _inputs(operation: Operation) -> Iterator[Need]:
    """Files with digests; then what only the settings name, such as the image root."""
    for role, item in operation.inputs.items():
        value = f"{item.url} ({_amount(item)})"
        yield Need(kind="input", name=role, value=value, sha256=item.sha256)
    source = operation.config.get("source")
    for role in ("annotations", "images"):
        if isinstance(source, Mapping) and role in source and role not in operation.inputs:
            yield Need(kind="input", name=role, value=str(source[role]))


def _amount(item: ExternalInput) -> str:
    files = f"{item.num_files:,} file" + ("" if item.num_files == 1 else "s")
    return f"{files}, {item.num_bytes:,} bytes" if item.num_bytes else files


def _teacher(teacher: Mapping[str, Any]) -> Iterator[Need]:  # Any: JSON
    if not teacher:
        return
    name = str(teacher.get("name"))
    yield Need(kind="teacher", name=name, value=f"version {teacher.get('version')}")
    if weights := teacher.get("weights_sha256"):
        yield Need(kind="weights", name=name, value=str(weights), sha256=str(weights))
    yield from _settings(f"{name}.", teacher.get("config") or {})


def _settings(prefix: str, config: Mapping[str, Any]) -> Iterator[Need]:  # Any: JSON
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(f"{prefix}{name}.", value)
        else:
            text = json.dumps(value, ensure_ascii=False)
            yield Need(kind="setting", name=f"{prefix}{name}", value=text)


def _words(values: Mapping[str, str | int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
