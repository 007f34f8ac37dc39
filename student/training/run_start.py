"""Where a run begins: anew, or at the checkpoint at which the same command was stopped before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from manifests.errors import InputError, RefError
from manifests.refs import Refs
from manifests.store import Store
from student.checkpoint import Checkpoint, DataVersion, Lineage, branch_of, parse_checkpoint
from student.config_files import config_values

_MAY_DIFFER = {
    "name", "model.text.weights", "data.cache_bytes", "data.cache_folder", "data.workers",
    "train.micro_batch", "train.compile", "train.workers", "train.gpus_per_worker",
    "train.cpus_per_worker", "train.checkpoint_steps", "train.log_steps", "train.max_failures",
}  # fmt: skip
"""Settings that say where and how the work is done, not what comes of it."""
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """Where a run begins.

    Attributes:
        lineage: with the run's name.
        newest: its newest checkpoint; None: it has taken no step.
        entry: of the branch's log, at which it was found; 0: there was none.
    """

    lineage: Lineage
    newest: Checkpoint | None
    entry: int


def find_start(store: Store, wanted: Lineage, *, name: str, restart: bool) -> RunStart:
    """The run that a command goes on with, or a new one.

    Args:
        store: where the checkpoints are.
        wanted: what the command is to train; its `run` does not count.
        name: the student's.
        restart: begin anew, whatever is there. It stays in the branch's log.

    Raises:
        InputError: the name is taken by another configuration, other data, a checkpoint of another
            version, or no student at all.
    """
    head = Refs(store).head(branch_of(name))
    named = replace(wanted, run=uuid.uuid4().hex)
    if head is None:
        return RunStart(lineage=named, newest=None, entry=0)
    anew = RunStart(lineage=named, newest=None, entry=head.number)
    try:
        newest = parse_checkpoint(head.commit, store)
    except RefError as error:
        raise InputError(f"--name {name}: {error}; or take another --name") from error
    except InputError:  # another version wrote it
        if restart:
            return anew
        raise
    if restart:
        return anew
    # As this version reads it: settings that came later have their defaults then.
    then = replace(newest.lineage, student=config_values(newest.config))
    differences = list(_differences(then, wanted))
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise InputError(
            f"student '{name}' is at step {newest.lineage.step:,} of a run with other settings: "
            f"{'; '.join(differences[:_SHOWN])}{more}; use another --name, or --restart to begin "
            "anew under this one"
        )
    lineage = replace(wanted, run=newest.lineage.run)
    return RunStart(lineage=lineage, newest=newest, entry=head.number)


def _differences(then: Lineage, now: Lineage) -> Iterator[str]:
    """What differs, data first; a phrase each."""
    if _commits(then.data) != _commits(now.data):  # wherever the store is by now
        yield (
            f"trained on {_data(then.data)}, not {_data(now.data)} (to go on, name what it was "
            "in place of the ref)"
        )
    before, after = flat(then.student), flat(now.student)
    for key in dict.fromkeys([*before, *after]):
        is_free = key in _MAY_DIFFER or key.startswith("log.")
        if not is_free and before.get(key) != after.get(key):
            yield f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
    for key in dict.fromkeys([*then.text, *now.text]):
        if then.text.get(key) != now.text.get(key):
            yield f"the text encoder's {key} was {then.text.get(key)}, is {now.text.get(key)}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:  # Any: JSON
    """Nested tables as `a.b` -> value; lists are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _commits(versions: tuple[DataVersion, ...]) -> list[str]:
    return list(dict.fromkeys(version.commit for version in versions))


def _data(versions: tuple[DataVersion, ...]) -> str:
    return " and ".join(f"commit {commit[:12]}" for commit in _commits(versions))
