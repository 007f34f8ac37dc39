"""A commit that is to be made again: what it was made from, where, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.driver import DriverConfig, JobProgress
from engine.pool import PoolConfig
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.store import Store
from manifests.writer import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceConfig:
    """Where, and from which files, a commit is made again.

    Attributes:
        pool: where the workers run.
        driver: how patient the job is.
        moves: folders and files that a source was in -> where they are now.
    """

    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()
    moves: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A commit that is to be made again.

    Attributes:
        store: opened with `scratch`, so that no result of the first time is found.
        commit_id, commit: what was made.
        base: what it was made from, read through `store`; None for a first commit.
        config: see ReproduceConfig.
        on_progress: told how far the job is.
    """

    store: Store
    commit_id: str
    commit: Commit
    base: Dataset | None
    config: ReproduceConfig
    on_progress: Callable[[JobProgress], None] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:  # Any: JSON
        """The operation's recorded configuration."""
        return self.commit.operation.config

    @property
    def start(self) -> Dataset:
        """`base`, for operations that need one. Raises InputError if there is none."""
        if self.base is None:
            raise InputError(
                f"{self.name} was made by '{self.commit.operation.name}' and has no parent to "
                "start from: only 'init' makes such a commit"
            )
        return self.base

    @property
    def name(self) -> str:
        """For messages."""
        return f"commit {self.commit_id[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaker:
    """How to make an operation's commits again.

    Attributes:
        version: the operation's own output version today.
        make: does the work. Raises InputError where this version does not know a setting, and what
            the operation itself raises.
    """

    version: int
    make: Callable[[Again], Draft]
