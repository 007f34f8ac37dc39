"""A job file: the whole chain as data, `maskmill run job.toml`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.confidence.roles import DEFAULT_CERTIFY_SHARE
from engine.driver import DriverConfig
from engine.ingest_config import ImagePolicy
from engine.policy import Policy
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import DEFAULT_BRANCH
from manifests.errors import InputError
from manifests.settings import from_mapping, read_toml, with_overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """`[ingest]`: see IngestConfig."""

    shard_images: int = 1000
    shard_bytes: int = 256 * 2**20
    policy: ImagePolicy = ImagePolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """`[[label]]`: see LabelConfig. `fallback` is used, loudly, where weights are not to be had."""

    teacher: str
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    image_batch: int = 8
    fallback: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateSettings:
    """`[calibrate]`: see AgreeConfig and CalibrateConfig; an empty table is enough."""

    teachers: tuple[str, ...] = ()
    prior: bool = False
    certify_share: float = DEFAULT_CERTIFY_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """`[[export]]`: see manifests.export."""

    format: str
    target: str
    layer: str | None = None
    polygons: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """`[report]`: an HTML page with the photos, the masks, and the reasons."""

    target: str
    max_photos: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """A whole job.

    Attributes:
        store: made if it is not there.
        branch: where everything is committed.
        source: what to ingest, in order.
        ingest: how.
        label: teachers to run, in order.
        calibrate: whether and how masks get a calibrated confidence.
        policy: the filter policy, as a name, a path, or a table; empty for no filter step.
        export: what to write out at the end.
        report: an HTML page at the end, or none.
        pool, driver: where the workers run, and how patient they are.
    """

    store: str
    branch: str = DEFAULT_BRANCH
    source: tuple[SourceConfig, ...] = ()
    ingest: IngestSettings = IngestSettings()
    label: tuple[LabelSettings, ...] = ()
    calibrate: CalibrateSettings | None = None
    policy: str | Policy = ""
    export: tuple[ExportSettings, ...] = ()
    report: ReportSettings | None = None
    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()

    def __post_init__(self) -> None:
        if not self.store:
            raise InputError('job: expected store = "folder or URL", got none; add it')

    @staticmethod
    def load(path: str, *, overrides: Sequence[str] = ()) -> JobConfig:
        """A job from a TOML file and `a.b=value` words.

        Local paths are relative to the file's own folder, those in words to the current one.

        Raises:
            InputError: there is no such file, it is not TOML, or not a job.
        """
        file = Path(path)
        values = read_toml(file, what="job file")
        placed = {key: _below(file.parent, (key,), value) for key, value in values.items()}
        return from_mapping(JobConfig, with_overrides(placed, overrides), where=f"job file {path}")


_PATHS = {
    ("store",), ("source", "annotations"), ("source", "images"), ("source", "options", "classes"),
    ("source", "options", "image_labels"), ("source", "options", "images_csv"),
    ("export", "target"), ("report", "target"),
}  # fmt: skip


def _below(folder: Path, keys: tuple[str, ...], value: Any) -> Any:  # Any: TOML
    """The value with the relative local paths in it made relative to a folder."""
    if isinstance(value, dict):
        return {key: _below(folder, (*keys, key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_below(folder, keys, inner) for inner in value]
    is_path = keys in _PATHS or (keys == ("policy",) and str(value).endswith(".toml"))
    if not is_path or not isinstance(value, str) or not value or "://" in value:
        return value
    return os.path.normpath(folder / Path(value).expanduser())
